"""The search of traces, on both databases: every kind of clause, orders, pages, and what is no filter."""

from __future__ import annotations

import httpx
import pytest

from tests.promptlab.tracing import V2, Client, new_id, span


@pytest.fixture
def api(http: httpx.Client) -> Client:
    return Client(http)


def found_traces(api: Client) -> dict[str, str]:
    """Three traces to be found, by their names."""
    made = {name: new_id() for name in ("a", "b", "c")}
    for number, (name, trace) in enumerate(made.items()):
        api.start(
            trace,
            request_time=f"2026-11-23T13:09:4{number}Z",
            execution_duration=f"{number}.25s" if number else None,
            state="ERROR" if name == "b" else "OK",
            client_request_id=f"req-{name}",
            tags={"mlflow.traceName": name, **({"team": "Blue sea"} if name == "a" else {})},
            trace_metadata={"mlflow.trace.session": "s"} if name != "a" else {},
        )
    root = span(made["a"], "plan", mlflow__spanType="AGENT", model="gpt-x", n=2, flag=True, note="grüße ✓")
    api.send(root, span(made["a"], "look up", root["spanId"], mlflow__spanType="TOOL", **{"a b": 1.5}))
    api.send(span(made["b"], "plan", mlflow__spanType="TOOL", model="other"))
    for trace, name, score in (("a", "good", True), ("b", "good", False), ("a", "score", 0.9), ("b", "score", 2)):
        source = {"source_type": "CODE", "source_id": "t"}
        judged = {"assessment_name": name, "source": source, "feedback": {"value": score}}
        api("POST", f"traces/{made[trace]}/assessments", assessment=judged)
    expected = {"assessment_name": "wanted", "source": source, "expectation": {"value": "yes, please"}}
    api("POST", f"traces/{made['c']}/assessments", assessment=expected)
    # Of a whole session: it holds for b, which is of that session too.
    whole = {"assessment_name": "calm", "source": source, "feedback": {"value": "very"}}
    api("POST", f"traces/{made['c']}/assessments", assessment=whole | {"metadata": {"mlflow.trace.session": "s"}})
    api("POST", "traces/link-prompts", V2, trace_id=made["c"], prompt_versions=[{"name": "greet", "version": "2"}])
    return made


