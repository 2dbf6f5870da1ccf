"""Judges and registered prompts against a live server: what is asked, what is kept, how judges stand beside people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptlab.evaluation.problems import PlanInvalid
from tests.conftest import StartServer
from tests.services.evaluations import calls, config, evaluate
from tests.services.promptyard import Server


@pytest.fixture(scope="module")
def evaluated(start_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with fakes, three of them with a price."""
    return start_servers(config(tmp_path_factory.mktemp("evaluated")))


def test_judges_are_asked_once_forecast_and_repeat_themselves_or_not(evaluated: Server, tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "cases": [{"q": f"question {n}", "expected": "x"} for n in range(3)],
        "scorers": [
            {"type": "correctness", "route": "judge", "votes": 2, "name": "moody"},
            {"type": "relevance", "route": "echo", "name": "unread"},
            {"type": "safety", "route": "mute"},
            {"guidelines": "Be kind.", "route": "wrong", "name": "refused"},
            {"type": "embedding-similarity", "route": "embed", "value": "echo: {{q}}"},
        ],
        "concurrency": 1,
    }
    before = calls(evaluated)
    report = evaluate(evaluated, tmp_path, **plan)
    metrics = report.baseline.metrics
    assert (metrics["moody"].value, metrics["moody repeated"].value) == (0.5, 0)
    # A fake that is asked for a schema fills it in with the least it allows: the first verdict.
    assert metrics["unread"].value == 1
    assert metrics["embedding-similarity"].value == pytest.approx(1)
    assert report.baseline.unscored == {"safety": 3, "refused": 3}
    assert "gave no verdict in JSON" in (report.results[0].scores[2].error or "")
    assert "too long" in (report.results[0].scores[3].error or "")
    # Answers, votes, and the others; the answer's embedding is the value's.
    assert calls(evaluated)[0] - before[0] == 3 * (1 + 2 + 1 + 1 + 1 + 1)
    again = evaluate(evaluated, tmp_path, **plan)
    assert calls(evaluated)[0] - before[0] == 3 * (7 + 1)  # what was refused is asked again
    assert again.baseline.metrics["moody"].value == 0.5


def test_pairwise_swaps_places_and_the_baseline_stands_at_half(evaluated: Server, tmp_path: Path) -> None:
    report = evaluate(
        evaluated,
        tmp_path,
        prompts={"old": "{{q}}", "new": "Please {{q}}"},
        routes="echo",
        scorers=[{"type": "pairwise", "route": "echo"}],
    )
    # This judge always prefers the first place, which is no preference.
    assert [one.metrics["pairwise"].value for one in report.variants] == [0.5, 0.5]
    assert report.results[1].scores[0].repeated == 0
    assert report.baseline.metrics["pass"].value == 1


def test_recorded_answers_are_judged_beside_peoples_labels(evaluated: Server, tmp_path: Path) -> None:
    cases = [{"q": "x", "first": "a", "second": f"b {n}", "good": "yes" if n < 6 else "no"} for n in range(10)]
    cases += [{**cases[0], "good": ""} for _ in range(5)]
    before = calls(evaluated)
    report = evaluate(
        evaluated,
        tmp_path,
        cases=cases,
        routes=[],
        outputs=["first", "second"],
        scorers=[{"type": "relevance", "route": "echo", "human": "good"}, {"starts-with": "b"}],
        log=True,
    )
    # One question to the judge for each different answer; none to answer.
    assert calls(evaluated)[0] - before[0] == 1 + 10
    assert [one.variant.name for one in report.variants] == ["first", "second"]
    assert report.verdict("second") == "VALIDATED"
    [first, _] = report.checked
    assert (first.agreement.agreed.value, first.agreement.agreed.cases) == (0.6, 10)
    assert first.agreement.table == {("pass", "pass"): 6, ("fail", "pass"): 4}
    assert first.agreement.kappa == 0
    assert first.corrected is not None
    assert first.corrected.value == pytest.approx(0.6)
    with evaluated.client() as http:
        text = http.get("/get-artifact", params={"run_id": report.run_id, "path": "report.md"}).text
    assert "`relevance` beside people, `first`: agree 0.6" in text


