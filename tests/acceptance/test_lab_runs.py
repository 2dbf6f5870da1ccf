"""The lab's runs page in Chromium: filtered, sorted, compared, downloaded, and reached by MLflow's own links."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from playwright.sync_api import Error, Page, Route, expect

from tests.conftest import StartServer
from tests.services.pages import Watch
from tests.services.promptyard import Server

MANY = 103
# What Gradio's client prints when a page is left while it is still asking.
LEFT = "signal is aborted|Connection errored out"


def query(page: Page) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(page.evaluate("location.href")).query)


class Held:
    """Events of a page that do not reach the server until `go_on`."""

    def __init__(self) -> None:
        self.events: list[Route] = []
        self._holds = True

    def take(self, route: Route) -> None:
        self.events.append(route)
        if not self._holds:
            route.continue_()

    def go_on(self) -> None:
        self._holds = False
        for event in self.events:
            event.continue_()


def hold(page: Page) -> Held:
    held = Held()
    page.route("**/queue/join*", held.take)
    return held


@pytest.fixture(scope="module")
def lab_server(start_servers: StartServer) -> Server:
    """A server of a stranger's kind: no admin key."""
    server = start_servers(admin_key=None, lab=True)
    server.wait_ready()
    return server


@pytest.fixture(scope="module")
def experiment(lab_server: Server) -> str:
    """An experiment with three runs: a history, a picture, a text, values that differ."""
    with lab_server.client() as http:

        def post(path: str, **body: object) -> dict[str, dict[str, dict[str, str]]]:
            return dict(http.post(f"/api/2.0/mlflow/{path}", json=body).raise_for_status().json())

        number = str(post("experiments/create", name="three")["experiment_id"])
        for index, name in enumerate(("alpha", "beta", "gamma")):
            info = post("runs/create", experiment_id=number, run_name=name, start_time=1000 + index)["run"]["info"]
            points = [{"key": "loss", "value": 1 / (s + index + 1), "timestamp": s, "step": s} for s in range(5)]
            points.append({"key": "score", "value": index / 2, "timestamp": 1, "step": 0})
            given = [{"key": "size", "value": str(index)}, {"key": "kind", "value": "same"}]
            post("runs/log-batch", run_id=info["run_id"], metrics=points, params=given)
            if index < 2:
                read = {"name": "cases", "digest": "d1", "source_type": "code", "source": "{}"}
                tags = [{"key": "mlflow.data.context", "value": f"fold {index}"}]
                post("runs/log-inputs", run_id=info["run_id"], datasets=[{"dataset": read, "tags": tags}])
                post("runs/outputs", run_id=info["run_id"], models=[{"model_id": f"m-{index}"}])
            base = f"/api/2.0/mlflow-artifacts/artifacts/{number}/{info['run_id']}/artifacts"
            http.put(f"{base}/notes/read me.txt", content=f"{name} <b>said</b>").raise_for_status()
            post("runs/update", run_id=info["run_id"], status="FINISHED", end_time=2000)
    return number