FOUND = {
    "": "cba",
    "trace.status = 'ERROR'": "b",
    "status IN ('OK', 'IN_PROGRESS')": "ca",
    "name NOT IN ('a', 'b')": "c",
    "attributes.name LIKE 'A'": "",
    "name ILIKE 'A'": "a",
    "name RLIKE '^[ab]$'": "ba",
    "client_request_id = 'req-b'": "b",
    "timestamp_ms > 1795439380000": "cb",
    "execution_time < 1500": "b",
    "end_time_ms >= 1795439384250": "c",
    "tags.team = 'Blue sea'": "a",
    "tag.team RLIKE 'B.*a'": "a",
    "tags.team IS NULL": "cb",
    "tags.team IS NOT NULL AND status = 'OK'": "a",
    "metadata.`mlflow.trace.session` = 's'": "cb",
    "request_metadata.`mlflow.trace.session` RLIKE 'x'": "",
    "span.name = 'plan'": "ba",
    "span.name = 'plan' AND span.type = 'TOOL'": "b",
    "span.type IN ('TOOL')": "ba",
    "span.status = 'OK'": "ba",
    "span.name RLIKE 'up$'": "a",
    "span.attributes.model = 'gpt-x'": "a",
    "span.attributes.model LIKE '%t%' AND span.attributes.n = '2'": "a",
    "span.attributes.flag = 'true'": "a",
    "span.attributes.`a b` = '1.5'": "a",
    "span.attributes.model RLIKE 'gpt|oth'": "ba",
    "span.attributes.none != 'x'": "",
    "span.content LIKE '%grüße%'": "a",
    "trace.text ILIKE '%GPT-X%'": "a",
    "feedback.good = 'true'": "a",
    "feedback.good != 'true'": "b",
    "feedback.score > 1": "b",
    "feedback.score = 2": "b",
    "feedback.score >= 0.9": "ba",
    "feedback.good IS NULL": "c",
    "expectation.wanted = 'yes, please'": "c",
    "expectation.wanted LIKE '%please%'": "c",
    "expectation.wanted RLIKE '^.yes'": "c",
    "expectation.good IS NOT NULL": "",
    "feedback.calm = 'very'": "cb",
    "feedback.calm != 'very'": "",
    "feedback.calm IS NULL": "a",
    "feedback.calm IS NOT NULL AND status = 'OK'": "c",
    "prompt = 'greet/2'": "c",
    "prompt = 'greet/1'": "",
    "issue.id = 'i'": "",
}
ORDERED = {
    "timestamp_ms ASC": "abc",
    "execution_time DESC": "acb",
    "execution_time": "bca",
    "end_time ASC": "bac",
    "name DESC": "cba",
    "status": "bca",
    "tags.team": "acb",
    "metadata.`mlflow.trace.session` DESC": "cba",
    "attributes.experiment_id": "cba",
}
REFUSED = {
    "span.content = 'x'": "span.content comparator '=' not one of",
    "span.what = 'x'": "Invalid span attribute 'what'",
    "span.attributes.`` = 'x'": "cannot be empty",
    "issue.name = 'x'": "Supported attributes: id",
    "issue.id != 'x'": "Invalid comparator '!='",
    "prompt LIKE 'x/1'": "Only '=' is supported",
    "prompt = 'x'": 'Expected format: prompt = "name/version"',
    "feedback.a > 'x'": "Expected a numeric value for feedback",
    "feedback.a LIKE 5": "Expected a quoted string value for feedback",
    "name RLIKE '('": "Invalid regular expression '('",
    "name RLIKE '(?=a)'": "Invalid regular expression",
    "status IS NULL": "IS NULL / IS NOT NULL is only supported",
    "timestamp_ms = 'x'": "Expected numeric value type",
    "nothing = 'x'": "Invalid attribute key 'nothing'",
    "other.x = 'x'": "Invalid entity type 'other'",
    "metadata.x IN ('a')": "Invalid comparator 'IN'",
}


def test_searches(api: Client) -> None:
    made = found_traces(api)
    names = {trace: name for name, trace in made.items()}
    for text, expected in FOUND.items():
        assert "".join(names[one] for one in api.search(text)) == expected, text
    for order, expected in ORDERED.items():
        assert "".join(names[one] for one in api.search(order_by=[order])) == expected, order
    assert api.search(f"request_id = '{made['b']}'") == [made["b"]]
    locations = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": api.experiment}}]
    for text, says in REFUSED.items():
        answer = api.ask("POST", "traces/search", locations=locations, filter=text)
        assert (answer.status_code, says in answer.json()["message"]) == (400, True), (text, answer.text)
    for fields in (
        {"max_results": 501},
        {"max_results": 0},
        {"page_token": "x"},
        {"order_by": ["feedback.x"]},
        {"locations": [{}]},
        {"locations": []},
    ):
        answer = api.ask("POST", "traces/search", **{"locations": locations, **fields})
        assert answer.status_code == (200 if fields == {"locations": []} else 400), (fields, answer.text)
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = api("POST", "traces/search", locations=locations, max_results=1, order_by=["execution_time"], **token)
        seen += [names[one["trace_id"]] for one in page["traces"]]
        if "next_page_token" not in page:
            break
        token = {"page_token": page["next_page_token"]}
    assert "".join(seen) == "bca"


def test_an_expression_that_would_take_for_ever_does_not(api: Client) -> None:
    trace = new_id()
    api.start(trace, tags={"long": "a" * 8000})
    assert api.search("tags.long RLIKE '(a+)+$b'") == []
    assert api.search("tags.long RLIKE '(a|aa)+$'") == [trace]
