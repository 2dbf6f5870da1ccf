"""The lab's page Keys & spend in Chromium: a key's whole life by mouse, what is spent, and what each role may see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.test_tenants import PRICES, ROUTES, made
from tests.conftest import StartServer
from tests.services.gateway import ask
from tests.services.pages import Watch
from tests.services.promptyard import ADMIN_KEY, Server

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with an admin key on which a call costs a cent."""
    home: Path = tmp_path_factory.mktemp("priced")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    server = start_servers(home / "routes.yaml", lab=True)
    server.wait_ready()
    return server


@pytest.fixture
def admin(lab_server: Server) -> Iterator[httpx.Client]:
    with lab_server.client() as client:
        yield client


def signed_in(pages: Watch, server: Server, secret: str, query: str = "") -> Page:
    """The page, opened by whoever has `secret`."""
    page = pages.open(f"{server.url}/lab/keys{query}")
    page.locator("input[name=key]").fill(secret)
    page.locator("button[type=submit]").click()
    expect(page.locator(".money h2").first).to_have_text("Spend")
    return page


def row(page: Page, name: str) -> Locator:
    return page.locator(".keys tbody tr", has=page.get_by_text(name, exact=True))


def spend(server: Server, secret: str, calls: int) -> None:
    with server.client(secret) as http:
        for _ in range(calls):
            assert ask(http, "chat", max_tokens=10).status_code == 200


def test_the_life_of_a_key(pages: Watch, lab_server: Server) -> None:
    page = signed_in(pages, lab_server, ADMIN_KEY)
    page.get_by_role("button", name=re.compile("New key|Make the first key")).click()
    form = page.locator("dialog")
    form.get_by_label("Name").fill("shop")
    form.get_by_label("Requests a minute").fill("many")
    form.get_by_label("Budget, USD").fill("0.1")
    form.get_by_label("Spent within").select_option("1d")
    form.get_by_role("button", name="Make the key").click()
    # What was refused is there again as it was, with the reason in it.
    expect(form.get_by_role("alert")).to_have_text("rpm is a number, not 'many'.")
    expect(form.get_by_label("Name")).to_have_value("shop")
    form.get_by_label("Requests a minute").fill("60")
    form.get_by_role("button", name="Copy as…").click()
    expect(page.locator("dialog pre")).to_contain_text(f"curl -X POST {lab_server.url}/admin/keys")
    page.locator("dialog", has=page.locator("pre")).get_by_role("button", name="Close").click()
    form.get_by_role("button", name="Make the key").click()
    secret = page.locator(".secret code").inner_text()
    expect(row(page, "shop")).to_contain_text("60 rpm")
    spend(lab_server, secret, 3)

    page.reload()
    expect(page.locator(".secret")).to_have_count(0)
    expect(row(page, "shop").locator("td").nth(2)).to_contain_text("$0.0300 of $0.1000 in 1d")
    expect(page.locator(".spend .legend")).to_contain_text("shop $0.0300")
    row(page, "shop").get_by_role("button", name="Limits").click()
    expect(form.get_by_label("Budget, USD")).to_have_value("0.1")
    form.get_by_label("Budget, USD").fill("0.035")
    form.get_by_role("button", name="Change them").click()
    expect(row(page, "shop").locator(".share.warn")).to_have_count(1)

    row(page, "shop").get_by_role("button", name="Rotate").click()
    form.get_by_role("button", name="Rotate").click()
    expect(page.locator(".secret")).to_contain_text("shop has a new secret")
    assert page.locator(".secret code").inner_text() != secret
    row(page, "shop").get_by_role("button", name="Block").click()
    expect(row(page, "shop").locator(".badge")).to_have_text("blocked")
    row(page, "shop").get_by_role("button", name="Unblock").click()
    expect(row(page, "shop").locator(".badge")).to_have_text("active")

    row(page, "shop").get_by_role("button", name="Revoke").click()
    gone = form.get_by_role("button", name="Revoke for good")
    expect(gone).to_be_disabled()
    form.get_by_label("Type its name").fill("shop")
    gone.click()
    expect(row(page, "shop").locator(".badge")).to_have_text("revoked")
    expect(row(page, "shop").get_by_role("button")).to_have_count(0)


def test_a_link_reopens_what_its_sender_saw(pages: Watch, lab_server: Server, admin: httpx.Client) -> None:
    key = made(admin, "keys", name=HOSTILE)
    spend(lab_server, key["key"], 1)
    page = signed_in(pages, lab_server, ADMIN_KEY, "?days=7&by=route")
    expect(page.locator(".spend figcaption")).to_have_text("USD a day, UTC, by route")
    expect(page.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".keys")).to_contain_text(HOSTILE)
    page.get_by_label("Told apart by").select_option("key")
    expect(page.locator(".spend .legend")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="90 days").click()
    page.wait_for_function("location.search === '?days=90'")
    assert page.title() == "Keys & spend · Promptyard"


def test_each_sees_what_its_role_may(pages: Watch, lab_server: Server, admin: httpx.Client) -> None:
    team = made(admin, "teams", name="ops")
    keys: dict[str, dict[str, Any]] = {
        "boss": made(admin, "keys", name="boss", team_id=team["id"], scopes=["admin", "inference"]),
        "viewer": made(admin, "keys", name="viewer", scopes=["viewer", "inference"]),
        "caller": made(admin, "keys", name="caller", team_id=team["id"], max_budget=1),
    }
    spend(lab_server, keys["caller"]["key"], 2)
    page = signed_in(pages, lab_server, keys["boss"]["key"])
    expect(row(page, "caller")).to_contain_text("$0.0200 of $1.00")
    expect(row(page, "viewer")).to_have_count(0)
    expect(page.get_by_role("button", name="New key")).to_have_count(1)

    page = signed_in(pages, lab_server, keys["viewer"]["key"])
    expect(row(page, "boss")).to_have_count(1)
    expect(page.locator("[data-open]")).to_have_count(0)

    page = signed_in(pages, lab_server, keys["caller"]["key"])
    expect(page.locator(".keys tbody tr")).to_have_count(1)
    expect(row(page, "caller")).to_contain_text("2% spent")
    expect(page.locator("[data-open]")).to_have_count(0)
