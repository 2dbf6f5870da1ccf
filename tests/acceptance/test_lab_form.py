"""What the playground says beside its form, in Chromium: what cannot be sent is named, and nothing is sent."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Route, expect

from tests.acceptance.test_lab import playground
from tests.conftest import StartServer
from tests.services.pages import Watch
from tests.services.promptyard import Server


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer) -> Server:
    """A server of a stranger's kind: no admin key."""
    server = start_servers(admin_key=None, lab=True)
    server.wait_ready()
    return server


@pytest.mark.parametrize(
    ("field", "wrong", "said", "right"),
    [
        ("Temperature", "9", "Not run. Temperature is 9. It must be between 0 and 2.", "2"),
        ("Max tokens", "-4", "Not run. Max tokens is -4. It must be a whole number of 1 or more.", "4"),
        ("Max tokens", "0", "Not run. Max tokens is 0. It must be a whole number of 1 or more.", "1"),
        ("Max tokens", "1.5", "Not run. Max tokens is 1.5. It must be a whole number of 1 or more.", "2"),
        ("Seed", "1.5", "Not run. Seed is 1.5. It must be a whole number between -9007199254740991 and", "-1"),
    ],
)
def test_a_number_out_of_range_is_named_and_nothing_is_sent(
    pages: Watch, lab_server: Server, field: str, wrong: str, said: str, right: str
) -> None:
    def calls() -> int:
        with lab_server.client() as http:
            return int(http.get("/admin/usage").json()["total"]["calls"])

    before = calls()
    page = pages.open(f"{lab_server.url}/lab/?route=fake&template=Hello")
    expect(page.locator("#routes .token")).to_have_count(1)
    page.get_by_label(field).fill(wrong)
    page.locator("#run").click()
    expect(page.locator("#said .problem")).to_contain_text(said)
    expect(page.get_by_label(field)).to_have_value(wrong)
    expect(page.locator(".toast-body")).to_have_count(0)
    expect(page.locator(".answer")).to_have_count(0)
    page.get_by_label(field).fill(right)
    expect(page.locator("#said .problem")).to_have_count(0)
    page.locator("#run").click()
    expect(page.locator(".answer")).to_have_attribute("data-state", "done", timeout=20_000)
    # A call is counted a moment after its answer has ended.
    deadline = time.monotonic() + 8
    while calls() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert calls() == before + 1


@pytest.mark.parametrize(
    ("change", "said"), [("what", "Give a value for what."), ("template", "Write a prompt first.")]
)
def test_what_is_missing_is_said_in_words(pages: Watch, lab_server: Server, change: str, said: str) -> None:
    page = playground(pages, lab_server, "fake")
    page.locator("#template textarea" if change == "template" else f"[name={change}]").fill("")
    page.locator("#run").click()
    expect(page.locator("#said")).to_contain_text(said)


def test_what_run_says_is_not_taken_back_by_an_edit_before_it(pages: Watch, lab_server: Server) -> None:
    """The server's answer to an edit comes after Run's, and a second edit has waited for it."""
    page = playground(pages, lab_server, "fake")
    held: list[Route] = []

    def hold(route: Route) -> None:
        """Keep back the first edit that says "Something else."."""
        if held or "Something" not in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/queue/join*", hold)
    page.locator("#template textarea").fill("Something else.")
    page.wait_for_function("location.search.includes('Something')")
    page.locator("#template textarea").fill("")
    page.locator("#run").click()
    expect(page.locator("#said")).to_contain_text("Write a prompt first.")
    with page.expect_response("**/queue/join*"), page.expect_request("**/queue/join*") as second:
        held[0].continue_()
    assert second.value.response()
    expect(page.locator(".fields label")).to_have_count(0)
    page.wait_for_timeout(300)
    expect(page.locator("#said")).to_contain_text("Write a prompt first.")
    page.locator("#template textarea").fill("Hello")
    expect(page.locator("#said")).not_to_contain_text("Write a prompt first.")
