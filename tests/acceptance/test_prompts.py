"""Registered prompts are models: asked by the official clients, filled in, allowed by keys, and moved at once."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.services.gateway import client, error_of, make_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import DONE, Upstream, chat, delta, stream, until, whole

REGISTRY = "/api/2.0/mlflow"
SYSTEM = {"role": "system", "content": "Be {{ how }}."}
FOLLOW: Any = [{"role": "user", "content": "Why?"}]
IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}

Register = Callable[..., int]


@pytest.fixture(scope="module")
def register(gateway: Server) -> Iterator[Register]:
    """Registers a version of a prompt as MLflow's client does; its number."""
    with gateway.client() as http:

        def add(name: str, template: Any, *, aliases: tuple[str, ...] = (), answer: Any = None, **config: Any) -> int:
            http.post(f"{REGISTRY}/registered-models/create", json={"name": name, "tags": [IS_PROMPT]})
            kind = "text" if isinstance(template, str) else "chat"
            tags = {
                "mlflow.prompt.text": template if kind == "text" else json.dumps(template),
                "_mlflow_prompt_type": kind,
                **({"_mlflow_prompt_model_config": json.dumps(config)} if config else {}),
                **({"_mlflow_prompt_response_format": json.dumps(answer)} if answer else {}),
            }
            own = [IS_PROMPT, *({"key": key, "value": value} for key, value in tags.items())]
            made = http.post(
                f"{REGISTRY}/model-versions/create", json={"name": name, "source": "dummy-source", "tags": own}
            )
            version = made.json()["model_version"]["version"]
            for alias in aliases:
                move(gateway, name, alias, version)
            return int(version)

        yield add


def move(server: Server, name: str, alias: str, version: int | str) -> None:
    with server.client() as http:
        named = {"name": name, "alias": alias, "version": str(version)}
        assert http.post(f"{REGISTRY}/registered-models/alias", json=named).status_code == 200


def test_a_prompt_is_asked_by_openais_client(gateway: Server, upstream: Upstream, register: Register) -> None:
    answer_format = {"type": "object", "properties": {"text": {"type": "string"}}}
    register(
        "first", [SYSTEM, {"role": "user", "content": "Say {{ what }}."}], aliases=("production",),
        answer=answer_format, model_name="up", temperature=0.2, max_tokens=50, stop_sequences=["END"], seed=7,
    )  # fmt: skip
    upstream.then(whole(chat("Hello")))
    with client(gateway) as ai:
        raw = ai.chat.completions.with_raw_response.create(
            model="prompt:first",
            messages=FOLLOW,
            user="ann",
            extra_body={"variables": {"how": "brief", "what": "{{ how }}"}},
        )
    assert raw.parse().choices[0].message.content == "Hello"
    assert raw.headers["x-promptyard-prompt"] == "first/1"
    assert raw.headers["x-promptyard-deployment"] == "up/upstream-model"
    assert upstream.last.json == {
        "model": "upstream-model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say {{ how }}."},
            *FOLLOW,
        ],
        "temperature": 0.2,
        "max_tokens": 50,
        "stop": ["END"],
        "seed": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "first", "schema": answer_format}},
        "user": "ann",
    }
    record = usage_of(gateway, raw.headers["x-request-id"])
    assert (record["route"], record["status"], record["end_user"], record["prompt"]) == ("up", 200, "ann", "first/1")


