"""What one configuration changes of another, and what may be shown of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway import changes, config
from gateway.owners import Key
from gateway.prices import PriceTable
from gateway.routes import Config

FILE = """\
providers:
  up: {type: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: "${KEY}", headers: {x-team: "${TEAM}"}}
  cloud: {type: litellm, options: {aws_region_name: "${REGION}", aws_session_token: "${KEY}", tries: 3}}
  fake: {type: fake, script: [{answer: hello}]}
routes:
  fast:
    deployments: [{provider: up, model: a}, {provider: fake, model: b, weight: 2}]
    limits: {rpm: 60}
    fallbacks: [spare]
  spare: {deployments: [{provider: cloud, model: bedrock/x}]}
  own: {deployments: [{provider: fake, model: b}]}
"""
SECRETS = {"KEY": "credential-of-the-upstream", "TEAM": "header-of-the-upstream", "REGION": "region-of-the-cloud"}


def read(folder: Path, text: str, secrets: dict[str, str] = SECRETS, prices: str = "") -> Config:
    (folder / "routes.yaml").write_text(text)
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "prices.yaml").write_text(prices)
    return PriceTable.load(folder, None).priced(config.load(folder / "routes.yaml", secrets))


EDITS = {
    "a limit": ("rpm: 60", "rpm: 30, tpm: 9", ["route 'fast' changed (limits.rpm: 60 → 30, limits.tpm: none → 9)"]),
    "a weight": ("weight: 2", "weight: 3", ["route 'fast' changed (deployments[fake/b].weight: 2.0 → 3.0)"]),
    "a deployment more": (
        "[{provider: up, model: a},",
        "[{provider: up, model: c}, {provider: up, model: a},",
        ["route 'fast' changed (deployments: up/a, fake/b → up/c, up/a, fake/b)"],
    ),
    "another order": (
        "[{provider: up, model: a}, {provider: fake, model: b, weight: 2}]",
        "[{provider: fake, model: b, weight: 2}, {provider: up, model: a}]",
        ["route 'fast' changed (deployments: up/a, fake/b → fake/b, up/a)"],
    ),
    "a route gone": ("  own: {deployments: [{provider: fake, model: b}]}\n", "", ["route 'own' removed"]),
    "a route more": ("  own:", "  new: {deployments: [{provider: up, model: a}]}\n  own:", ["route 'new' added"]),
    "a provider": (
        "answer: hello",
        "answer: bye",
        ["provider 'fake' changed (options.script: {'answer': 'hello'} → {'answer': 'bye'})"],
    ),
    "no fallback": ("    fallbacks: [spare]\n", "", ["route 'fast' changed (fallbacks: spare → none)"]),
    "a comment": ("routes:", "# nothing\nroutes:", []),
}


@pytest.mark.parametrize(("before", "after", "told"), EDITS.values(), ids=EDITS)
def test_what_an_edit_changes(tmp_path: Path, before: str, after: str, told: list[str]) -> None:
    assert before in FILE
    changed = changes.between(read(tmp_path, FILE), read(tmp_path, FILE.replace(before, after)))
    assert [str(change) for change in changed] == told


def test_another_secret_is_a_change_that_shows_neither(tmp_path: Path) -> None:
    other = {name: f"another-{name}" for name in SECRETS}
    changed = changes.between(read(tmp_path, FILE), read(tmp_path, FILE, other))
    told = {change.name: [field.name for field in change.fields] for change in changed}
    assert told == {
        "up": ["api_key", "headers.x-team"],
        "cloud": ["options.aws_region_name", "options.aws_session_token"],
    }
    said = "".join(map(str, changed)) + json.dumps(changes.document(changed))
    assert not [secret for secret in (*SECRETS.values(), *other.values()) if secret in said]
    assert "api_key: *** → ***" in said


def test_another_price_is_a_change(tmp_path: Path) -> None:
    prices = "prices: {up/a: {input: 0.5, output: 1.5}}"
    [change] = changes.between(read(tmp_path, FILE), read(tmp_path, FILE, prices=prices))
    assert "deployments[up/a].listing.input: none → 0.5" in str(change)


def test_all_of_it_is_shown_but_for_its_secrets(tmp_path: Path) -> None:
    shown = changes.described(
        read(tmp_path, FILE.replace("127.0.0.1:1", "${HOST}"), {**SECRETS, "HOST": "hidden-host"})
    )
    said = json.dumps(shown)
    assert not [secret for secret in (*SECRETS.values(), "hidden-host") if secret in said]
    up = {"type": "openai_compatible", "base_url": "***", "api_key": "***", "headers": {"x-team": "***"}}
    assert shown["providers"]["up"] == up
    assert shown["providers"]["cloud"]["options"] == {
        "aws_region_name": "***",
        "aws_session_token": "***",
        "tries": 3,
    }
    assert shown["providers"]["fake"]["options"]["script"] == [{"answer": "hello"}]
    assert list(shown["routes"]["fast"]["deployments"]) == ["up/a", "fake/b"]
    assert shown["routes"]["fast"]["timeouts"]["connect"] == 5.0


def test_whom_a_change_concerns(tmp_path: Path) -> None:
    before = read(tmp_path, FILE)
    after = read(tmp_path, FILE.replace("answer: hello", "answer: bye").replace("  own:", "  mine:"))
    touched = changes.routes_touched(changes.between(before, after), before, after)
    assert sorted(touched) == ["fast", "mine", "own"]
    keys = [
        Key("k1", "everything", frozenset()),
        Key("k2", "one", frozenset(), frozenset({"own"})),
        Key("k3", "none", frozenset(), frozenset({"spare"})),
    ]
    found = {one["name"]: sorted(one["routes"]) for one in changes.keys_touched(keys, touched)}
    assert found == {"everything": ["fast", "mine", "own"], "one": ["own"]}
