"""`routes.yaml`: what a good file becomes, and what the shipped files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import config
from gateway.routes import CachePolicy, Config, Deployment, Limits, RouteTask, Timeouts

ROOT = Path(__file__).parents[2]
KEYS = {
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "AZURE_OPENAI_API_KEY": "azure-key",
    "VLLM_API_KEY": "vllm-key",
    "GROQ_KEY_1": "groq-1",
    "GROQ_KEY_2": "groq-2",
    "AWS_ACCESS_KEY_ID": "aws-id",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
}

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUbHqU7/BI2WLMqV7EokRUnt1fFp8wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUyMjI3MDBaGA8yMTI2MTEwMTIyMjcw
MFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBry
1+rdpdbaASjb45Ou6o7+cSvOLQfMYZ1p3PZNKS/NDAUdTyL295ahgLeC4X7OMNhQ
uKGTFkmXpvSc5XfShhyjUzBRMB0GA1UdDgQWBBQVt0J74o4IHYCFQzU/zn9UL6/f
5jAfBgNVHSMEGDAWgBQVt0J74o4IHYCFQzU/zn9UL6/f5jAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDQGkxKNW60klApEiOP681j4rGgUBrSJkwz
EdLgxPURgQIhAMy9YbWjwustFbECjA48VqNJeYG7cKpFWM23i96waFZv
-----END CERTIFICATE-----
"""

FULL = """\
providers:
  local:  {type: embedded}
  openai: {type: openai, api_key: "${OPENAI_API_KEY}", headers: {OpenAI-Organization: org-1}}
  gpu:    {type: openai_compatible, base_url: "http://gpu-1:8000/v1/"}
routes:
  chat:
    deployments: [{provider: local, model: smollm2}]
    limits: {rpm: 600, tpm: 200000, concurrency: 8}
  embed:
    task: embeddings
    deployments: [{provider: local, model: smollm2}]
  fast:
    deployments:
      - {provider: openai, model: gpt-4o-mini, weight: 80}
      - {provider: gpu, model: qwen3-8b, weight: 20}
    fallbacks: [chat]
    timeouts: {connect: 5, first_token: 30, idle: 30, total: 600}
    max_output_tokens: 4096
    cache: {ttl: 300}
"""


def load(folder: Path, text: str, **environment: str) -> Config:
    path = folder / "routes.yaml"
    path.write_text(text, "utf-8")
    return config.load(path, environment)


def test_the_whole_file_becomes_one_snapshot(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, OPENAI_API_KEY="sk-openai")
    assert list(found.providers) == ["local", "openai", "gpu"]
    assert list(found.routes) == ["chat", "embed", "fast"]
    openai, gpu = found.providers["openai"], found.providers["gpu"]
    assert openai.api_key is not None
    assert (openai.type, openai.base_url) == ("openai", "https://api.openai.com/v1")
    assert openai.api_key.get_secret_value() == "sk-openai"
    assert openai.headers["OpenAI-Organization"].get_secret_value() == "org-1"
    assert (gpu.type, gpu.base_url, gpu.api_key) == ("openai_compatible", "http://gpu-1:8000/v1", None)
    fast = found.routes["fast"]
    assert fast.deployments == (Deployment("openai", "gpt-4o-mini", 80.0), Deployment("gpu", "qwen3-8b", 20.0))
    assert fast.fallbacks == ("chat",)
    assert fast.timeouts == Timeouts(5, 30, 30, 600)
    assert fast.max_output_tokens == 4096
    assert fast.cache == CachePolicy(300.0, shared=False, max_bytes=4 * 2**20)
    assert found.routes["chat"].limits == Limits(600, 200_000, 8)
    assert found.routes["chat"].timeouts == Timeouts()
    assert found.routes["embed"].task is RouteTask.EMBEDDINGS
    assert "sk-openai" not in repr(found)


