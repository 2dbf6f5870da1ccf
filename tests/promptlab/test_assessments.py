"""Assessments over HTTP, on both databases: feedback, expectations and issues, and what replaces what."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.promptlab.tracing import Client, new_id


def deep(levels: int) -> object:
    """A list in a list in a list…"""
    return [deep(levels - 1)] if levels else 1


SOURCE = {"source_type": "HUMAN", "source_id": "me"}


class Judged(Client):
    """A trace to be judged."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__(http)
        self.trace = new_id()
        self.start(self.trace)

    def judge(self, name: str = "q", **said: Any) -> dict[str, Any]:
        """Keep an assessment."""
        given = {"assessment_name": name, "source": SOURCE, **(said or {"feedback": {"value": True}})}
        return dict(self("POST", f"traces/{self.trace}/assessments", assessment=given)["assessment"])

    def change(self, assessment: str, mask: str, **said: Any) -> httpx.Response:
        """Change what a mask names."""
        path = f"traces/{self.trace}/assessments/{assessment}"
        return self.ask("PATCH", path, assessment=said, update_mask=mask)

    def kept(self) -> list[dict[str, Any]]:
        """What the trace says of its assessments."""
        return list(self("GET", f"traces/{self.trace}")["trace"]["trace_info"].get("assessments", []))


@pytest.fixture
def api(http: httpx.Client) -> Judged:
    return Judged(http)


def test_what_is_judged_is_kept(api: Judged) -> None:
    time = "2026-11-23T13:09:43.447Z"
    made = api.judge(
        feedback={"value": {"deep": [1, None, "ü"]}, "error": {"error_code": "E", "error_message": "m"}},
        rationale="ok",
        metadata={"k": "v"},
        span_id="745ab0ee68d64244",
        create_time=time,
        last_update_time=time,
    )
    assert made["assessment_id"].startswith("a-")
    assert len(made.pop("assessment_id")) == 34
    assert made == {
        "assessment_name": "q",
        "trace_id": api.trace,
        "span_id": "745ab0ee68d64244",
        "source": SOURCE,
        "create_time": time,
        "last_update_time": time,
        "feedback": {"value": {"deep": [1, None, "ü"]}, "error": {"error_code": "E", "error_message": "m"}},
        "rationale": "ok",
        "metadata": {"k": "v"},
        "valid": True,
    }
    serialized = {"serialization_format": "JSON_FORMAT", "value": '{"a":[1,2]}'}
    for said in ({"expectation": {"serialized_value": serialized}}, {"expectation": {"value": {"a": [1, 2]}}}):
        assert api.judge("e", **said)["expectation"] == {"serialized_value": serialized}
    assert api.judge("n", expectation={"value": 42.5})["expectation"] == {"value": 42.5}
    assert api.judge("i-1", issue={"issue_name": "slow"})["issue"] == {"issue_name": "slow"}
    assert api.search("issue.id = 'i-1'") == [api.trace]
    old = api.judge("old", source={"source_type": "AI_JUDGE", "source_id": ""}, feedback={"value": None})
    assert old["source"]["source_type"] == "LLM_JUDGE"
    assert [one["assessment_name"] for one in api.kept()] == ["q", "e", "e", "n", "i-1", "old"]


def test_one_that_overrides_another_and_goes_away(api: Judged) -> None:
    first = api.judge()["assessment_id"]
    second = api.judge(feedback={"value": False}, overrides=first)["assessment_id"]
    assert [(one["valid"], one.get("overrides")) for one in api.kept()] == [(False, None), (True, first)]
    assert api.search("feedback.q = 'true'") == []
    assert api.search("feedback.q = 'false'") == [api.trace]
    path = f"traces/{api.trace}/assessments"
    assert api("DELETE", f"{path}/{second}") == {}
    assert api("DELETE", f"{path}/{second}") == {}
    assert [one["valid"] for one in api.kept()] == [True]
    missing = api.ask(
        "POST", path, assessment={"assessment_name": "q", "source": SOURCE, "feedback": {}, "overrides": "x"}
    )
    assert missing.status_code == 404
    assert api.ask("GET", f"{path}/{second}").status_code == 404
    assert api.ask("DELETE", f"traces/tr-none/assessments/{first}").status_code == 404


def test_changes_are_what_the_mask_names(api: Judged) -> None:
    made = api.judge(feedback={"value": 1}, rationale="old", metadata={"a": "1"})
    one = made["assessment_id"]
    changed = api.change(
        one, "assessmentName,feedback,metadata", assessment_name="p", feedback={"value": 2}, metadata={"b": "2"},
        rationale="not named",
    ).json()["assessment"]  # fmt: skip
    assert (changed["assessment_name"], changed["feedback"], changed["rationale"]) == ("p", {"value": 2}, "old")
    assert changed["metadata"] == {"a": "1", "b": "2"}
    assert changed["create_time"] == made["create_time"]
    assert api.change(one, "rationale,valid", rationale="new", valid=False).json()["assessment"]["valid"] is False
    assert api("GET", f"traces/{api.trace}/assessments/{one}")["assessment"]["rationale"] == "new"
    for mask, said in (
        ("expectation", {"expectation": {"value": 1}}),
        ("feedback", {}),
        ("source", {}),
        ("assessment_name", {"assessment_name": "x" * 300}),
    ):
        assert api.change(one, mask, **said).status_code == 400
    assert api.change("a-none", "rationale", rationale="x").status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        {"assessment_name": ""},
        {"source": None},
        {"source": {"source_type": "GHOST"}},
        {"feedback": None},
        {"feedback": 5},
        {"expectation": {"value": 1}},
        {"feedback": {"value": "\0"}},
        {"feedback": {"value": deep(300)}},
        {"feedback": {"value": "x" * 70_000}},
        {"feedback": None, "expectation": {"serialized_value": {"value": "{"}}},
        {"metadata": {"k": 5}},
        {"create_time": "now"},
        {"span_id": "x" * 300},
    ],
    ids=lambda said: str(said)[:60],
)
def test_what_cannot_be_kept(api: Judged, said: dict[str, Any]) -> None:
    good = {"assessment_name": "q", "source": SOURCE, "feedback": {"value": True}}
    answer = api.ask("POST", f"traces/{api.trace}/assessments", assessment=good | said)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert api.kept() == []


def test_an_id_is_given_once(api: Judged) -> None:
    said = {"feedback": {"value": 1}, "assessment_id": "a-mine" + api.trace}
    api.judge(**said)
    again = api.ask(
        "POST", f"traces/{api.trace}/assessments", assessment={"assessment_name": "q", "source": SOURCE, **said}
    )
    assert (again.status_code, "already" in again.json()["message"]) == (400, True)
