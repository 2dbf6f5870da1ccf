"""The lab as its visitors use it: Chromium clicks from a prompt to compared runs, and HTTP reads them back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import StartServer
from tests.services.pages import Watch
from tests.services.promptyard import Server

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> **bold**"
LONG = "a-route-whose-name-is-longer-than-its-column-is-wide"
CONFIG = f"""\
providers:
  quick: {{type: fake, cycle: true, script: [{{answer: "{"Buy a book today. " * 6}", pause: 0.02}}]}}
  slow: {{type: fake, cycle: true, script: [{{answer: "{"word " * 400}", pause: 0.05}}]}}
  busy: {{type: fake, cycle: true, script: [{{error: {{status: 400, message: too hot for me}}}}]}}
  broken: {{type: fake, cycle: true, script: [{{answer: one two three four five six, cut: 3, pause: 0.02}}]}}
  hostile: {{type: fake, cycle: true, script: [{{answer: {json.dumps(HOSTILE)}}}]}}
routes:
  quick: {{deployments: [{{provider: quick, model: m}}]}}
  slow: {{deployments: [{{provider: slow, model: m}}]}}
  busy: {{deployments: [{{provider: busy, model: m}}]}}
  broken: {{deployments: [{{provider: broken, model: m}}]}}
  hostile: {{deployments: [{{provider: hostile, model: m}}]}}
  {LONG}: {{deployments: [{{provider: quick, model: m}}]}}
  vectors: {{task: embeddings, deployments: [{{provider: quick, model: m}}]}}
"""
TEMPLATE = "I sell {{ what }} in {{ where }}."


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer) -> Server:
    """A server of a stranger's kind (no admin key) whose routes answer as these tests need."""
    server = start_servers(CONFIG, admin_key=None, lab=True)
    server.wait_ready()
    return server


@pytest.fixture
def http(lab_server: Server) -> Iterator[httpx.Client]:
    with lab_server.client() as client:
        yield client


# What Gradio's client prints when a page is left while it is still asking.
LEFT = "signal is aborted|Connection errored out"


def playground(pages: Watch, server: Server, *routes: str, **options: int) -> Page:
    """The playground with a prompt filled in by its address."""
    query = [*(("route", route) for route in routes), ("template", TEMPLATE), ("v.what", "books"), ("v.where", "Oslo")]
    page = pages.open(f"{server.url}/lab/?{urlencode(query)}", **options)
    expect(page.locator("#routes .token")).to_have_count(len(routes))
    return page


def answer(page: Page, index: int, state: str) -> None:
    expect(page.locator(".answer").nth(index)).to_have_attribute("data-state", state, timeout=20_000)


def query(page: Page) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(page.evaluate("location.href")).query)


