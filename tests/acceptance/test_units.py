"""Images, speech, transcriptions and reranks under a budget: held by what is asked, paid by what was answered."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.acceptance.test_tenants import made
from tests.conftest import StartServer
from tests.services.admin import refusal
from tests.services.gateway import error_of, usage_of
from tests.services.promptyard import Server

PRICES = """\
prices:
  drawn: {image: 0.04}
  spoken: {character: 0.001}
  heard: {second: 0.01}
  ranked: {query: 0.002}
  odd: {query: 0.002}
"""
ROUTES = """\
providers:
  fake: {type: fake}
  slow: {type: fake, script: [{stall: 0}]}
routes:
  images: {task: images, deployments: [{provider: fake, model: drawn}]}
  slow: {task: images, deployments: [{provider: slow, model: drawn}]}
  speech: {task: speech, deployments: [{provider: fake, model: spoken}]}
  transcriptions: {task: transcriptions, deployments: [{provider: fake, model: heard}]}
  rerank: {task: rerank, deployments: [{provider: fake, model: ranked}]}
  odd: {deployments: [{provider: fake, model: odd}]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("priced")
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES)
    servers = StartServer(lambda: tmp_path_factory.mktemp("server"))
    try:
        yield servers(home / "routes.yaml")
    finally:
        servers.stop()


def sound(seconds: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(8000)
        written.writeframes(b"\0\0" * 8000 * seconds)
    return file.getvalue()


Ask = Callable[[httpx.Client], httpx.Response]


def post(path: str, **body: object) -> Ask:
    return lambda http: http.post(f"/v1/{path}", json=body)


def transcribe(form: str) -> Ask:
    file = {"file": ("a.wav", sound(5), "audio/wav")}
    said = {"model": "transcriptions", "response_format": form}
    return lambda http: http.post("/v1/audio/transcriptions", data=said, files=file)


IMAGE = post("images/generations", model="images", prompt="a cat", n=2)
SPEECH = post("audio/speech", model="speech", input="Zoë!" * 10, voice="alloy")
RERANK = post("rerank", model="rerank", query="a", documents=["b"] * 150)


@pytest.mark.parametrize(
    ("ask", "budget", "cost", "estimated"),
    [
        (IMAGE, 0.09, 0.08, False),
        (SPEECH, 0.05, 0.04, False),
        (transcribe("verbose_json"), 0.055, None, False),
        (transcribe("text"), 0.06, 0.05, True),
        (RERANK, 0.005, 0.004, True),
    ],
    ids=["images", "speech", "transcriptions", "transcriptions as text", "rerank"],
)
def test_a_task_is_paid_for_by_its_unit(
    server: Server, ask: Ask, budget: float, cost: float | None, estimated: bool
) -> None:
    with server.client() as admin:
        key = made(admin, "keys", max_budget=budget)
    with server.client(key["key"]) as http:
        answer = ask(http)
        assert answer.status_code == 200, answer.text
        record = usage_of(server, answer)
        wanted = cost if cost is not None else answer.json()["duration"] * 0.01
        assert record["cost_usd"] == pytest.approx(wanted)
        assert (record["priced"], record["estimated"]) == (True, estimated)
        again = ask(http)
        assert (again.status_code, error_of(again)["code"]) == (429, "insufficient_quota")


def test_more_than_a_budget_is_refused_before(server: Server) -> None:
    with server.client() as admin:
        key = made(admin, "keys", max_budget=0.07)
    with server.client(key["key"]) as http:
        assert refusal(IMAGE(http), 400)["code"] == "request_exceeds_limit"
        # What knows the price of a query alone does not know that of a conversation.
        chat = {"model": "odd", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
        assert refusal(http.post("/v1/chat/completions", json=chat), 400)["code"] == "unpriced_model"


def test_whoever_leaves_pays_for_the_image_that_was_asked_for(server: Server) -> None:
    with server.client() as admin:
        key = made(admin, "keys", max_budget=0.05)
    with server.client(key["key"]) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/images/generations", json={"model": "slow", "prompt": "a cat"}, timeout=0.5)
        answer = IMAGE(http)
        assert refusal(answer, 400)["code"] == "request_exceeds_limit"  # two are more than there is
        one = post("images/generations", model="images", prompt="a cat")(http)
        assert error_of(one)["code"] == "insufficient_quota"
