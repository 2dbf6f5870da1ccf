"""The lab's page Traces in Chromium: found, opened as a tree, read span by span, judged, copied, reopened."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.conftest import StartServer
from tests.promptlab.tracing import START, Client, span
from tests.services.pages import Watch
from tests.services.promptyard import Server

TRACES = 52


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer) -> Server:
    """A stranger's server."""
    server = start_servers(admin_key=None, lab=True)
    server.wait_ready()
    return server


@pytest.fixture(scope="module")
def experiment(lab_server: Server) -> str:
    """An experiment with an agent's trace, one that failed, and many that are alike."""
    with lab_server.client() as http:
        client = Client(http)
        asked = {"messages": [{"role": "user", "content": "Say <b>hello</b>."}], "model": "chat", "temperature": 0}
        said = {"choices": [{"message": {"role": "assistant", "content": "Hello & welcome"}}]}
        agent, model, tool = (f"{at:016x}" for at in (1, 2, 3))
        trace = "a" * 32
        second = 1_000_000_000
        client.send(
            made(trace, agent, "agent", 0, 4 * second, mlflow__spanType="AGENT"),
            made(trace, tool, "look up", 3 * second, 4 * second, agent, mlflow__spanType="TOOL"),
            made(trace, model, "ask", second, 2 * second, agent, mlflow__spanType="CHAT_MODEL",
                 mlflow__spanInputs=asked, mlflow__spanOutputs=said,
                 mlflow__chat__tokenUsage={"input_tokens": 1200, "output_tokens": 7}),
        )  # fmt: skip
        failed = made("b" * 32, agent, "breaks", 0, second)
        client.send({**failed, "status": {"code": 2, "message": "no <i>way</i>"}})
        for at in range(TRACES - 2):
            client.send(made(f"{at + 1:032x}", agent, f"many {at}", -second * (at + 1), 0))
    return client.experiment


def made(
    trace: str, identity: str, name: str, start: int, end: int, parent: str | None = None, **said: Any
) -> dict[str, Any]:
    """A span with an id of its own that runs from `start` to `end`, nanoseconds from the beginning."""
    times = {"startTimeUnixNano": str(START + start), "endTimeUnixNano": str(START + end)}
    return span(trace, name, parent, **said) | times | {"spanId": identity}


def test_a_trace_is_found_opened_and_read(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/traces?experiment={experiment}")
    rows = page.locator(".traces tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(TRACES)
    page.get_by_label("Filter").fill("span.type = 'CHAT_MODEL'")
    page.get_by_role("button", name="Search").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("1,200 → 7")
    rows.get_by_role("button", name="agent").click()
    spans = page.locator(".tree button")
    expect(spans).to_have_count(3)
    assert [text.split()[0] for text in spans.all_inner_texts()] == ["agent", "ask", "look"]
    expect(spans.first).to_have_attribute("aria-pressed", "true")
    spans.nth(1).click()
    part = page.locator(".span")
    expect(part.locator("h3")).to_have_text("ask")
    expect(part.locator("pre").first).to_have_text("Say <b>hello</b>.")
    expect(part.locator(".message").last).to_contain_text("Hello & welcome")
    expect(part.locator("dl")).to_contain_text("1,200 → 7")
    expect(part.locator("dl")).to_contain_text("1.00 s")

    page.wait_for_function("location.search.includes('span=')")
    again = pages.open(page.evaluate("location.href"), color_scheme="dark")
    expect(again.locator(".span h3")).to_have_text("ask")
    expect(again.get_by_label("Filter")).to_have_value("span.type = 'CHAT_MODEL'")
    again.get_by_role("button", name="Copy as").click()
    expect(again.locator("dialog pre")).to_contain_text(f"trace_id=tr-{'a' * 32}")
    again.get_by_role("button", name="Close").last.click()
    again.locator(".chosen > header").get_by_role("button", name="Close").click()
    expect(again.locator(".tree")).to_have_count(0)


def test_what_is_thought_of_a_trace_is_said_and_taken_back(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/traces?experiment={experiment}&trace=tr-{'b' * 32}")
    expect(page.locator(".span .problem")).to_have_text("It failed. no <i>way</i>")
    expect(page.locator(".chosen > header .badge")).to_have_text("error")
    page.get_by_label("Value").fill("no")
    page.get_by_label("Why").fill("It <u>breaks</u>.")
    page.get_by_role("button", name="Say so").click()
    expect(page.locator(".thought tbody tr")).to_contain_text("It <u>breaks</u>.")
    expect(page.locator(".traces .badge.bad", has_text="good: no")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".thought tbody tr")).to_have_count(0)
    page.get_by_label("Name").fill(" ")
    page.get_by_label("Value").fill("0.5")
    page.get_by_role("button", name="Say so").click()
    expect(page.get_by_role("alert").first).to_contain_text("Not done.")


def test_what_is_missing_says_so_and_how_to_begin(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/traces?experiment={experiment}&trace=tr-gone&filter=nonsense")
    alerts = page.get_by_role("alert")
    expect(alerts).to_have_count(2)
    expect(alerts.first).to_contain_text("the trace tr-gone")
    expect(alerts.last).to_contain_text("The filter was not understood.")
    empty = pages.open(f"{lab_server.url}/lab/traces?experiment=0")
    empty.get_by_role("button", name="Show me how").click()
    expect(empty.locator("dialog pre")).to_contain_text("@mlflow.trace")
    empty.get_by_role("button", name="routes.yaml").click()
    expect(empty.locator("dialog pre")).to_contain_text("trace: {experiment: chat")


def test_mlflows_own_links_lead_here(pages: Watch, lab_server: Server, experiment: str) -> None:
    trace = f"tr-{'a' * 32}"
    page = pages.open(f"{lab_server.url}/lab/#/experiments/{experiment}/traces?selectedEvaluationId={trace}")
    expect(page.locator(".tree button")).to_have_count(3)
    assert parse_qs(urlsplit(page.url).query)["trace"] == [trace]
