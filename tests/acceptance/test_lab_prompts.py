"""The lab's page Prompts in Chromium: found, compared word by word, moved and moved back, copied, reopened."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.conftest import StartServer
from tests.services.pages import Watch
from tests.services.promptyard import Server

IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
CHAT = [{"role": "system", "content": "Be <b>brief</b>."}, {"role": "user", "content": "Help {{ who }} please."}]
TEXTS = ["Help {{ who }}.", "Help {{ who }} at once.", json.dumps(CHAT)]


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer) -> Server:
    """A stranger's server with two prompts, one of three versions."""
    server = start_servers(admin_key=None, lab=True)
    server.wait_ready()
    with server.client() as http:
        for name in ("support", "other"):
            made = {"name": name, "tags": [IS_PROMPT]}
            http.post("/api/2.0/mlflow/registered-models/create", json=made).raise_for_status()
        for number, text in enumerate(TEXTS, 1):
            tags = {"mlflow.prompt.text": text, "_mlflow_prompt_model_config": json.dumps({"model_name": "chat"})}
            tags["_mlflow_prompt_type"] = "chat" if number == 3 else "text"
            own = [IS_PROMPT, *({"key": key, "value": value} for key, value in tags.items())]
            new = {"name": "support", "source": "dummy-source", "tags": own, "description": f"message {number}"}
            http.post("/api/2.0/mlflow/model-versions/create", json=new).raise_for_status()
        alias = {"name": "support", "alias": "production", "version": "1"}
        http.post("/api/2.0/mlflow/registered-models/alias", json=alias).raise_for_status()
    return server


def standing(server: Server) -> dict[str, str]:
    """Which version each alias of the prompt stands for."""
    with server.client() as http:
        found = http.get("/api/2.0/mlflow/registered-models/get", params={"name": "support"}).json()
    return {one["alias"]: one["version"] for one in found["registered_model"].get("aliases", ())}


def test_versions_are_compared_and_an_alias_is_moved_and_back(pages: Watch, lab_server: Server) -> None:
    page = pages.open(f"{lab_server.url}/lab/prompts?prompt=support")
    rows = page.locator(".prompts tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(2)).to_contain_text("production")
    expect(page.locator(".message pre").first).to_have_text("Be <b>brief</b>.")
    rows.nth(1).get_by_role("button", name="Show").click()
    expect(page.locator(".part h3")).to_have_text("Version 2")
    page.locator(".prompts tbody tr").nth(2).get_by_role("button", name="Compare").click()
    expect(page.locator(".part mark")).to_have_text(" at once")
    expect(page.locator(".part .note").first).to_have_text("Marked against version 1.")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator(".told")).to_contain_text("production stands for version 2, no more for version 1.")
    assert standing(lab_server) == {"production": "2"}
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator(".told")).to_contain_text("production stands for version 1")
    assert standing(lab_server) == {"production": "1"}
    page.get_by_label("Alias", exact=True).fill("a b")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Invalid alias name: 'a b'")
    page.get_by_role("button", name="Remove the alias production").click()
    expect(page.locator(".told")).to_contain_text("The alias production is removed.")
    assert standing(lab_server) == {}
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator(".prompts tbody tr").nth(2)).to_contain_text("production")

    page.wait_for_function("location.search.includes('against=1')")
    again = pages.open(page.evaluate("location.href"))
    expect(again.locator(".part mark")).to_have_text(" at once")
    again.get_by_role("button", name="Copy as").click()
    expect(again.locator("dialog pre")).to_contain_text("prompt:support/2")
    again.get_by_role("button", name="Close").click()
    again.get_by_role("button", name="Open in playground").click()
    again.wait_for_url("**/lab/?*")
    assert parse_qs(urlsplit(again.url).query)["template"] == ["Help {{ who }} at once."]


def test_prompts_are_found_by_name(pages: Watch, lab_server: Server) -> None:
    page = pages.open(f"{lab_server.url}/lab/prompts")
    expect(page.locator(".prompts nav li")).to_have_count(2)
    page.get_by_label("Find by name").fill("SUPP")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".prompts nav li")).to_have_count(1)
    page.get_by_label("Find by name").fill("it's")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".prompts nav")).to_contain_text("No prompt has such a name.")
    gone = pages.open(f"{lab_server.url}/lab/prompts?prompt=gone")
    expect(gone.get_by_role("alert")).to_contain_text("the prompt gone")
