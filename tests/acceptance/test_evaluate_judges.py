"""Judges against a live server: what they ask, what is kept, and how they stand beside people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