def test_runs_are_filtered_sorted_chosen_and_reopened(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={experiment}")
    names = page.locator(".runs tbody th")
    expect(names).to_have_text(["gamma", "beta", "alpha"])
    expect(page.locator(".foot")).to_contain_text("3 runs. Search again for newer runs.")
    score = page.get_by_role("columnheader", name="score")
    page.get_by_role("button", name="score").click()
    expect(score).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="score").click()
    expect(score).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["alpha", "beta", "gamma"])
    page.locator("#filter input, #filter textarea").fill("metrics.score < 0.6")
    page.locator("#search").click()
    expect(names).to_have_text(["alpha", "beta"])
    for name in ("alpha", "beta"):
        page.get_by_label(f"Compare {name}").check()
        expect(page.locator(".legend")).to_contain_text(name)
    expect(page.locator(".chart.lines figcaption")).to_have_text("loss")
    expect(page.locator(".chart.lines polyline")).to_have_count(2)
    expect(page.locator(".chart.bars figcaption")).to_have_text("score")
    params, data = page.locator(".params").all()
    expect(params.locator(".differs th")).to_have_text(["size"])
    expect(data.locator("tbody th")).to_have_text(["cases d1", "Models made"])
    expect(data.locator("tbody td")).to_have_text(["fold 0", "fold 1", "models:/m-0", "models:/m-1"])
    page.get_by_role("button", name="notes/read me.txt").click()
    expect(page.locator(".shown pre")).to_have_text(["alpha <b>said</b>", "beta <b>said</b>"])

    page.wait_for_function("location.search.includes('file=')")
    other = pages.open(page.evaluate("location.href"))
    expect(other.locator(".runs tbody th")).to_have_text(["alpha", "beta"])
    expect(other.locator(".shown pre")).to_have_text(["alpha <b>said</b>", "beta <b>said</b>"])
    expect(other.locator("#filter input, #filter textarea")).to_have_value("metrics.score < 0.6")
    assert other.locator(".runs :checked").count() == 2
    other.get_by_role("button", name="Clear").click()
    expect(other.locator(".compare")).to_have_count(0)
    assert other.locator(".runs :checked").count() == 0


def test_two_quick_clicks_are_both_done(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={experiment}")
    expect(page.locator(".runs tbody tr")).to_have_count(3)
    held = hold(page)
    page.get_by_label("Compare alpha").check()
    page.get_by_label("Compare beta").check()
    page.wait_for_timeout(300)
    # The second waits in the browser for what the first makes of the view.
    assert len(held.events) == 1
    held.go_on()
    expect(page.locator(".legend")).to_contain_text("alpha")
    expect(page.locator(".legend")).to_contain_text("beta")


def test_nothing_can_be_pressed_that_would_be_lost(pages: Watch, lab_server: Server, experiment: str) -> None:
    pages.expect(LEFT)
    page = pages.open()
    held = hold(page)
    page.goto(f"{lab_server.url}/lab/runs?experiment={experiment}")
    search = page.locator("#search")
    expect(search).to_be_visible()
    page.wait_for_timeout(300)
    assert page.locator("gradio-app").evaluate("app => app.inert")
    with pytest.raises(Error, match="Timeout 300ms"):
        search.click(timeout=300)
    held.go_on()
    search.click()
    expect(page.locator(".runs tbody tr")).to_have_count(3)


def test_a_wrong_filter_is_told_in_words_and_an_empty_search_leads_on(
    pages: Watch, lab_server: Server, experiment: str
) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={experiment}")
    expect(page.locator(".runs")).to_be_visible()
    page.locator("#filter input, #filter textarea").fill("score is good")
    page.locator("#search").click()
    expect(page.locator("#said .problem")).to_contain_text("The filter was not understood.")
    page.locator("#filter input, #filter textarea").fill("metrics.score > 9")
    page.locator("#search").click()
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator(".runs tbody tr")).to_have_count(3)


def test_a_search_can_be_copied_and_a_run_that_is_gone_is_named(
    pages: Watch, lab_server: Server, experiment: str
) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={experiment}&run=deadbeef")
    expect(page.locator("#said")).to_contain_text("deadbeef")
    expect(page.locator(".runs tbody tr")).to_have_count(3)
    page.locator("#filter input, #filter textarea").fill("params.kind = 'same'")
    page.locator("#copy").click()
    page.locator("dialog").get_by_role("button", name="MLflow").click()
    written = page.locator("dialog pre").inner_text()
    compile(written, "snippet", "exec")
    assert f"experiment_ids=['{experiment}']" in written
    assert "params.kind = 'same'" in written


@pytest.fixture(scope="module")
def many(lab_server: Server) -> str:
    """An experiment with more runs than the page shows at first."""
    with lab_server.client() as http:
        made = http.post("/api/2.0/mlflow/experiments/create", json={"name": "many"}).raise_for_status().json()
        for index in range(MANY):
            body = {"experiment_id": made["experiment_id"], "run_name": f"run {index}", "start_time": 1000 + index}
            http.post("/api/2.0/mlflow/runs/create", json=body).raise_for_status()
    return str(made["experiment_id"])