def test_a_provider_with_everything(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    found = load(
        tmp_path,
        "providers:\n"
        '  groq: {type: groq, api_keys: ["${A}", "${B}"], proxy: "http://user:${B}@proxy:3128", ca_bundle: ca.pem}\n'
        '  old: {type: azure_deployments, base_url: "https://r/openai", api_version: 2024-10-21, api_key: "${A}"}\n'
        "  cloud: {type: bedrock}\n"
        "routes: {r: {byok: true, deployments: [{provider: groq, model: m}]}}\n",
        A="first",
        B="second",
    )
    groq, old = found.providers["groq"], found.providers["old"]
    assert [one.get_secret_value() for one in groq.credentials] == ["first", "second"]
    assert groq.proxy is not None
    assert groq.proxy.get_secret_value() == "http://user:second@proxy:3128"
    assert (groq.base_url, groq.ca_bundle) == ("https://api.groq.com/openai/v1", tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text(CERTIFICATE + CERTIFICATE)
    assert config.files(tmp_path / "routes.yaml") == (tmp_path / "routes.yaml", tmp_path / "ca.pem")
    again = config.load(tmp_path / "routes.yaml", {"A": "first", "B": "second"}).providers
    assert again["groq"] != groq  # other certificates: it is made anew, and trusts them
    assert again["old"] == old
    assert old.options == {"api_version": "2024-10-21"}
    assert [one.get_secret_value() for one in old.credentials] == ["first"]
    assert found.providers["cloud"].type == "bedrock"
    assert found.routes["r"].byok
    assert "second" not in repr(found)


def test_the_snapshot_cannot_be_changed(tmp_path: Path) -> None:
    found = load(tmp_path, FULL, OPENAI_API_KEY="k")
    for mapping in (found.providers, found.routes, found.providers["openai"].headers):
        assert not hasattr(mapping, "__setitem__")


PROVIDER = """\
providers: {{p: {{type: litellm, options: {{text: {0}}}}}}}
routes: {{r: {{deployments: [{{provider: p, model: m}}]}}}}
"""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"${A}"', "one"),
        ('"x-${A}-${B}-y"', "x-one-two-y"),
        ('"${ A }"', "one"),
        ('"$$"', "$"),
        ('"$${A}"', "${A}"),
        ('"$$${A}"', "$one"),
        ('"costs $5"', "costs $5"),
        ('"${file:secret}"', "from a file"),
        ('"${file:folder/crlf}"', "from windows"),
        ('"${C}"', "${A}"),
        ("2024-08-06", "2024-08-06"),
        ('"ünï"', "ünï"),
    ],
)
def test_references_are_filled_in(tmp_path: Path, written: str, meant: str) -> None:
    (tmp_path / "secret").write_bytes(b"from a file\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "crlf").write_bytes(b"from windows\r\n")
    found = load(tmp_path, PROVIDER.format(written), A="one", B="two", C="${A}")
    assert found.providers["p"].options["text"] == meant


def test_a_secret_s_file_is_read_again_at_each_load(tmp_path: Path) -> None:
    text = FULL.replace("${OPENAI_API_KEY}", "${file:key}")
    seen = []
    for secret in ("first", "second"):
        (tmp_path / "key").write_text(secret)
        key = load(tmp_path, text).providers["openai"].api_key
        seen.append(key and key.get_secret_value())
    assert seen == ["first", "second"]


def test_anchors_and_merges_share_what_routes_have_in_common(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "providers: {local: {type: embedded}}\n"
        "routes:\n"
        "  a: &base\n"
        "    deployments: &on [{provider: local, model: smollm2}]\n"
        "    limits: {rpm: 5}\n"
        "  b: {deployments: *on}\n"
        "  c:\n"
        "    <<: *base\n"
        "    limits: {rpm: 7}\n",
    )
    assert found.routes["b"].deployments == found.routes["a"].deployments == found.routes["c"].deployments
    assert [route.limits.rpm for route in found.routes.values()] == [5, None, 7]


def test_a_byte_order_mark_is_not_part_of_the_file(tmp_path: Path) -> None:
    assert list(load(tmp_path, "\ufeff" + FULL, OPENAI_API_KEY="k").routes) == ["chat", "embed", "fast"]


def uncommented(text: str, titles: set[str]) -> str:
    """The file with the blocks under `## <title>` for which `titles` has a beginning made active."""
    lines, active = [], False
    for line in text.splitlines():
        if match := re.fullmatch(r"\s+## (.*)", line):
            active = any(match[1].startswith(title) for title in titles)
        elif not re.match(r"\s+# ", line):
            active = False
        lines.append(re.sub(r"^(\s+)# ", r"\1", line) if active else line)
    return "\n".join(lines) + "\n"


BLOCKS = {
    "OpenAI": ("openai", "fast"),
    "Anthropic": ("anthropic", "claude"),
    "Azure OpenAI": ("azure", "azure-chat"),
    "Ollama": ("ollama", "llama"),
    "vLLM": ("vllm", "qwen"),
}


def test_the_default_file_needs_nothing() -> None:
    found = config.load(ROOT / "routes.yaml", {})
    assert {name: spec.type for name, spec in found.providers.items()} == {"local": "embedded"}
    assert {name: route.task for name, route in found.routes.items()} == {
        "chat": RouteTask.CHAT,
        "embed": RouteTask.EMBEDDINGS,
    }


@pytest.mark.parametrize("title", BLOCKS)
def test_each_commented_block_of_the_default_file_works(tmp_path: Path, title: str) -> None:
    provider, route = BLOCKS[title]
    found = load(tmp_path, uncommented((ROOT / "routes.yaml").read_text("utf-8"), {title}), **KEYS)
    assert list(found.providers) == ["local", provider]
    assert list(found.routes) == ["chat", "embed", route]
    assert found.routes[route].deployments[0].provider == provider


def test_all_commented_blocks_work_together(tmp_path: Path) -> None:
    text = (ROOT / "routes.yaml").read_text("utf-8")
    found = load(tmp_path, uncommented(text, set(BLOCKS)), **KEYS)
    assert set(found.providers) == {"local"} | {provider for provider, _ in BLOCKS.values()}
    titles = re.findall(r"^  ## (OpenAI|Anthropic|Azure OpenAI|Ollama|vLLM)\b", text, re.MULTILINE)
    assert sorted(titles) == sorted([*BLOCKS, *BLOCKS])


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "routes").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_works(tmp_path: Path, path: Path) -> None:
    (tmp_path / "gemini.key").write_text("key\n")
    assert load(tmp_path, path.read_text("utf-8"), **KEYS).routes


