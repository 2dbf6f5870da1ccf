"""The admin API against a live server, on both databases: usage, who may see what, and every bad question."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page

from tests.services.admin import made, refusal, say
from tests.services.promptyard import Server

BAD_KEYS: dict[str, tuple[bytes, str | None]] = {
    "no body": (b"", None),
    "not JSON": (b"{", None),
    "cut JSON": (b'{"name": "a', None),
    "not UTF-8": (b'{"name": "\xff"}', None),
    "nested beyond use": (b"[" * 100_000, None),
    "a list": (b"[]", None),
    "null": (b"null", None),
    "no name": (b"{}", "name"),
    "an empty name": (b'{"name": ""}', "name"),
    "a blank name": (b'{"name": "  "}', "name"),
    "a long name": (b'{"name": "%s"}' % (b"x" * 201), "name"),
    "NUL in the name": (b'{"name": "a\\u0000b"}', "name"),
    "an escape in the name": (b'{"name": "a\\u001b[31mb"}', "name"),
    "half a letter": (b'{"name": "\\ud800"}', "name"),
    "a number as name": (b'{"name": 5}', "name"),
    "routes not a list": (b'{"name": "a", "routes": "chat"}', "routes"),
    "routes not of strings": (b'{"name": "a", "routes": ["chat", 1]}', "routes.1"),
    "an empty route": (b'{"name": "a", "routes": [""]}', "routes"),
    "no scope": (b'{"name": "a", "scopes": []}', "scopes"),
    "an unknown scope": (b'{"name": "a", "scopes": ["inference", "root"]}', "scopes.1"),
    "no money": (b'{"name": "a", "max_budget": 0}', "max_budget"),
    "money below a nano-dollar": (b'{"name": "a", "max_budget": 1e-10}', "max_budget"),
    "money without end": (b'{"name": "a", "max_budget": 1e400}', "max_budget"),
    "money as a text": (b'{"name": "a", "max_budget": "5"}', "max_budget"),
    "a duration without money": (b'{"name": "a", "budget_duration": "1d"}', "max_budget"),
    "a duration that is none": (b'{"name": "a", "max_budget": 1, "budget_duration": "1y"}', "budget_duration"),
    "rpm zero": (b'{"name": "a", "rpm": 0}', "rpm"),
    "rpm negative": (b'{"name": "a", "rpm": -1}', "rpm"),
    "rpm a fraction": (b'{"name": "a", "rpm": 1.5}', "rpm"),
    "rpm a string": (b'{"name": "a", "rpm": "5"}', "rpm"),
    "rpm true": (b'{"name": "a", "rpm": true}', "rpm"),
    "rpm huge": (b'{"name": "a", "rpm": 4294967296}', "rpm"),
    "rpm beyond any integer": (b'{"name": "a", "rpm": %s}' % (b"9" * 400), "rpm"),
    "tpm zero": (b'{"name": "a", "tpm": 0}', "tpm"),
    "concurrency zero": (b'{"name": "a", "concurrency": 0}', "concurrency"),
    "expires at once": (b'{"name": "a", "expires_in": 0}', "expires_in"),
    "expires in the past": (b'{"name": "a", "expires_in": -5}', "expires_in"),
    "expires never": (b'{"name": "a", "expires_in": Infinity}', "expires_in"),
    "expires not a number": (b'{"name": "a", "expires_in": NaN}', "expires_in"),
    "expires as on the command line": (b'{"name": "a", "expires_in": "30d"}', "expires_in"),
    "an unknown field": (b'{"name": "a", "kind_budget": 5}', "kind_budget"),
    "an id of one's own": (b'{"name": "a", "id": "key_mine"}', "id"),
}


@pytest.mark.parametrize(("body", "param"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused_by_field(admin: httpx.Client, body: bytes, param: str | None) -> None:
    before = admin.get("/admin/keys").json()
    error = refusal(admin.post("/admin/keys", content=body, headers={"content-type": "application/json"}), 400)
    assert error["param"] == param
    assert param is None or param.partition(".")[0] in error["message"].lower()
    assert admin.get("/admin/keys").json() == before


def test_a_body_beyond_any_key(admin: httpx.Client) -> None:
    large = b'{"name": "%s"}' % (b"x" * 2**21)

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(large), 2**16):
            yield large[start : start + 2**16]

    for content in (large, in_parts()):
        answer = admin.post("/admin/keys", content=content, headers={"content-type": "application/json"})
        assert refusal(answer, 413)["code"] == "request_too_large"
    assert admin.get("/admin/keys").status_code == 200


def test_a_body_that_does_not_say_it_is_json(admin: httpx.Client) -> None:
    refusal(admin.post("/admin/keys", content=b'{"name": "a"}', headers={"content-type": "text/plain"}), 400)


@pytest.mark.parametrize("key_id", ["nope", "%00", "%ff", "x" * 64, "admin", "%27%20OR%201=1"])
def test_revoking_what_is_not_there(admin: httpx.Client, key_id: str) -> None:
    refusal(admin.delete(f"/admin/keys/{key_id}"), 404)


PATHS = {"unknown": ("GET", "/admin/nope", 404), "bare": ("GET", "/admin", 404),
         "wrong verb": ("PUT", "/admin/keys", 405),
         "a page that is not there": ("GET", "/docs/nope", 404), "docs are read": ("POST", "/docs", 405),
         "no such asset": ("GET", "/docs/assets/nope.js", 404),
         "out of the assets": ("GET", "/docs/assets/..%2f..%2findex.py", 404)}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status"), PATHS.values(), ids=PATHS)
def test_paths_that_are_not_there(admin: httpx.Client, method: str, path: str, status: int) -> None:
    answer = admin.request(method, path)
    refusal(answer, status)
    assert status != 405 or answer.headers["allow"]


BAD_QUESTIONS = {
    "group_by=nope": "group_by",
    "group_by=key,nope": "group_by",
    "group_by=key_name;drop": "group_by",
    "since=yesterday": "since",
    "since=2026-13-01": "since",
    "until=1767225600": "until",
    "until=2026-01-01T25:00": "until",
    "since=%00": "since",
}


@pytest.mark.parametrize(("question", "param"), BAD_QUESTIONS.items(), ids=BAD_QUESTIONS)
def test_bad_questions_about_usage(admin: httpx.Client, question: str, param: str) -> None:
    assert refusal(admin.get(f"/admin/usage?{question}"), 400)["param"] == param


def test_usage_of_each_key_route_and_day(admin_server: Server, admin: httpx.Client) -> None:
    first, second = made(admin, name="usage-one"), made(admin, name="usage-two")
    with admin_server.client(first["key"]) as its:
        for model in ("chat", "chat", "other"):
            assert say(its, model).status_code == 200
        assert say(its, "broken").status_code >= 500
        assert say(its, stream=True).text.rstrip().endswith("[DONE]")
    with admin_server.client(second["key"]) as its:
        assert say(its).status_code == 200
    sums = admin.get("/admin/usage", params={"group_by": "key_id,route"}).json()["data"]
    mine = {(row["key_id"], row["route"]): (row["calls"], row["failed"]) for row in sums if "key_id" in row}
    assert {pair: counts for pair, counts in mine.items() if pair[0] in {first["id"], second["id"]}} == {
        (first["id"], "chat"): (3, 0),
        (first["id"], "other"): (1, 0),
        (first["id"], "broken"): (1, 1),
        (second["id"], "chat"): (1, 0),
    }
    today = time.strftime("%Y-%m-%d", time.gmtime())
    days = admin.get("/admin/usage", params={"group_by": "day", "since": today}).json()
    assert [row["day"] for row in days["data"]] == [today]
    assert days["data"][0]["calls"] == days["total"]["calls"]
    assert days["total"]["input_tokens"] > 0
    nothing = admin.get("/admin/usage", params={"until": "2000-01-01T00:00:00Z"}).json()
    assert nothing == {"data": [], "total": dict.fromkeys(nothing["total"], 0), "next": None}


def test_a_key_sees_its_own_usage_only(admin_server: Server, admin: httpx.Client) -> None:
    first, second = made(admin, name="own-one"), made(admin, name="own-two", scopes=["inference", "admin"])
    with admin_server.client(first["key"]) as one, admin_server.client(second["key"]) as two:
        ids = [say(client).headers["x-request-id"] for client in (one, two)]
        seen = one.get("/admin/usage", params={"group_by": "key_id"}).json()
        assert [row["key_id"] for row in seen["data"]] == [first["id"]]
        assert seen["total"]["calls"] == 1
        assert len(two.get("/admin/usage", params={"group_by": "key_id"}).json()["data"]) > 1
        record = one.get(f"/admin/usage/{ids[0]}").json()
        assert (record["request_id"], record["key_id"], record["status"]) == (ids[0], first["id"], 200)
        # What is another's cannot be told from what is not there.
        theirs, none = one.get(f"/admin/usage/{ids[1]}"), one.get("/admin/usage/req_nope")
        message = refusal(theirs, 404)["message"].replace(ids[1], "")
        assert message == refusal(none, 404)["message"].replace("req_nope", "")
        assert two.get(f"/admin/usage/{ids[0]}").json() == record
        for wrong in ("%00", "%ff", "x" * 300):
            refusal(one.get(f"/admin/usage/{wrong}"), 404)


FACES = {
    "inference": "/v1/models",
    "tracking": "/api/2.0/mlflow/experiments/get?experiment_id=0",
    "admin": "/admin/keys",
}


@pytest.mark.parametrize("scope", FACES)
def test_a_key_opens_the_faces_of_its_scopes_alone(admin_server: Server, admin: httpx.Client, scope: str) -> None:
    with admin_server.client(made(admin, scopes=[scope])["key"]) as its:
        for face, path in FACES.items():
            answer = its.get(path)
            if face == scope:
                assert answer.status_code == 200, answer.text
            elif face == "tracking":
                assert answer.status_code == 403
                assert set(answer.json()) == {"error_code", "message"}
                assert answer.json()["error_code"] == "PERMISSION_DENIED"
            else:
                assert f"no scope '{face}'" in refusal(answer, 403)["message"]
        if scope != "admin":
            refusal(its.post("/admin/keys", json={"name": "more", "scopes": ["admin"]}), 403)
            refusal(its.delete("/admin/keys/key_0"), 403)


MALFORMED = [b"", b"Bearer", b"Basic", b"Basic !!!", b"Basic \xff\xfe", b"Basic bm9uZQ==", b"Digest a=b",
             b"\xff", b"Bearer \xff", b"Bearer sk-py-unknown", b"Basic " + b"A" * 5000, b"bearer\tx"]  # fmt: skip


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed_credentials_are_401_on_every_face(admin_server: Server, header: bytes) -> None:
    with httpx.Client(base_url=admin_server.url, headers=[(b"authorization", header)]) as stranger:
        for face, path in FACES.items():
            answer = stranger.get(path)
            if face == "tracking":
                assert answer.status_code == 401
                assert answer.json()["error_code"] == "UNAUTHENTICATED"
            else:
                refusal(answer, 401)
        refusal(stranger.get("/docs"), 401)
        refusal(stranger.get("/openapi.json"), 401)
        refusal(stranger.post("/admin/keys", content=b"{"), 401)
        assert stranger.get("/health").text == "OK"
        assert stranger.get("/health/ready").json() == {"status": "ready"}


def test_the_documentation_renders_from_this_host_alone(admin_server: Server, page: Page) -> None:
    page.context.set_extra_http_headers(admin_server.headers)
    page.goto(f"{admin_server.url}/docs")
    page.get_by_text("/admin/keys", exact=True).first.wait_for()
    page.get_by_text("/admin/usage/{request_id}", exact=True).first.wait_for()
    for path in ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/models/{id}", "/gateway/{name}/invocations"):
        page.get_by_text(path, exact=True).first.wait_for()
    page.locator("#operations-inference-v1_messages .opblock-summary").click()
    page.get_by_text("Answer a conversation, as Anthropic's clients ask").first.wait_for()
    page.get_by_text("A limit refused").first.wait_for()
    page.locator("#operations-keys-create_admin_keys_post .opblock-summary").click()
    page.get_by_text("Try it out").first.wait_for()
    assert page.title() == "Promptyard API"
    assert page.locator(".errors-wrapper").count() == 0


def test_a_browser_is_asked_for_a_key_before_the_documentation(admin_server: Server) -> None:
    answer = httpx.get(f"{admin_server.url}/docs")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert httpx.get(f"{admin_server.url}/docs", auth=("", admin_server.admin_key or "")).status_code == 200


def test_the_description_is_whole(admin: httpx.Client) -> None:
    answer = admin.get("/openapi.json")
    described = answer.json()
    assert described["openapi"] == "3.0.3"
    assert '"null"' not in answer.text  # which 3.0 has no type for
    wanted = {"/admin/keys", "/admin/keys/{key_id}", "/admin/usage", "/admin/usage/{request_id}", "/v1/messages"}
    assert wanted <= set(described["paths"])
    assert set(described["components"]["schemas"]["NewKey"]["properties"]) == {
        "name", "routes", "scopes", "rpm", "tpm", "concurrency", "max_budget", "budget_duration", "expires_in",
        "rpd", "tpd", "denied_routes", "tags", "metadata", "team_id", "user_limits", "soft_budget",
        "window",
    }  # fmt: skip