def test_aliases_versions_and_streams(gateway: Server, upstream: Upstream, register: Register) -> None:
    register("many", "One {{x}}", aliases=("production",), model_name="up")
    register("many", "Two {{x}}", aliases=("candidate",), model_name="up")
    register("many", "Three {{x}}", model_name="up")
    with client(gateway) as ai:
        for model, version, text in [
            ("prompt:many", 1, "One a"),
            ("prompt:many@production", 1, "One a"),
            ("prompt:many@candidate", 2, "Two a"),
            ("prompt:many@latest", 3, "Three a"),
            ("prompt:many/2", 2, "Two a"),
        ]:
            upstream.then(stream(delta("Hi"), DONE))
            with ai.chat.completions.with_streaming_response.create(
                model=model, messages=[], stream=True, extra_body={"variables": {"x": "a"}}
            ) as streamed:
                assert streamed.headers["x-promptyard-prompt"] == f"many/{version}"
                assert "Hi" in "".join(streamed.iter_text())
            assert upstream.last.json["messages"] == [{"role": "user", "content": text}]


def test_jinja_is_rendered_in_its_sandbox(gateway: Server, upstream: Upstream, register: Register) -> None:
    text = "{% for x in xs %}- {{ x }}\n{% endfor %}{% if extra %}{{ extra }}{% endif %}"
    register("jinja", text, aliases=("production",), model_name="up")
    register("jinja", "{% if 1 %}{{ ''.__class__.__mro__ }}{% endif %}", aliases=("bad",), model_name="up")
    upstream.then(whole(chat()))
    with gateway.client() as http:
        asked = {"model": "prompt:jinja", "variables": {"xs": ["a", "{{ xs }}"]}}
        assert http.post("/v1/chat/completions", json=asked).status_code == 200
        assert upstream.last.json["messages"][0]["content"] == "- a\n- {{ xs }}\n"
        error = error_of(http.post("/v1/chat/completions", json={"model": "prompt:jinja@bad"}))
    assert (error["param"], error["code"]) == ("variables", "invalid_variables")
    assert "SecurityError" in error["message"]


def test_a_prompt_in_anthropics_and_openais_other_dialect(
    gateway: Server, upstream: Upstream, register: Register
) -> None:
    register("both", [SYSTEM, {"role": "user", "content": "{{q}}"}], aliases=("production",), model_name="up")
    register("both", [SYSTEM, {"role": "user", "content": "{{q}}"}], aliases=("capped",), model_name="up", max_tokens=9)
    wanted = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm?"}]
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.admin_key, max_retries=0) as claude:
        for model, most in (("prompt:both", 77), ("prompt:both@capped", 9)):
            upstream.then(whole(chat("Hello")))
            message = claude.messages.create(
                model=model, max_tokens=most, messages=FOLLOW, extra_body={"variables": {"how": "brief", "q": "Hm?"}}
            )
            assert message.content[0].text == "Hello"  # type: ignore[union-attr]
            sent = upstream.last.json
            assert (sent["messages"][:2], sent["max_completion_tokens"]) == (wanted, most)
            assert "Why?" in json.dumps(sent["messages"][1:])
        with pytest.raises(anthropic.BadRequestError, match="'system' is set by version 1 of the prompt 'both'"):
            claude.messages.create(
                model="prompt:both", max_tokens=9, messages=FOLLOW, system="Be rude.",
                extra_body={"variables": {"how": "brief", "q": "Hm?"}},
            )  # fmt: skip
    with client(gateway) as ai:
        upstream.then(whole(chat("Hello")))
        answer = ai.responses.create(
            model="prompt:both@capped", input="Why?", extra_body={"variables": {"how": "brief", "q": "Hm?"}}
        )
        assert answer.output_text == "Hello"
        said = [(one["role"], one["content"]) for one in upstream.last.json["messages"]]
        assert said[0][0] in ("system", "developer")
        assert "Hm?" in json.dumps(said)
        assert "Why?" in json.dumps(said[-1])


