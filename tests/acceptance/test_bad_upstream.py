"""An upstream that sends what is no answer is a 502 in words, and holds nothing."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.services.gateway import (
    PATH,
    ask,
    connected,
    error_of,
    sockets,
)
from tests.services.promptyard import Server
from tests.services.upstream import Upstream, chat, hang_up, head, raw, until, whole

pytestmark = pytest.mark.usefixtures("goes_on")

NOT_ANSWERS: dict[str, tuple[Any, str]] = {
    "html": (whole(b"<html>hi</html>", kind="text/html"), "text/html"),
    "half a json": (whole(b'{"choices": ['), "JSON object"),
    "a list": (whole(b"[]"), "JSON object"),
    "nothing": (whole(b""), "JSON object"),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"), "JSON object"),
    "binary": (whole(bytes(range(256))), "JSON object"),
    "hangs up": (hang_up, "broke the connection off"),
    "garbage": (raw(b"\x00\x01garbage\r\n\r\n"), "The provider "),
    "half a head": (raw(b"HTTP/1.1 200 OK\r\nconten"), "broke the connection off"),
    "half a body": (raw(head(length=1000, kind="application/json") + b'{"choices": []}'), "broke the connection off"),
    "half a chunk": (raw(head(kind="application/json") + b"ff\r\n{}"), "broke the connection off"),
    "bad chunk": (raw(head(kind="application/json") + b"zz\r\n{}\r\n0\r\n\r\n"), "The provider "),
    "redirect": (whole(b"", 307, location="http://127.0.0.1:1/"), "redirect"),
    "not modified": (whole(b"", 304), ""),
    "status 999": (whole(b'{"error": {"message": "x"}}', 999), "999"),
    "header flood": (raw(head(length=2, kind="application/json", x_flood="y" * 1_000_000) + b"{}"), ""),
    "compressed all the same": (whole(gzip.compress(b"{}"), content_encoding="gzip"), "JSON object"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", NOT_ANSWERS)
def test_an_upstream_that_does_not_answer_is_a_502(
    small: Server, upstream: Upstream, name: str, streamed: bool
) -> None:
    bad, said = NOT_ANSWERS[name]
    upstream.then(bad)
    with small.client() as http:
        answer = ask(http, "up", stream=streamed)
        assert answer.status_code == 502, answer.text
        error = error_of(answer)
        assert error["type"] == "upstream_error"
        assert streamed or said in error["message"]
        assert str(upstream.port) not in answer.text
        upstream.then(whole(chat()))
        assert ask(http, "up").status_code == 200
    assert len(upstream.asked) == 1


def test_a_fake_that_answers_nonsense_is_told_and_lets_go(small: Server) -> None:
    with small.client() as http:
        assert [ask(http, "broken").status_code for _ in range(8)] == [502, 502, 502, 503] * 2


def test_nothing_is_held_after_a_storm(small: Server, upstream: Upstream) -> None:
    upstream.then(*(bad for bad, _ in NOT_ANSWERS.values()), hang_up)
    before = sockets(small)
    with small.client() as http:
        for _ in range(30):
            ask(http, "up")
            ask(http, "up", stream=True)
            http.post(PATH, content=b"{", headers={"content-type": "application/json"})
    for _ in range(30):
        with connected(small) as sock:
            sock.sendall(b"\x00garbage")
    until(lambda: sockets(small) <= before + 3)
    upstream.then(whole(chat()))
    with small.client() as http:
        assert ask(http, "up").status_code == 200
