"""Every dialect of a caller on every dialect of an upstream: what is said arrives, and so do failures.

Whole and streamed. One server; each of its routes has fakes that speak one dialect only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import StartServer
from tests.services.callers import Caller, calling
from tests.services.gateway import usage_of
from tests.services.promptyard import Server

SPOKEN = ("chat", "messages", "responses")
PIECES = ["One ", "two, ", "three ", "four."]
CALLS = [("weather", {"city": "Oslo", "unit": "C"}), ("weather", {"city": "Rome", "unit": None})]
STEPS: Mapping[str, Mapping[str, Any]] = {
    "echo": {},
    "tools": {"answer": "Let me look.", "tool_calls": [{"name": name, "arguments": given} for name, given in CALLS]},
    "think": {"reasoning": "Let me see, twice.", "answer": "Four it is."},
    "seal": {"reasoning": "Let me see, twice.", "signature": "c2VhbGVk", "answer": "Four it is."},
    "short": {"answer": "One two", "finish_reason": "length"},
    "limit": {"error": {"status": 429, "message": "slow down", "code": "rate_limit_exceeded", "retry_after": 3}},
    "wrong": {"error": {"status": 400, "message": "no such voice", "type": "invalid_request_error"}},
    "down": {"error": {"status": 503, "message": "all of us are out"}},
    "page": {"html": True},
    "cut": {"chunks": PIECES, "cut": 2},
    "stall": {"stall": 0},
    "count": {"chunks": PIECES},
    "uncounted": {"chunks": PIECES, "cut": 2, "no_usage": True},
    "cut-thought": {"reasoning": "Let me see.", "chunks": PIECES, "cut": 4},
    "cut-tools": {"answer": "Look:", "tool_calls": [{"name": "weather"}, {"name": "weather"}], "cut": 2},
    **{f"cut{after}": {"chunks": PIECES, "cut": after} for after in (1, 2, 3, 4)},
}
#: Where there is another deployment to ask: none of them rests.
PATIENT = {"cooldown": {"failures": 1000}, "strategy": "priority"}


def route(*deployments: tuple[str, str], **fields: Any) -> dict[str, Any]:
    models = [{"provider": f"{spoken}-{step}", "model": "m"} for spoken, step in deployments]
    return {"deployments": models, **(PATIENT if len(models) > 1 else {}), **fields}


def configuration() -> str:
    providers = {
        f"{spoken}-{name}": {"type": "fake", "dialects": [spoken], "script": [step]}
        for spoken, (name, step) in product(SPOKEN, STEPS.items())
    }
    for spoken in SPOKEN:  # goes on after "One two,"
        rest = {"chunks": [" three ", "four."]}
        providers[f"{spoken}-rest"] = {"type": "fake", "dialects": [spoken], "script": [rest], "prefill": True}
    routes = {f"{spoken}-{name}": route((spoken, name)) for spoken, name in product(SPOKEN, STEPS)}
    for spoken, other in product(SPOKEN, SPOKEN):
        for after in (1, 2, 3, 4):
            routes[f"rescue-{spoken}-{other}-{after}"] = route((spoken, f"cut{after}"), (other, "count"), rescue=True)
        routes[f"begun-{spoken}-{other}"] = route((spoken, "cut2"), (other, "rest"), rescue=True)
        for broken in ("cut-thought", "cut-tools"):
            routes[f"{broken}-{spoken}-{other}"] = route((spoken, broken), (other, "count"), rescue=True)
        routes[f"late-{spoken}-{other}"] = route(
            (spoken, "stall"), (other, "echo"), timeouts={"first_token": 0.8, "total": 0.8}
        )
    for spoken in SPOKEN:
        fault = {"seed": 7, "cut": {"after": 2}, "slow": {"seconds": 0.001}}
        routes[f"fault-{spoken}"] = route((spoken, "count"), fault=fault)
        routes[f"fault-limit-{spoken}"] = route(
            (spoken, "count"), fault={"error": {"rate": 1, "status": 429, "retry_after": 3}}
        )
    return json.dumps({"providers": providers, "routes": routes})


@pytest.fixture(scope="module")
def served(start_servers: StartServer) -> Server:
    return start_servers(configuration())


@pytest.fixture(scope="module")
def callers(served: Server) -> Iterator[dict[str, Caller]]:
    with calling(served) as each:
        yield each


@pytest.fixture(params=SPOKEN)
def caller(request: pytest.FixtureRequest, callers: dict[str, Caller]) -> Caller:
    return callers[request.param]


every_upstream = pytest.mark.parametrize("upstream", SPOKEN)
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
ENDED = {"chat": "stop", "messages": "end_turn", "responses": "completed"}
CALLED = {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}
CUT_SHORT = {"chat": "length", "messages": "max_tokens", "responses": "incomplete"}


def dialect(caller: Caller) -> str:
    return type(caller).__name__.lower()


@every_upstream
@whole_and_streamed
def test_text(caller: Caller, upstream: str, stream: bool) -> None:
    told = caller.ask(f"{upstream}-echo", stream=stream)
    assert (told.text, told.reason, told.tokens) == ("echo: hello my friend", ENDED[dialect(caller)], (3, 4))
    assert (told.calls, told.reasoning) == ([], "")


@every_upstream
def test_why_it_ended(caller: Caller, upstream: str) -> None:
    assert caller.pieces(f"{upstream}-short") == ["One ", "two", f"[{CUT_SHORT[dialect(caller)]}]"]
    assert caller.pieces(f"{upstream}-count") == [*PIECES, f"[{ENDED[dialect(caller)]}]"]


@every_upstream
@whole_and_streamed
def test_tools(caller: Caller, upstream: str, stream: bool) -> None:
    told = caller.ask(f"{upstream}-tools", stream=stream, tools="auto")
    assert (told.text, told.calls, told.reason) == ("Let me look.", CALLS, CALLED[dialect(caller)])
    assert len(set(told.ids)) == 2
    answered = caller.send_back(f"{upstream}-echo", told, ["rain in Oslo", "sun in Rome"], stream=stream)
    assert answered.text == "echo: sun in Rome"


@every_upstream
@whole_and_streamed
def test_a_tools_schema_arrives(caller: Caller, upstream: str, stream: bool) -> None:
    told = caller.ask(f"{upstream}-echo", stream=stream, tools="required")
    assert told.calls == [("weather", {"city": "text", "unit": "C"})]  # the least that the schema takes


@every_upstream
@whole_and_streamed
def test_a_structured_answer(caller: Caller, upstream: str, stream: bool) -> None:
    told = caller.ask(f"{upstream}-echo", stream=stream, form=True)
    assert told.parsed is not None
    assert told.parsed.model_dump() == {"city": "text", "days": [], "sure": False}


@every_upstream
@whole_and_streamed
@pytest.mark.parametrize("step", ["think", "seal"])
def test_reasoning(caller: Caller, upstream: str, stream: bool, step: str) -> None:
    told = caller.ask(f"{upstream}-{step}", stream=stream)
    assert (told.reasoning, told.text) == ("Let me see, twice.", "Four it is.")
    sealed = step == "seal" and upstream != "chat"  # chat has no word for a seal
    assert told.signature == ("c2VhbGVk" if sealed else "")
    assert told.tokens == (3, 7)


@every_upstream
@whole_and_streamed
@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ("limit", 429, "slow down"),
        ("wrong", 400, "no such voice"),
        ("down", 503, "all of us are out"),
        ("page", 503, "answered HTTP 503"),
        ("fault-limit", 429, "injected by this route's fault"),
    ],
)
def test_an_error_before_the_first_byte(
    caller: Caller, upstream: str, stream: bool, step: str, status: int, said: str
) -> None:
    model = f"{step}-{upstream}" if step.startswith("fault") else f"{upstream}-{step}"
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError), match=said) as refused:
        caller.ask(model, stream=stream)
    answer: Any = refused.value.response
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("3" if status == 429 else None)
    assert answer.headers.get("x-promptyard-fault") == ("error" if step.startswith("fault") else None)
    assert set(answer.json()) == ({"type", "error"} if dialect(caller) == "messages" else {"error"})


@every_upstream
@pytest.mark.parametrize("model", ["{}-cut", "fault-{}"])
def test_a_stream_that_breaks_is_an_error_and_no_end(caller: Caller, upstream: str, model: str) -> None:
    with pytest.raises((openai.APIError, anthropic.APIError), match="broke"):
        caller.pieces(model.format(upstream))
    with pytest.raises((openai.APIError, anthropic.APIError), match="broke"):
        caller.ask(model.format(upstream), stream=True)


@every_upstream
@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("other", SPOKEN)
def test_a_stream_cut_at_any_chunk_goes_on_elsewhere(caller: Caller, upstream: str, after: int, other: str) -> None:
    model = f"rescue-{upstream}-{other}-{after}"
    pieces = caller.pieces(model)
    assert "".join(pieces[:-1]) == "".join(PIECES)
    assert pieces[-1] == f"[{ENDED[dialect(caller)]}]"


@every_upstream
@pytest.mark.parametrize("other", SPOKEN)
def test_who_takes_a_beginning_goes_on_from_it(caller: Caller, upstream: str, other: str) -> None:
    told = caller.ask(f"begun-{upstream}-{other}", stream=True)
    assert (told.text, told.reason) == ("".join(PIECES), ENDED[dialect(caller)])


@every_upstream
@pytest.mark.parametrize("broken", ["cut-thought", "cut-tools"])
def test_what_is_more_than_text_is_never_gone_on_with(caller: Caller, upstream: str, broken: str) -> None:
    for other in SPOKEN:
        with pytest.raises((openai.APIError, anthropic.APIError), match="broke"):
            caller.ask(f"{broken}-{upstream}-{other}", stream=True)


@every_upstream
@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
def test_what_a_cut_stream_has_read_is_recorded(served: Server, upstream: str, path: str) -> None:
    said = [{"role": "user", "content": "one two three four five"}]
    for step in ("cut", "uncounted"):
        asked = {"model": f"{upstream}-{step}", "messages": said, "input": said, "stream": True, "max_tokens": 9}
        asked.pop("input" if path != "responses" else "messages")
        asked.pop("max_tokens" if path == "responses" else "-", None)
        with served.client() as http:
            record = usage_of(served, http.post(f"/v1/{path}", json=asked))
        assert (record["status"], record["estimated"]) == (502, True)
        assert record["input_tokens"] >= 3
        assert record["output_tokens"] >= 2


def test_one_that_is_silent_is_left_for_the_next(callers: dict[str, Caller]) -> None:
    asked = list(product(callers.values(), SPOKEN, SPOKEN, [False, True]))
    with ThreadPoolExecutor(len(asked)) as pool:
        told = list(pool.map(lambda one: one[0].ask(f"late-{one[1]}-{one[2]}", stream=one[3]).text, asked))
    assert set(told) == {"echo: hello my friend"}


def test_a_route_that_injects_faults_says_so(served: Server) -> None:
    names = ", ".join(f"{kind}-{spoken}" for spoken in SPOKEN for kind in ("fault", "fault-limit"))
    assert f"FAULTS    injected on purpose: {names}" in served.stdout()
    assert "Route 'fault-chat' injects faults on purpose" in served.stderr()