REFUSED: list[tuple[dict[str, Any], int, str, str, str]] = [
    ({"variables": {}}, 400, "variables", "invalid_variables", "no value for `a`, `b`"),
    ({"variables": {"a": 1}}, 400, "variables", "invalid_variables", "no value for `b`"),
    ({"variables": {"a": 1, "b": 2, "c": 3}}, 400, "variables", "invalid_variables", "`c` not in the template"),
    ({"variables": [1]}, 400, "variables", "invalid_request", "must be an object"),
    ({"variables": {"a": "x" * 1_000_001, "b": 1}}, 400, "variables", "invalid_variables", "Too long.*: a"),
    ({"temperature": 1}, 400, "temperature", "prompt_parameter_fixed", "'temperature' is set by version 1"),
    ({"max_completion_tokens": 99}, 400, "max_completion_tokens", "prompt_parameter_fixed", "'max_completion_tokens'"),
    ({"messages": "x"}, 400, "messages", "invalid_request", "a list of the messages that follow"),
    ({"messages": {"role": "user"}}, 400, "messages", "invalid_request", "a list of the messages that follow"),
    ({"messages": [1]}, 400, "messages[1]", "invalid_request", "must be an object"),
    ({"model": "prompt:refusing@nothing"}, 404, "model", "model_not_found", "has no alias 'nothing'; it has: 'produ"),
    ({"model": "prompt:refusing/9"}, 404, "model", "model_not_found", "has no version 9; its latest is 1"),
    ({"model": "prompt:refusing/x"}, 404, "model", "model_not_found", "Call a prompt as"),
    ({"model": "prompt:"}, 404, "model", "model_not_found", "Call a prompt as"),
    ({"model": "prompt:nobody"}, 404, "model", "model_not_found", "There is no prompt 'nobody'"),
    ({"model": "prompt:routeless"}, 400, "model", "prompt_without_route", "names no route"),
    ({"model": "prompt:astray"}, 404, "model", "model_not_found", "is for the model 'gpt-9', which is no route"),
    ({"model": "prompt:embedding"}, 400, "model", "wrong_task", "serves embeddings"),
    ({"model": "prompt:torn"}, 400, "model", "invalid_prompt", "not the JSON it should be"),
]


def test_what_cannot_be_asked_is_refused_by_name(gateway: Server, upstream: Upstream, register: Register) -> None:
    register("refusing", "{{a}} {{b}}", aliases=("production",), model_name="up", temperature=0, max_tokens=9)
    register("routeless", "x", aliases=("production",))
    register("astray", "x", aliases=("production",), model_name="gpt-9")
    register("embedding", "x", aliases=("production",), model_name="embed")
    register("torn", "x", aliases=("production",))
    with gateway.client() as http:
        torn = {"name": "torn", "version": "1", "key": "_mlflow_prompt_model_config", "value": "{"}
        http.post(f"{REGISTRY}/model-versions/set-tag", json=torn)
        upstream.then(whole(chat()))
        for fields, status, param, code, says in REFUSED:
            filled = {"variables": {"a": 1, "b": 2}} if "model" not in fields or "refusing" in fields["model"] else {}
            answer = http.post("/v1/chat/completions", json={"model": "prompt:refusing", **filled, **fields})
            assert answer.status_code == status, (fields, answer.text)
            error = error_of(answer)
            assert (error["param"], error["code"]) == (param, code), (fields, error)
            assert re.search(says, error["message"]), error
        wrong = http.post("/v1/embeddings", json={"model": "prompt:refusing", "input": "x"})
        assert error_of(wrong)["code"] == "wrong_task"
        record = usage_of(gateway, wrong)
        assert (record["status"], record["error"], record["route"]) == (400, "wrong_task", "")
    assert upstream.asked == []


def test_a_version_says_what_may_be_overridden(gateway: Server, upstream: Upstream, register: Register) -> None:
    register(
        "open", "x", aliases=("production",), model_name="up", temperature=0.1, max_tokens=9,
        overrides=["temperature", "max_tokens"],
    )  # fmt: skip
    upstream.then(whole(chat()))
    with gateway.client() as http:
        asked = {"model": "prompt:open", "temperature": 0.9, "max_completion_tokens": 20, "top_p": 0.5}
        assert http.post("/v1/chat/completions", json=asked).status_code == 200
    sent = upstream.last.json
    assert sent == {
        "model": "upstream-model",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.9,
        "max_completion_tokens": 20,
        "top_p": 0.5,
    }