def test_more_runs_can_be_shown_and_choosing_one_far_down_keeps_the_place(
    pages: Watch, lab_server: Server, many: str
) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={many}")
    rows = page.locator(".runs tbody tr")
    expect(rows).to_have_count(100)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(MANY)
    box = page.get_by_label("Compare run 2", exact=True)
    box.check()
    expect(page.locator(".legend")).to_contain_text("run 2")
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    expect(box).to_be_in_viewport()
    assert page.locator(".runs").evaluate("table => table.scrollTop") > 1000


def test_links_of_the_mlflow_client_lead_to_the_run(pages: Watch, lab_server: Server, experiment: str) -> None:
    pages.expect(LEFT)
    with lab_server.client() as http:
        found = http.post("/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment]}).json()["runs"]
    run_id = found[0]["info"]["run_id"]
    page = pages.open(f"{lab_server.url}/#/experiments/{experiment}/runs/{run_id}")
    expect(page.locator(".legend")).to_contain_text(found[0]["info"]["run_name"])
    assert query(page) == [("experiment", experiment), ("run", run_id)]
    # A link pasted where a page of the lab is already open changes the fragment alone.
    page.evaluate(f"location.hash = '#/experiments/{experiment}'")
    expect(page.locator(".runs tbody tr")).to_have_count(3)
    expect(page.locator(".compare")).to_have_count(0)
    assert query(page) == [("experiment", experiment)]


def test_links_of_the_mlflow_client_outlive_signing_in(pages: Watch, server: Server) -> None:
    pages.expect(LEFT)
    server.wait_ready()
    page = pages.open(f"{server.url}/#/experiments/0")
    page.wait_for_url("**/sign-in?next=runs*")
    page.get_by_label("Key").fill(server.admin_key or "")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/lab/runs?experiment=0")
    expect(page.locator("#experiments input")).to_have_value("Default")


def test_an_experiment_that_is_gone_is_named(pages: Watch, lab_server: Server, experiment: str) -> None:
    page = pages.open(f"{lab_server.url}/lab/runs?experiment=987654")
    expect(page.locator("#said")).to_contain_text("experiment 987654")


def test_an_artifact_is_downloaded_whole(pages: Watch, lab_server: Server, experiment: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    with lab_server.client() as http:
        run_id = search(http, experiment, "attributes.run_name = 'beta'")
        base = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts"
        http.put(f"{base}/weights/grün 1.bin", content=content).raise_for_status()
    page = pages.open(f"{lab_server.url}/lab/runs?experiment={experiment}&run={run_id}")
    page.get_by_role("button", name="weights/grün 1.bin").click()
    with page.expect_download() as found:
        page.get_by_role("link", name="Download").click()
    assert found.value.suggested_filename == "grün 1.bin"
    found.value.save_as(tmp_path / "found")
    assert (tmp_path / "found").read_bytes() == content


def search(http: httpx.Client, experiment: str, filter_text: str) -> str:
    body = {"experiment_ids": [experiment], "filter": filter_text}
    return str(http.post("/api/2.0/mlflow/runs/search", json=body).json()["runs"][0]["info"]["run_id"])


def test_a_download_can_never_be_a_page_of_the_lab(lab_server: Server, experiment: str) -> None:
    with lab_server.client() as http:
        run_id = search(http, experiment, "attributes.run_name = 'alpha'")
        answer = http.get("/lab/artifact", params={"run": run_id, "path": "notes/read me.txt"})
        missing = http.get("/lab/artifact", params={"run": run_id, "path": "no.txt"})
        outside = http.get("/lab/artifact", params={"run": run_id, "path": "../../../x"})
    assert answer.content == b"alpha <b>said</b>"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert (missing.status_code, outside.status_code) == (404, 400)
    assert missing.text.startswith("Not downloaded: ")


def test_a_download_needs_a_signed_in_visitor(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        server.wait_ready()
        assert http.get("/lab/artifact", params={"run": "x", "path": "y"}).status_code == 401
