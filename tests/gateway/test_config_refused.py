"""`routes.yaml` that is wrong: each mistake with the exact line a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import config
from gateway.errors import ConfigError

SECRET = "sk-s3cret-s3cret"


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, **environment: str) -> ConfigError:
    """The refusal of a file, which is named as a person would: relative to where they stand."""
    monkeypatch.chdir(folder)
    Path("routes.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(Path("routes.yaml"), environment)
    # Neither the message nor a chained error may carry a secret.
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


def table(name: str) -> list[tuple[str, str]]:
    """The rows of a table: what is written, and on the line below it, indented, what is said."""
    text = (Path(__file__).parent / name).read_text("utf-8")
    blocks = [block.split("\n    ") for block in text.strip().split("\n\n") if not block.startswith("#")]
    return [(written.replace("\\n", "\n"), said) for written, said in blocks]


PROVIDERS = table("refused_providers.txt")
ROUTES = table("refused_routes.txt")
ON = "deployments: [{provider: local, model: smollm2}]"


@pytest.mark.parametrize(("line", "said"), PROVIDERS, ids=[said for _, said in PROVIDERS])
def test_a_wrong_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    (tmp_path / "blank").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"x" * 70_000)
    text = f"providers:\n  {line}\nroutes: {{r: {{deployments: [{{provider: p, model: smollm2}}]}}}}\n"
    error = refused(tmp_path, monkeypatch, text, EMPTY="", BROKEN=f"{SECRET}\n")
    assert str(error) == f"routes.yaml:2: providers.p{said}"


@pytest.mark.parametrize(("line", "said"), ROUTES, ids=[said for _, said in ROUTES])
def test_a_wrong_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    text = (
        "providers: {local: {type: embedded}, gpu: {type: openai_compatible, base_url: http://gpu/v1}}\n\n"
        f"routes:\n  chat: {{{ON}}}\n  {line.replace('ON', ON)}\n  embed: {{task: embeddings, {ON}}}\n"
    )
    assert str(refused(tmp_path, monkeypatch, text)).splitlines()[0] == f"routes.yaml:5: routes{said}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("azure: {type: azure, api_key: '${K}'}", ".azure.base_url: is missing. For example: https://RESOURCE."),
        (
            "old: {type: azure_deployments, base_url: 'https://r/openai', api_key: '${K}'}",
            ".old.api_version: is missing. For example: 2024-10-21",
        ),
        (
            "two: {type: groq, api_key: '${K}', api_keys: ['${K}']}",
            ".two.api_keys: stands beside api_key. Keep one of them.",
        ),
        (
            "sick: {type: azure_deployments, base_url: 'https://r/openai', api_key: '${K}', api_version: '../x'}",
            ".sick.api_version: is not a version. For example: 2024-10-21",
        ),
    ],
)
def test_a_wrong_provider_with_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    text = f"providers:\n  local: {{type: embedded}}\n  {line}\nroutes: {{r: {{{ON}}}}}\n"
    assert str(refused(tmp_path, monkeypatch, text, K=SECRET)).startswith(f"routes.yaml:3: providers{said}")


def test_a_callers_credential_is_for_one_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "providers:\n  a: {type: ollama}\n  b: {type: vllm, base_url: http://b/v1}\n  l: {type: litellm}\nroutes:\n"
        "  one: {byok: true, deployments: [{provider: a, model: x}, {provider: a, model: y}]}\n"
        "  two: {byok: true, deployments: [{provider: a, model: x}, {provider: b, model: x}]}\n"
        "  three: {byok: true, deployments: [{provider: l, model: x}]}\n"
    )
    assert str(refused(tmp_path, monkeypatch, text)).splitlines() == [
        (
            "routes.yaml:7: routes.two.deployments[1].provider: a caller's credential for 'a' would go to 'b' too. "
            "Give it a route of its own."
        ),
        (
            "routes.yaml:8: routes.three.byok: 'l' cannot be called with a caller's credential. "
            "Remove byok, or name another."
        ),
    ]


GOOD = f"providers: {{local: {{type: embedded}}}}\nroutes: {{chat: {{{ON}}}}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "routes.yaml: is empty. Write 'providers' and 'routes', as the manual shows."),
        ("# only a comment\n", "routes.yaml: is empty. Write 'providers' and 'routes', as the manual shows."),
        ("hello\n", "routes.yaml:1: must be a mapping, not text."),
        ("- a\n- b\n", "routes.yaml:1: must be a mapping, not a list."),
        (GOOD + "extra: 1\n", "routes.yaml:3: extra: unknown key. Known here: providers, routes, keys, alerts."),
        (GOOD + "route: {}\n", "routes.yaml:3: route: unknown key. Did you mean 'routes'?"),
        (GOOD.encode() + b"# \xe9\n", "routes.yaml:3: is not UTF-8: byte 0xe9. Save the file as UTF-8."),
        (GOOD + "x: \x07\n", "routes.yaml:3: is not YAML: a control character. Remove it."),
        ("routes:\n  chat:\n\tx: 1\n", "routes.yaml:3: is not YAML: "),
        (f"routes: {{chat: {SECRET}\n", "routes.yaml:2: is not YAML: "),
        (GOOD + "---\n" + GOOD, "routes.yaml:3: is not YAML: "),
        ("a: *b\n", "routes.yaml:1: is not YAML: "),
        (b"x: '" + b"y" * (4 * 2**20) + b"'\n", "routes.yaml: is longer than 4 MiB. Is it the right file?"),
        ("a: &a [*a]\n", "routes.yaml: is nested more than 40 levels deep at line 1. Write it flatter."),
        ("a: &a\n  <<: *a\n", "routes.yaml: holds a mapping merged into itself, or too many merges. Write it out."),
        ("[" * 900 + "]" * 900, "routes.yaml: is nested more than 40 levels deep at line 1. Write it flatter."),
    ],
)
def test_a_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, said: str) -> None:
    whole = str(refused(tmp_path, monkeypatch, text))
    assert whole.startswith(said) if said.endswith(": ") else whole == said


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ("webhook: 'https://u:p@h/', secret: '${OPENAI_KEY}'", "alerts.webhook: holds a user, a password or a '#'."),
        ("webhook: hooks, secret: '${OPENAI_KEY}'", "alerts.webhook: must be an address. For example: https://ops"),
        ("webhook: 'https://h/', secret: 0123456789abcdef", "alerts.secret: a secret may not stand in this file."),
        ("webhook: 'https://h/', secret: '${OPENAI_KEY}', at: [0]", "alerts.at[0]: must be at least 1, not 0"),
        ("webhook: 'https://h/'", "alerts.secret: is missing"),
    ],
)  # fmt: skip
def test_wrong_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alerts: str, said: str) -> None:
    assert f"routes.yaml:3: {said}" in str(refused(tmp_path, monkeypatch, f"{GOOD}alerts: {{{alerts}}}\n"))


def test_tabs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = str(refused(tmp_path, monkeypatch, "routes:\n  chat:\n\tx: 1\n"))
    assert whole.endswith("YAML is indented with spaces, not tabs.")


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.load(Path("none.yaml"), {})
    assert str(caught.value) == (
        "none.yaml: no such file. Name one with --config, or create it: the manual shows a first routes.yaml."
    )
    Path("folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^folder\.yaml: cannot be read: Is a directory\.$"):
        config.load(Path("folder.yaml"), {})


def test_aliases_cannot_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    said = str(refused(tmp_path, monkeypatch, "\n".join(lines) + "\n"))
    assert said == "routes.yaml: holds more than 100000 values once its aliases are followed. Write it smaller."


def test_brackets_without_end_do_not_crash_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(refused(tmp_path, monkeypatch, "[" * 100_000)).startswith("routes.yaml")


def test_a_circle_of_fallbacks_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "providers: {local: {type: embedded}}\n"
        "routes:\n"
        f"  a: {{{ON}, fallbacks: [b]}}\n"
        f"  b: {{{ON}, fallbacks: [c]}}\n"
        f"  c: {{{ON}, fallbacks: [d, b]}}\n"
        f"  d: {{{ON}}}\n"
    )
    said = "routes.yaml:5: routes.c.fallbacks[1]: falls back in a circle: b → c → b. Remove it."
    assert str(refused(tmp_path, monkeypatch, text)) == said


def test_every_problem_comes_at_once_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "providers:\n"
        "  local: {type: embedded}\n"
        '  openai: {type: openai, api_key: "${NONE}"}\n'
        "  gpu: {type: openai_compatible, base_url: gpu}\n"
        "routes:\n"
        "  chat:\n"
        "    deployments:\n"
        "      - {provider: locl, model: smollm2}\n"
        "    limits: {rpm: 1, rpm: 2}\n"
        "    fallbacks: [fsat]\n"
        "  fast: {deployments: 3}\n"
    )
    error = refused(tmp_path, monkeypatch, text)
    assert str(error).splitlines() == [
        "routes.yaml:3: providers.openai.api_key: the environment variable NONE is not set. Set it: export NONE=…",
        "routes.yaml:4: providers.gpu.base_url: must begin with http:// or https://. For example: http://gpu-1:8000/v1",
        "routes.yaml:8: routes.chat.deployments[0].provider: 'locl' is not a provider. Did you mean 'local'?",
        "routes.yaml:9: routes.chat.limits.rpm: is written twice, first on line 9. Keep one.",
        "routes.yaml:10: routes.chat.fallbacks[0]: 'fsat' is not a route. Did you mean 'fast'?",
        (
            "routes.yaml:11: routes.fast.deployments: must be a list, not a number. "
            "For example: [{provider: local, model: smollm2}]"
        ),
    ]
    assert [problem.line for problem in error.problems] == [3, 4, 8, 9, 10, 11]
    assert {problem.source for problem in error.problems} == {"routes.yaml"}