def test_from_a_prompt_to_compared_runs(pages: Watch, lab_server: Server, http: httpx.Client) -> None:
    page = pages.open(f"{lab_server.url}/lab/")
    expect(page.locator(".empty h2")).to_have_text("No answers yet")
    expect(page.locator("#log")).to_be_disabled()
    page.locator("#routes input").fill("hostile")
    page.get_by_role("option", name="hostile").click()
    page.locator("#template textarea").fill(TEMPLATE)
    page.locator("[name=what]").fill("books")
    page.locator("[name=where]").fill("Oslo")
    page.locator("#system textarea").fill("Be kind.")
    page.get_by_label("Temperature").fill("0.5")
    page.locator("#run").click()
    answer(page, 0, "streaming")
    first = page.locator(".answer .text").first.inner_text()
    answer(page, 0, "done")
    answer(page, 1, "done")
    whole = page.locator(".answer .text").first.inner_text()
    assert len(first) < len(whole) == len("Buy a book today. " * 6)
    assert page.locator(".answer .text").nth(1).inner_text() == HOSTILE

    page.locator("#experiment textarea, #experiment input").fill("From the lab")
    page.locator("#run-name textarea, #run-name input").fill("first")
    page.locator("#log").click()
    expect(page.locator("#note")).to_contain_text("Logged 2 runs")
    expect(page.locator("#log")).to_be_disabled()
    page.locator("#logged").click()
    expect(page.locator(".compare h2")).to_have_text("2 runs side by side")
    expect(page.locator(".legend")).to_contain_text("first · quick")
    expect(page.locator(".params .differs th")).to_have_text(["model_route"])
    expect(page.locator(".shown .cells").nth(1)).to_contain_text(HOSTILE)
    assert page.title() == "Runs · Promptyard"

    experiment = http.get("/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "From the lab"}).json()
    found = http.post(
        "/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment["experiment"]["experiment_id"]]}
    ).json()["runs"]
    assert sorted(run["info"]["run_id"] for run in found) == sorted(
        value for name, value in query(page) if name == "run"
    )
    by_route = {{p["key"]: p["value"] for p in run["data"]["params"]}["model_route"]: run for run in found}
    quick = by_route["quick"]
    assert {param["key"]: param["value"] for param in quick["data"]["params"]} == {
        "model_route": "quick",
        "prompt_template": TEMPLATE,
        "route_type": "llm/v1/chat",
        "temperature": "0.5",
        "system_prompt": "Be kind.",
    }
    metrics = {metric["key"]: metric["value"] for metric in quick["data"]["metrics"]}
    assert 0 < metrics["first_token"] < metrics["latency"]
    # The run took as long as its answer, however much later it was logged.
    took = quick["info"]["end_time"] - quick["info"]["start_time"]
    assert abs(took - 1000 * metrics["latency"]) <= 2
    assert metrics["output_tokens"] > 0
    assert {"key": "mlflow.runSourceType", "value": "PROMPT_ENGINEERING"} in quick["data"]["tags"]
    run_id = quick["info"]["run_id"]
    table = http.get("/get-artifact", params={"run_id": run_id, "path": "eval_results_table.json"}).json()
    assert table["columns"][:4] == ["what", "where", "prompt", "output"]
    assert table["data"][0][:4] == ["books", "Oslo", "I sell books in Oslo.", "Buy a book today. " * 6]


def test_one_route_failing_does_not_hurt_the_others(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "busy", "quick", "broken")
    page.locator("#run").click()
    answer(page, 0, "failed")
    answer(page, 1, "done")
    answer(page, 2, "failed")
    expect(page.locator(".answer").nth(0).locator(".problem")).to_contain_text("too hot for me")
    expect(page.locator(".answer").nth(2).locator(".text")).to_contain_text("one two")
    expect(page.locator(".answer").nth(2).locator(".problem")).to_be_visible()
    expect(page.locator("#note")).to_contain_text("1 answer becomes a run")


def test_stop_ends_the_calls_upstream(pages: Watch, lab_server: Server, http: httpx.Client) -> None:
    before = calls(http)
    page = playground(pages, lab_server, "slow", "quick")
    page.locator("#run").click()
    answer(page, 0, "streaming")
    answer(page, 1, "done")
    page.locator("#stop").click()
    answer(page, 0, "stopped")
    # A call is in the usage once it has ended; left alone this one would go on for 20 s.
    wait_until_called(http, before + 2, 5)
    expect(page.locator("#note")).to_contain_text("1 answer becomes a run")


def test_the_keyboard_runs_and_stops(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "slow")
    page.locator("#template textarea").focus()
    page.keyboard.press("Control+Enter")
    answer(page, 0, "streaming")
    page.keyboard.press("Escape")
    answer(page, 0, "stopped")
    expect(page.locator("#template textarea")).to_have_value(TEMPLATE)


def test_figures_stand_still_above_answers_that_scroll_in_their_column(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "slow", "quick", LONG, width=1280)
    page.locator("#run").click()
    for index in (1, 2):
        answer(page, index, "done")
    page.locator("#stop").click()
    answer(page, 0, "stopped")
    for index in range(3):
        column, figures, text = (
            page.locator(f".answer {part}").nth(index).bounding_box() for part in ("header", "dl", ".body")
        )
        assert column is not None
        assert figures is not None
        assert text is not None
        assert column["y"] < figures["y"] < text["y"]
        assert page.locator(".answer").nth(index).evaluate("one => one.scrollWidth <= one.clientWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_a_route_that_is_gone_is_named_and_stays_named(pages: Watch, lab_server: Server) -> None:
    page = pages.open(f"{lab_server.url}/lab/?route=gone&route=quick&template=hi")
    expect(page.locator("#missing")).to_contain_text("gone")
    page.wait_for_timeout(1500)
    expect(page.locator("#missing")).to_contain_text("gone")
    expect(page.locator("#routes .token")).to_have_text(["quick"])


def test_a_prompt_too_long_for_a_run_is_told_beside_the_button(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "quick")
    page.locator("#template textarea").fill("word " * 1300)
    expect(page.locator(".fields label")).to_have_count(0)
    page.locator("#run").click()
    answer(page, 0, "done")
    page.locator("#log").click()
    expect(page.locator("#note .problem")).to_contain_text("6000 characters. The prompt and the system text become")


def test_a_server_that_goes_away_is_told_in_the_answer(pages: Watch, start_servers: StartServer) -> None:
    pages.expect(
        "ERR_CONNECTION_REFUSED|Unexpected error|Connection errored out|ERR_INCOMPLETE|ERR_NETWORK|signal|status of 503"
    )
    server = start_servers(CONFIG, admin_key=None, lab=True)
    server.wait_ready()
    page = playground(pages, server, "slow")
    page.locator("#run").click()
    answer(page, 0, "streaming")
    server.stop()
    expect(page.locator(".answer .problem")).to_contain_text("The server cannot be reached.", timeout=15_000)
    expect(page.locator(".answer .text")).to_contain_text("word")


def test_leaving_the_page_ends_the_calls_upstream(pages: Watch, lab_server: Server, http: httpx.Client) -> None:
    before = calls(http)
    page = playground(pages, lab_server, "slow")
    page.locator("#run").click()
    answer(page, 0, "streaming")
    page.close()
    wait_until_called(http, before + 1, 8)


def calls(http: httpx.Client) -> int:
    return int(http.get("/admin/usage").json()["total"]["calls"])


def wait_until_called(http: httpx.Client, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while calls(http) < count:
        assert time.monotonic() < deadline, f"{calls(http)} calls have ended, not {count}"
        time.sleep(0.1)


def test_the_page_does_not_move_while_answers_arrive(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "slow", "busy")
    page.evaluate(
        "() => { window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach("
        "(entry) => { moved += entry.value })).observe({ type: 'layout-shift' }) }"
    )
    page.locator("#run").click()
    answer(page, 0, "streaming")
    page.wait_for_timeout(3000)
    assert page.evaluate("moved") < 0.01


def test_answers_can_be_logged_only_while_they_are_fresh(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "quick")
    page.locator("#run").click()
    answer(page, 0, "done")
    expect(page.locator("#log")).to_be_enabled()
    page.locator("[name=where]").fill("Rome")
    expect(page.locator("#log")).to_be_disabled()
    expect(page.locator("#note")).to_contain_text("The prompt has changed")
    page.locator("[name=where]").fill("Oslo")
    expect(page.locator("#log")).to_be_enabled()


def test_a_prompt_without_variables_can_be_logged(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "quick")
    page.locator("#template textarea").fill("Say hello.")
    expect(page.locator(".fields label")).to_have_count(0)
    page.locator("#run").click()
    answer(page, 0, "done")
    page.locator("#log").click()
    expect(page.locator("#note")).to_contain_text("Logged 1 run")


def test_the_address_reopens_what_its_sender_saw(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "quick", "slow")
    page.locator("#template textarea").fill("Hello {{ you }}")
    page.locator("[name=you]").fill("World & <co>")
    page.get_by_label("Max tokens").fill("7")
    page.locator("#system textarea").fill("Be brief.")
    expected = [
        ("route", "quick"),
        ("route", "slow"),
        ("system", "Be brief."),
        ("template", "Hello {{ you }}"),
        ("v.you", "World & <co>"),
        ("max_tokens", "7"),
    ]
    page.wait_for_function("location.search.includes('Be+brief')")
    assert query(page) == expected
    other = pages.open(page.evaluate("location.href"))
    expect(other.locator("#routes .token")).to_have_count(2)
    expect(other.locator("[name=you]")).to_have_value("World & <co>")
    expect(other.locator("#template textarea")).to_have_value("Hello {{ you }}")
    expect(other.locator("#system textarea")).to_have_value("Be brief.")
    expect(other.get_by_label("Max tokens")).to_have_value("7")
    other.wait_for_timeout(500)
    assert query(other) == expected


def test_the_call_can_be_copied(pages: Watch, lab_server: Server) -> None:
    page = playground(pages, lab_server, "quick", "slow")
    page.locator("#copy").click()
    sheet = page.locator("dialog")
    expect(sheet.locator("pre")).to_contain_text(f"curl {lab_server.url}/v1/chat/completions")
    sheet.get_by_role("button", name="Python").click()
    expect(sheet.locator("pre")).to_contain_text("from openai import OpenAI")
    sheet.locator("select").select_option("slow")
    expect(sheet.locator("pre")).to_contain_text("model='slow'")
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


@pytest.mark.parametrize("path", ["", "runs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_every_page_fits_its_window_and_paints_at_once(
    pages: Watch, lab_server: Server, path: str, scheme: str, width: int
) -> None:
    page = pages.open(f"{lab_server.url}/lab/{path}", width=width, color_scheme=scheme)
    expect(page.locator("#run, #search").first).to_be_visible()
    expect(page.locator(".top .status")).to_contain_text(re.compile("ready|loading"))
    expect(page.locator(".top .who")).to_contain_text("protected mode")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
    assert page.locator("gradio-app footer:visible").count() == 0
    assert page.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 1


def test_light_and_dark_are_kept(pages: Watch, lab_server: Server) -> None:
    pages.expect(LEFT)
    page = pages.open(f"{lab_server.url}/lab/")
    expect(page.locator("#run")).to_be_visible()
    page.locator(".top .mode").click()
    for path in ("", "runs"):
        page.goto(f"{lab_server.url}/lab/{path}")
        expect(page.locator("#run, #search").first).to_be_visible()
        assert page.evaluate("document.body.classList.contains('dark')")


def test_visitors_see_their_own_only(pages: Watch, server: Server) -> None:
    pages.expect(LEFT)
    server.wait_ready()
    with server.client() as admin:
        keys = {
            name: admin.post("/admin/keys", json={"name": name, "routes": routes}).json()["key"]
            for name, routes in (("Ada", ["fake", "chat"]), ("Bob", ["fake"]))
        }
    opened = {}
    for name, key in keys.items():
        page = pages.open(f"{server.url}/lab/?template=From+{name}")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".top .who")).to_contain_text(name)
        expect(page.locator("#template textarea")).to_have_value(f"From {name}")
        page.locator("#routes input").click()
        offered = page.get_by_role("option").all_inner_texts()
        assert sorted(text.strip("✓ \n") for text in offered) == (["chat", "fake"] if name == "Ada" else ["fake"])
        page.keyboard.press("Escape")
        opened[name] = page
    for name in ("Ada", "Bob"):
        opened[name].goto(f"{server.url}/lab/?template=From+{name}&route=fake")
        expect(opened[name].locator("#routes .token")).to_have_count(1)
        opened[name].locator("#run").click()
    for name, page in opened.items():
        answer(page, 0, "done")
        expect(page.locator(".answer .text")).to_contain_text(name)
    opened["Ada"].get_by_role("button", name="Sign out").click()
    expect(opened["Ada"].get_by_label("Key")).to_be_visible()
    opened["Bob"].reload()
    expect(opened["Bob"].locator("#run")).to_be_visible()
