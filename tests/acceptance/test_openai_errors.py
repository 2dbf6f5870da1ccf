"""What goes wrong is one of the official client's typed errors, and every answer has an id that log and record know."""

from __future__ import annotations

import base64

import openai
import pytest

from tests.services.gateway import CREDENTIAL, MESSAGES, ask, client, error_of, make_key, new_key, usage_of
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, until, whole


@pytest.mark.parametrize("secret", ["sk-py-unknown", "nonsense", "Bearer", "ü"])
def test_an_unknown_key_is_an_authentication_error(gateway: Server, secret: str) -> None:
    with gateway.client() as http:
        answer = http.get("/v1/models", headers={b"authorization": f"Bearer {secret}".encode()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"]
        assert error_of(answer)["code"] == "invalid_api_key"
        assert secret not in answer.text
    if secret.isascii():
        with client(gateway, secret) as ai, pytest.raises(openai.AuthenticationError) as caught:
            ai.chat.completions.create(model="up", messages=MESSAGES)
        assert caught.value.request_id in gateway.stderr()


def test_no_key_at_all(gateway: Server) -> None:
    with gateway.client() as http:
        del http.headers["authorization"]
        answer = ask(http, "up")
    assert answer.status_code == 401
    assert "x-api-key" in error_of(answer)["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_every_way_to_send_a_key(gateway: Server) -> None:
    secret = make_key(gateway)
    basic = base64.b64encode(f"whoever:{secret}".encode()).decode()
    with gateway.client() as http:
        del http.headers["authorization"]
        for headers in (
            {"authorization": f"Bearer {secret}"},
            {"authorization": f"bearer  {secret}"},
            {"x-api-key": secret},
            {"authorization": f"Basic {basic}"},
        ):
            assert http.get("/v1/models", headers=headers).status_code == 200, headers
        assert http.get(f"/v1/models?api_key={secret}").status_code == 401
        assert http.get("/v1/models", headers={"authorization": secret}).status_code == 401


def test_a_revoked_key_and_an_expired_one(gateway: Server) -> None:
    revoked, short = new_key(gateway), make_key(gateway, expires_in=0.5)
    with client(gateway, revoked["key"]) as ai:
        assert ai.models.list().data
        with gateway.client() as admin:
            assert admin.delete(f"/admin/keys/{revoked['id']}").status_code == 200
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            ai.models.list()

    def expired() -> bool:
        with client(gateway, short) as ai:
            try:
                return not ai.models.list()
            except openai.AuthenticationError as error:
                return "expired" in str(error)

    until(expired)


def test_what_a_key_may_not_do_is_a_permission_error(gateway: Server) -> None:
    with (
        client(gateway, make_key(gateway, routes=["other"])) as ai,
        pytest.raises(openai.PermissionDeniedError, match=r"may not call the model 'up'.*other") as caught,
    ):
        ai.chat.completions.create(model="up", messages=MESSAGES)
    record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["error"], record["input_tokens"]) == (403, "permission_denied", 0)
    with (
        client(gateway, make_key(gateway, scopes=["tracking"])) as ai,
        pytest.raises(openai.PermissionDeniedError, match="no scope 'inference'"),
    ):
        ai.chat.completions.create(model="up", messages=MESSAGES)


def test_an_unknown_model_names_those_that_can_be_called(gateway: Server) -> None:
    with client(gateway, make_key(gateway, routes=["other", "embed"])) as ai:
        with pytest.raises(openai.NotFoundError, match=r"'gpt-5' does not exist here.*embed, other\.") as caught:
            ai.chat.completions.create(model="gpt-5", messages=MESSAGES)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["error"]) == (404, "model_not_found")
    with client(gateway, make_key(gateway, routes=[])) as ai:
        assert ai.models.list().data == []
        with pytest.raises(openai.NotFoundError, match="no model this key may call"):
            ai.chat.completions.create(model="gpt-5", messages=MESSAGES)


def test_a_bad_request_is_a_bad_request_error(gateway: Server) -> None:
    with client(gateway) as ai:
        with pytest.raises(openai.BadRequestError, match="messages"):
            ai.chat.completions.create(model="up", messages=[])
        with pytest.raises(openai.BadRequestError, match="serves embeddings"):
            ai.chat.completions.create(model="embed", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="serves chat"):
            ai.embeddings.create(model="up", input="x")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_bad_request_passes_with_its_body(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    body = b'{"error": {"message": "too long by 3", "type": "invalid_request_error", "param": "messages", "code": "c"}}'
    upstream.then(whole(body, 400))
    with gateway.client() as http:
        answer = ask(http, "up", stream=streamed)
    assert (answer.status_code, answer.content) == (400, body)
    with client(gateway) as ai, pytest.raises(openai.BadRequestError, match="too long by 3") as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    record = usage_of(gateway, caught.value.request_id)
    assert (record["status"], record["input_tokens"], record["cost_usd"]) == (400, 0, 0)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_429_keeps_its_retry_after(gateway: Server, upstream: Upstream, streamed: bool) -> None:
    body = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None}}
    upstream.then(whole(body, 429, retry_after="7"))
    with client(gateway) as ai, pytest.raises(openai.RateLimitError, match="slow down") as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        (b'{"detail": "model is asleep"}', "HTTP 422: model is asleep"),
        (b"<html>422</html>", "HTTP 422."),
        (b"", "HTTP 422."),
        (b"[]", "HTTP 422."),
    ],
)
def test_an_error_in_another_shape_is_told_in_openais(
    gateway: Server, upstream: Upstream, detail: bytes, said: str
) -> None:
    upstream.then(whole(detail, 422))
    with client(gateway) as ai, pytest.raises(openai.UnprocessableEntityError, match=said) as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES)
    error_of(caught.value.response)


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstream_that_refuses_our_credential_is_a_502_that_leaks_nothing(
    gateway: Server, upstream: Upstream, status: int, streamed: bool
) -> None:
    upstream.then(whole({"error": {"message": f"Incorrect API key provided: {CREDENTIAL}"}}, status))
    with client(gateway) as ai, pytest.raises(openai.InternalServerError) as caught:
        ai.chat.completions.create(model="up", messages=MESSAGES, stream=streamed)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_refused_credential"
    assert CREDENTIAL not in caught.value.response.text + gateway.stderr()


def test_every_answer_has_a_request_id_that_log_and_record_know(gateway: Server, upstream: Upstream) -> None:
    upstream.then(whole(chat()))
    with gateway.client() as http:
        answers = {
            200: ask(http, "up"),
            404: ask(http, "nope"),
            400: ask(http, "up", messages=5),
            405: http.get("/v1/chat/completions"),
            415: http.post("/v1/chat/completions", content=b"x", headers={"content-type": "text/plain"}),
        }
        unknown = http.post("/v1/nothing/here", json={})
        assert unknown.status_code == 404
        listing = http.get("/v1/models")
    ids = set()
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        ids.add(answer.headers["x-request-id"])
    ids |= {unknown.headers["x-request-id"], listing.headers["x-request-id"]}
    assert len(ids) == 7
    for answer in (*answers.values(), unknown):
        request_id = answer.headers["x-request-id"]
        until(lambda request_id=request_id: gateway.stderr().count(request_id) == 1)
    for status in (200, 404):
        assert usage_of(gateway, answers[status])["request_id"] == answers[status].headers["x-request-id"]
    assert "Traceback" not in gateway.stderr()
