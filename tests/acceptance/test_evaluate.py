"""An evaluation as people run it: from a file or from Python, against a live server, killed, resumed, gated, logged."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from promptlab.evaluation.problems import PlanInvalid, Stopped
from promptlab.evaluation.report import Report
from tests.conftest import StartServer
from tests.services.evaluations import calls, config, evaluate
from tests.services.gateway import ask, make_key
from tests.services.process import wait_until
from tests.services.promptyard import Server, environment

SHORT = {"max_tokens": 10}
QUESTIONS = "id,question,expected\na,Capital of France?,Paris\nb,Capital of Italy?,Rome\nc,Where is the Louvre?,Paris\n"
PLAN = """\
cases: cases.csv
prompts:
  plain: "{{question}}"
  polite: {system: Be polite., template: "Please: {{question}}"}
routes: [paris, echo]
baseline: plain / echo
repeats: 2
scorers:
  - {type: icontains, name: correctness}
  - {not-contains: sorry}
  - {length: {max: 20}}
  - {latency: 5}
"""


@pytest.fixture(scope="module")
def evaluated(start_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with fakes, three of them with a price."""
    return start_servers(config(tmp_path_factory.mktemp("evaluated")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a plan and its cases."""
    (tmp_path / "cases.csv").write_text(QUESTIONS)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def command(server: Server, folder: Path, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """The program and how it is started: beside the plan, as the admin."""
    line = [sys.executable, "-m", "gateway.cli", "eval", "plan.yaml", "--server", server.url, *arguments]
    env = environment({"PROMPTYARD_ADMIN_KEY": str(server.admin_key)}, "eval")
    return line, {"cwd": folder, "env": env}


def run(server: Server, folder: Path, *arguments: str, code: int = 0) -> Result:
    """The command in this process: a process of its own takes a second, and there are many."""
    line, how = command(server, folder, *arguments)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PROMPTYARD_")]:
            patch.delenv(name)
        patch.setenv("PROMPTYARD_ADMIN_KEY", how["env"]["PROMPTYARD_ADMIN_KEY"])
        done = CliRunner().invoke(main, line[3:], prog_name="promptyard")
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_a_file_becomes_a_report_runs_and_a_table(evaluated: Server, folder: Path) -> None:
    before = calls(evaluated)
    done = run(evaluated, folder, "--json", "--junit", "junit.xml", "--markdown", "report.md")
    report = json.loads(done.stdout)
    assert "Forecast: 24 calls" in done.stderr
    assert "24/24" in done.stderr
    # What it says it cost is what the ledger says.
    assert calls(evaluated)[0] - before[0] == 24
    assert report["usd"] == pytest.approx(calls(evaluated)[1] - before[1], abs=1e-9)
    assert report["usd"] > 0
    first = report["variants"][0]
    assert (first["name"], first["answers"]) == ("plain / paris", 12 / 2)
    assert first["metrics"]["correctness"]["value"] == pytest.approx(2 / 3)
    assert first["metrics"]["correctness"]["cases"] == 3
    assert {one["verdict"] for one in report["variants"]} == {None, "INCONCLUSIVE"}
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == [one["name"] for one in report["variants"]]
    assert "It has no 'Rome'." in (folder / "junit.xml").read_text()
    assert "**INCONCLUSIVE**" in (folder / "report.md").read_text()
    with evaluated.client() as http:
        parent = http.get("/api/2.0/mlflow/runs/get", params={"run_id": report["run_id"]}).json()["run"]
        child = http.get("/api/2.0/mlflow/runs/get", params={"run_id": first["run_id"]}).json()["run"]
        table = http.get("/get-artifact", params={"run_id": first["run_id"], "path": "eval_results_table.json"}).json()
    assert (parent["info"]["status"], child["info"]["status"]) == ("FINISHED", "FINISHED")
    tags = {tag["key"]: tag["value"] for tag in child["data"]["tags"]}
    assert tags["mlflow.parentRunId"] == report["run_id"]
    metrics = {metric["key"]: metric["value"] for metric in child["data"]["metrics"]}
    assert metrics["correctness/mean"] == pytest.approx(2 / 3)
    assert metrics["correctness/low"] < 2 / 3 < metrics["correctness/high"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 6
    assert rows[0]["output"] == "It is Paris, the capital of France."
    assert (rows[0]["question"], rows[0]["correctness"], rows[0]["correctness/passed"]) == (
        "Capital of France?",
        1,
        True,
    )
    assert rows[2]["correctness/why"] == "It has no 'Rome'."


def test_the_same_again_asks_nobody(evaluated: Server, folder: Path) -> None:
    run(evaluated, folder, "--no-log")
    before = calls(evaluated)
    again = run(evaluated, folder, "--no-log", "--json")
    assert calls(evaluated) == before
    assert "0 calls (24 answers are there already)" in again.stderr
    report = json.loads(again.stdout)
    assert (report["usd"], report["run_id"]) == (0, None)
    assert report["variants"][0]["metrics"]["correctness"]["value"] == pytest.approx(2 / 3)


def test_killed_and_run_again_it_pays_for_nothing_twice(evaluated: Server, folder: Path) -> None:
    cases = "".join(f"{number},question {number},Paris\n" for number in range(40))
    (folder / "cases.csv").write_text("id,question,expected\n" + cases)
    plan = (folder / "plan.yaml").read_text().replace("[paris, echo]", "slow").replace("plain / echo", "plain")
    (folder / "plan.yaml").write_text(plan + "concurrency: 4\n")
    before = calls(evaluated)
    line, how = command(evaluated, folder, "--no-log")
    book = folder / ".promptyard" / "plan.answers.jsonl"
    killed = subprocess.Popen(line, **how, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: book.exists() and book.read_bytes().count(b"\n") >= 20, killed, 30)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = book.read_bytes().count(b"\n")
    assert 20 <= kept < 160
    done = run(evaluated, folder, "--no-log", "--json")
    assert f"({kept} answers are there already)" in done.stderr
    # Only what was under way as it was killed is asked again: four at most.
    assert 160 <= calls(evaluated)[0] - before[0] <= 164
    assert json.loads(done.stdout)["variants"][0]["answers"] == 80


def test_ctrl_c_keeps_what_is_answered_and_says_so(evaluated: Server, folder: Path) -> None:
    plan = (folder / "plan.yaml").read_text().replace("[paris, echo]", "slow").replace("plain / echo", "plain")
    (folder / "plan.yaml").write_text(plan.replace("repeats: 2", "repeats: 100") + "concurrency: 2\n")
    line, how = command(evaluated, folder, "--no-log")
    book = folder / ".promptyard" / "plan.answers.jsonl"
    left = subprocess.Popen(line, **how, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: book.exists() and book.stat().st_size > 500, left, 30)
    left.send_signal(signal.SIGINT)
    _, said = left.communicate(timeout=20)
    assert left.returncode == 1
    assert "run the same again to go on" in said
    assert "Traceback" not in said


def test_a_forecast_asks_nobody(evaluated: Server, folder: Path) -> None:
    before = calls(evaluated)
    found = json.loads(run(evaluated, folder, "--estimate", "--json").stdout)
    assert calls(evaluated) == before
    assert (found["calls"], found["cached"]) == (24, 0)
    assert 0 < found["usd"]["least"] < found["usd"]["likely"] < found["usd"]["most"]
    said = run(evaluated, folder, "--estimate").stdout
    assert said.startswith("Forecast: 24 calls\n")
    # Asked for real, it was within what was foreseen.
    usd = json.loads(run(evaluated, folder, "--no-log", "--json").stdout)["usd"]
    assert found["usd"]["least"] <= usd <= found["usd"]["most"]


def test_it_does_not_begin_over_max_cost_and_stops_at_it(evaluated: Server, folder: Path, tmp_path: Path) -> None:
    before = calls(evaluated)
    done = run(evaluated, folder, "--max-cost", "0.0000001", code=1)
    assert "Not begun: it would likely cost" in done.stderr
    assert calls(evaluated) == before
    # The provider counts far more than there is, so it begins; what the first call cost tells when to stop.
    cases = [{"q": f"question {number}"} for number in range(50)]
    with pytest.raises(Stopped, match="max_cost is reached") as stopped:
        evaluate(evaluated, tmp_path, cases=cases, routes="dear", max_cost=0.005, parameters=SHORT, concurrency=1)
    assert "Its answers are kept" in str(stopped.value)
    assert calls(evaluated)[1] - before[1] == pytest.approx(4 * 0.0012)
    with pytest.raises(Stopped, match="nobody knows the price of unpriced"):
        evaluate(evaluated, tmp_path, routes="unpriced", max_cost=1)


@pytest.mark.parametrize(
    ("gate", "code", "line"),
    [
        ("correctness >= 0.6 and cost >= baseline", 1, "- no: correctness = 0 (0 to 0.5615) >= 0.6"),
        ("correctness >= 0 and latency_p95 < 5", 0, "- yes: latency_p95"),
        ("correctnes >= 0", 1, "Did you mean 'correctness'?"),
    ],
)
def test_a_gate_is_an_exit_code(evaluated: Server, folder: Path, gate: str, code: int, line: str) -> None:
    before = calls(evaluated)
    done = run(evaluated, folder, "--no-log", "--gate", gate, code=code)
    assert line in done.stdout + done.stderr
    # A gate that is none is refused before anything is asked.
    assert "Did you" not in line or calls(evaluated) == before


def test_mistakes_are_told_with_their_lines_before_anything_is_asked(evaluated: Server, folder: Path) -> None:
    before = calls(evaluated)
    wrong = PLAN.replace("latency: 5", "latencyy: 5").replace("length: {max: 20}", "length: {}")
    (folder / "plan.yaml").write_text(wrong)
    said = run(evaluated, folder, code=1).stderr
    assert "plan.yaml:11: scorers[2]: min or max is missing." in said
    assert "plan.yaml:12: scorers[3]: type is missing: the name of a scorer. Did you mean 'latency'?" in said
    (folder / "plan.yaml").write_text(PLAN.replace("[paris, echo]", "[paris, ecko]").replace("plain / echo", "plain"))
    said = run(evaluated, folder, code=1).stderr
    assert "routes: this key may call no route 'ecko'. It may call: echo, paris" in said
    (folder / "plan.yaml").write_text(PLAN.replace("[paris, echo]", "embed").replace("plain / echo", "plain"))
    assert "'embed' is for embeddings" in run(evaluated, folder, code=1).stderr
    (folder / "plan.yaml").write_text("- x")
    assert "is not a mapping" in run(evaluated, folder, code=1).stderr
    (folder / "plan.yaml").unlink()
    assert "no such file" in run(evaluated, folder, code=1).stderr
    assert calls(evaluated) == before


def test_a_key_may_do_what_it_may(evaluated: Server, folder: Path) -> None:
    (folder / "key").write_text(make_key(evaluated, routes=["echo"]) + "\n")
    plan = PLAN.replace("[paris, echo]", "echo").replace("plain / echo", "plain")
    (folder / "plan.yaml").write_text(plan)
    run(evaluated, folder, "--key", "@key")
    (folder / "plan.yaml").write_text(PLAN)
    assert "may call no route 'paris'" in run(evaluated, folder, "--key", "@key", code=1).stderr
    assert "This key is not known here." in run(evaluated, folder, "--key", "sk-py-unknown", code=1).stderr
    line, how = command(evaluated, folder)
    line[line.index("--server") + 1] = "http://127.0.0.1:9"
    done = subprocess.run(line, **how, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "The server cannot be reached. Is it still running?\n")


def test_limits_are_waited_for_and_failures_tried_again(evaluated: Server, tmp_path: Path) -> None:
    """A route that refuses every second call and fails every third: everything is answered all the same."""
    began = time.monotonic()
    report = evaluate(evaluated, tmp_path, cases=[{"q": str(n)} for n in range(2)], routes="moody", concurrency=1)
    assert report.baseline.metrics["errors"].value == 0
    assert time.monotonic() - began >= 1
    key = make_key(evaluated, budget_duration="1d", max_budget=0.0002)
    cases = [{"q": str(n)} for n in range(40)]
    with pytest.raises(Stopped, match=r"refuses to go on: .*budget"):
        evaluate(evaluated, tmp_path, cases=cases, routes="paris", key=key, parameters=SHORT)


def test_an_answer_that_fails_for_good_counts_as_wrong_and_is_not_kept(evaluated: Server, tmp_path: Path) -> None:
    report = evaluate(evaluated, tmp_path, routes=["wrong", "echo"], scorers=["contains"], baseline="p / echo")
    metrics = report.candidates[0].metrics
    assert (metrics["errors"].value, metrics["contains"].value, metrics["pass"].value) == (1, 0, 0)
    assert "too long" in (report.results[0].answer.error or "")
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 1


def test_from_python_with_functions_tools_and_a_running_loop(evaluated: Server, tmp_path: Path) -> None:
    seen: list[int] = []

    def long_enough(output: str, case: dict[str, Any]) -> bool:
        return len(output) > len(case["q"])

    async def in_a_notebook() -> Report:
        return evaluate(
            evaluated,
            tmp_path,
            cases=[{"q": "a", "calls": [{"name": "find", "arguments": {"city": "Rome"}}]}],
            routes=["echo", "tools"],
            scorers=[long_enough, {"type": "tool-calls", "value": "{{calls}}", "weight": 0.5}],
            gate="tool-calls == 1",
            progress=lambda found: seen.append(found.done),
        )

    import asyncio

    report = asyncio.run(in_a_notebook())
    echo, tools = report.variants
    assert (echo.metrics["long_enough"].value, echo.metrics["tool-calls"].value) == (1, 0)
    assert (tools.metrics["long_enough"].value, tools.metrics["tool-calls"].value) == (0, 1)
    assert echo.metrics["score"].value == pytest.approx(1 / 1.5)
    assert report.passed
    assert seen[-1] == 2
    with pytest.raises(PlanInvalid, match="asks for 'r'"):
        evaluate(evaluated, tmp_path, prompts={"p": "{{r}}"})


@pytest.fixture
def mlflow_client(evaluated: Server) -> Iterator[Any]:
    """The stock client, pointed at the server."""
    settings = {"MLFLOW_TRACKING_TOKEN": str(evaluated.admin_key), "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setitem(os.environ, name, value)
        import mlflow

        before = dict(os.environ)
        mlflow.set_tracking_uri(evaluated.url)
        yield mlflow
        # It notes server and experiment there too, for children: those of later tests are none of ours.
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflows_client_reads_the_runs_and_their_tables(evaluated: Server, tmp_path: Path, mlflow_client: Any) -> None:
    name = "for mlflow"
    report = evaluate(evaluated, tmp_path, scorers=["contains"], name=name, experiment=name, log=True)
    mlflow_client.set_experiment(name)
    table = mlflow_client.load_table("eval_results_table.json", run_ids=list(report.run_ids.values()))
    assert list(table["output"]) == ["echo: a"]
    assert list(table["contains"]) == [1.0]
    runs = mlflow_client.search_runs(
        experiment_names=[name], filter_string=f"tags.mlflow.parentRunId = '{report.run_id}'"
    )
    assert list(runs["params.prompt_template"]) == ["{{q}}"]
    assert list(runs["metrics.contains/mean"]) == [1.0]
    text = mlflow_client.artifacts.load_text(f"runs:/{report.run_id}/report.md")
    assert text.startswith("# for mlflow")


def test_repeats_are_other_answers_also_where_a_route_has_a_cache(evaluated: Server, tmp_path: Path) -> None:
    before = calls(evaluated)
    report = evaluate(evaluated, tmp_path, cases=pd.DataFrame({"q": ["a"]}), routes="cached", repeats=3)
    assert [each.answer.output_tokens for each in report.results] == [1, 2, 3]
    assert calls(evaluated)[0] - before[0] == 3


def test_the_routes_tell_their_prices(evaluated: Server) -> None:
    with evaluated.client() as http:
        found = {one["id"]: one for one in http.get("/v1/models").json()["data"]}
        answer, free = ask(http, "paris"), ask(http, "echo")
    assert found["paris"]["pricing"] == {"input": 1.0, "output": 2.0, "most_input": 1.0, "most_output": 2.0}
    assert found["echo"]["pricing"]["most_output"] == 0
    assert found["unpriced"]["pricing"] is None
    assert answer.headers["x-promptyard-cost"] == "0.000016000"
    assert float(free.headers["x-promptyard-cost"]) == 0