def test_keys_are_given_prompts_by_pattern(gateway: Server, upstream: Upstream, register: Register) -> None:
    for name in ("team-a", "team-b"):
        register(name, "x", aliases=("production", "candidate"), model_name="up")
    upstream.then(whole(chat()))
    everything = {
        *("prompt:team-a", "prompt:team-a@candidate", "prompt:team-a/1"),
        *("prompt:team-b", "prompt:team-b@candidate", "prompt:team-b/1"),
    }
    for routes, denied, may in [
        (None, [], everything),
        (["*"], [], everything),
        (["up"], [], set()),
        (["prompt:*"], [], everything),
        (["prompt:team-a"], [], {"prompt:team-a", "prompt:team-a@candidate", "prompt:team-a/1"}),
        (["prompt:team-a@production"], [], {"prompt:team-a"}),
        (["prompt:*@production"], [], {"prompt:team-a", "prompt:team-b"}),
        (["prompt:*"], ["prompt:team-b", "prompt:*@candidate"], {"prompt:team-a", "prompt:team-a/1"}),
        (["prompt:*"], ["up"], set()),
    ]:
        key = make_key(gateway, routes=routes, denied_routes=denied)
        with gateway.client(key) as http:
            allowed = {
                model
                for model in everything
                if http.post("/v1/chat/completions", json={"model": model}).status_code == 200
            }
            assert allowed == may, (routes, denied)
            if denied != ["up"]:
                listed = {one["id"] for one in http.get("/v1/models").json()["data"] if "team-" in one["id"]}
                assert listed == {model for model in may if "/" not in model}
            refused = http.post("/v1/chat/completions", json={"model": "up", "messages": FOLLOW})
            assert (refused.status_code == 200) == (routes in (None, ["*"], ["up"]))


def test_a_prompt_is_listed_and_retrieved_as_a_model(gateway: Server, register: Register) -> None:
    register("listed", "x", aliases=("production", "candidate"), model_name="up")
    with client(gateway) as ai:
        names = until(lambda: [one.id for one in ai.models.list() if "listed" in one.id])
        assert names == ["prompt:listed@candidate", "prompt:listed"]
        assert ai.models.retrieve("prompt:listed").id == "prompt:listed"
        assert ai.models.retrieve("up").id == "up"
        with pytest.raises(openai.NotFoundError, match="has no alias 'gone'"):
            ai.models.retrieve("prompt:listed@gone")


def test_a_moved_alias_is_obeyed_within_a_second_under_load(
    gateway: Server, upstream: Upstream, register: Register
) -> None:
    for _ in range(2):
        register("moving", "x", model_name="other")
    move(gateway, "moving", "production", 1)
    moved: list[float] = []
    seen: list[tuple[float, str]] = []
    failed: list[int] = []
    over = threading.Event()

    def ask() -> None:
        with gateway.client() as http:
            while not over.is_set():
                began = time.monotonic()
                answer = http.post("/v1/chat/completions", json={"model": "prompt:moving"})
                if answer.status_code != 200:
                    failed.append(answer.status_code)
                seen.append((began, answer.headers.get("x-promptyard-prompt", "")))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.6)
    move(gateway, "moving", "production", 2)
    moved.append(time.monotonic())
    time.sleep(1.4)
    over.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {version for _, version in seen} == {"moving/1", "moving/2"}
    assert max(began for began, version in seen if version == "moving/1") - moved[0] < 1.0


def test_variables_of_ordinary_calls_go_through(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    with gateway.client() as http:
        asked = {"model": "up", "messages": FOLLOW, "variables": {"a": 1}}
        answer: httpx.Response = http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200
    assert "x-promptyard-prompt" not in answer.headers
    assert upstream.last.json["variables"] == {"a": 1}