REGISTRY = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def registered(evaluated: Server) -> None:
    """A prompt `greet` in two versions, the second `candidate`, and a dataset `greetings` of two records."""
    prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    chat = [{"role": "system", "content": "Be {{tone}}."}, {"role": "user", "content": "Hello {{who}}"}]
    jinja = "{% if tone %}{{ tone }}: {% endif %}Hi {{ who }}"
    with evaluated.client() as http:
        http.post(f"{REGISTRY}/registered-models/create", json={"name": "greet", "tags": [prompt]}).raise_for_status()
        for text, kind in ((json.dumps(chat), "chat"), (jinja, "text")):
            config = json.dumps({"model_name": "echo", "max_tokens": 3})
            tags = {"mlflow.prompt.text": text, "_mlflow_prompt_type": kind, "_mlflow_prompt_model_config": config}
            listed = [prompt, *({"key": key, "value": value} for key, value in tags.items())]
            body = {"name": "greet", "source": "dummy-source", "tags": listed}
            http.post(f"{REGISTRY}/model-versions/create", json=body).raise_for_status()
        named = {"name": "greet", "alias": "candidate", "version": "2"}
        http.post(f"{REGISTRY}/registered-models/alias", json=named).raise_for_status()
        datasets = "/api/3.0/mlflow/datasets"
        made = http.post(f"{datasets}/create", json={"name": "greetings", "experiment_ids": ["0"]}).json()
        records = [
            {"inputs": {"who": who, "tone": "kind"}, "expectations": {"expected_response": who}}
            for who in ("Ada", "Bob")
        ]
        http.post(
            f"{datasets}/{made['dataset']['dataset_id']}/records", json={"records": json.dumps(records)}
        ).raise_for_status()


@pytest.mark.usefixtures("registered")
def test_versions_of_a_registered_prompt_are_called_on_the_records_of_a_dataset(
    evaluated: Server, tmp_path: Path
) -> None:
    prompts = {"now": "prompt:greet/1", "new": {"registered": "prompts:/greet@candidate"}}
    plan: dict[str, Any] = {"cases": "dataset:greetings", "prompts": prompts, "scorers": ["contains"], "routes": []}
    report = evaluate(evaluated, tmp_path, **plan, log=True)
    assert [one.variant.name for one in report.variants] == ["now", "new"]
    assert [one.variant.route for one in report.variants] == ["prompt:greet/1", "prompt:greet/2"]
    # Three tokens of an answer: "echo: Hello Ada", and "echo: kind: Hi" without the name.
    assert [one.metrics["contains"].value for one in report.variants] == [1, 0]
    assert {one.answer.finish for one in report.results[2:]} == {"length"}
    with evaluated.client() as http:
        run = http.get(f"{REGISTRY}/runs/get", params={"run_id": report.run_ids["new"]}).json()["run"]
        usage = http.get(f"/admin/usage/{report.results[0].answer.request_id}").json()
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert json.loads(tags["mlflow.linkedPrompts"]) == [{"name": "greet", "version": "2"}]
    assert usage["prompt"] == "greet/1"
    # On routes of the plan's, only the text is the version's.
    other = evaluate(evaluated, tmp_path, **{**plan, "routes": ["echo"]})
    assert [one.metrics["contains"].value for one in other.variants] == [1, 1]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"prompts": {"p": "prompt:nobody"}}, "prompts.p: 'prompt:nobody' cannot be used: "),
        ({"prompts": {"p": "prompt:greet@lost"}}, "prompts.p: 'prompt:greet@lost' cannot be used: "),
        ({"prompts": {"p": "prompt:greet/9"}}, "prompts.p: 'prompt:greet/9' cannot be used: "),
        ({"prompts": {"p": {"registered": "greet"}}}, "'greet' names no registered prompt"),
        ({"prompts": {"p": {"registered": "prompt:greet/1", "system": "x"}}}, "registered stands alone"),
        ({"prompts": {"p": "prompt:greet/1"}, "cases": [{"who": "x"}]}, "asks for 'tone'"),
        ({"cases": "dataset:lost"}, "cases: the dataset 'lost' cannot be read: "),
    ],
)
def test_what_the_server_does_not_keep_is_told(
    evaluated: Server, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(PlanInvalid) as refused:
        evaluate(evaluated, tmp_path, **changed)
    assert why in str(refused.value)