def test_the_shipped_price_file_is_valid_and_so_is_its_example(tmp_path: Path) -> None:
    from gateway.prices import PriceTable

    text = (ROOT / "config" / "prices.yaml").read_text("utf-8")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(text)
    assert PriceTable.load(tmp_path, None).own == {}
    shown = re.sub(r"^#  ", "  ", text, flags=re.MULTILINE).replace("prices: {}", "prices:")
    (tmp_path / "config" / "prices.yaml").write_text(shown)
    assert list(PriceTable.load(tmp_path, None).own) == ["gpu/flux", "gpu/qwen3-8b"]


def _described(node: Any, path: str, found: list[str]) -> None:
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            if "description" not in child:
                found.append(f"{path}.{name}")
        for name, child in node.items():
            _described(child, f"{path}.{name}", found)


def test_the_schema_describes_every_key_and_forbids_others() -> None:
    schema = config.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == {"providers", "routes"}
    missing: list[str] = []
    _described(schema, "", missing)
    assert missing == []
    models = [schema, *schema["$defs"].values()]
    assert [model["title"] for model in models if model.get("additionalProperties") is not False] == []


def test_the_schema_accepts_the_shipped_files() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = config.schema()
    checker = jsonschema.Draft202012Validator(schema)
    for path in (ROOT / "routes.yaml", *sorted((ROOT / "config" / "routes").glob("*.yaml"))):
        assert [str(error) for error in checker.iter_errors(yaml.safe_load(path.read_text("utf-8")))] == [], path.name
    assert list(checker.iter_errors({"providers": {}, "routes": {}, "more": 1}))
    routes = {"r": {"deployments": [{"provider": "p", "model": "m"}]}}
    for wrong in ({"type": "azure"}, {"type": "azure_deployments", "base_url": "https://r"}, {"type": "opnai"}):
        assert list(checker.iter_errors({"providers": {"p": wrong}, "routes": routes})), wrong
    known = schema["$defs"]["HttpProvider"]["properties"]["type"]["oneOf"]
    assert {"const": "groq", "description": "Groq"} in known
