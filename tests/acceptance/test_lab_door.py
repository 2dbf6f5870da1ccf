"""The lab's door, on the whole product: nobody comes in without a key, nothing of Gradio's stands open."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.services.promptyard import Server

PAGES = ["/lab/", "/lab/runs", "/lab/runs?experiment=0&run=x"]
# Every kind of path Gradio serves, and ours beside the pages.
PATHS = [
    ("GET", "/lab/status"),
    ("GET", "/lab/config"),
    ("GET", "/lab/theme.css"),
    ("GET", "/lab/assets/index.js"),
    ("GET", "/lab/static/img/logo.svg"),
    ("GET", "/lab/gradio_api/info"),
    ("GET", "/lab/gradio_api/queue/data?session_hash=x"),
    ("GET", "/lab/gradio_api/heartbeat/x"),
    ("GET", "/lab/gradio_api/file=/etc/passwd"),
    ("GET", "/lab/gradio_api/startup-events"),
    ("GET", "/lab/gradio_api/proxy=http://example.org"),
    ("POST", "/lab/gradio_api/queue/join"),
    ("POST", "/lab/gradio_api/run/predict"),
    ("POST", "/lab/gradio_api/cancel"),
    ("POST", "/lab/gradio_api/upload"),
    ("POST", "/lab/sign-out"),
    ("POST", "/lab/"),
    ("HEAD", "/lab/"),
    ("OPTIONS", "/lab/gradio_api/queue/join"),
    ("DELETE", "/lab/runs"),
]
# What exists in Gradio but not in the lab, for nobody.
CLOSED = [
    ("GET", "/lab/gradio_api/file=/etc/passwd"),
    ("GET", "/lab/gradio_api/file/etc/passwd"),
    ("GET", "/lab/gradio_api/proxy=http://example.org"),
    ("GET", "/lab/gradio_api/deep_link?session_hash=x"),
    ("GET", "/lab/gradio_api/info"),
    ("GET", "/lab/gradio_api/openapi.json"),
    ("GET", "/lab/gradio_api/runs"),
    ("GET", "/lab/gradio_api/vibe-code"),
    ("GET", "/lab/monitoring"),
    ("GET", "/lab/config"),
    ("GET", "/lab/login_check"),
    ("GET", "/lab/assets/../../../../routes.py"),
    ("GET", "/lab/static/..%2f..%2froutes.py"),
    ("POST", "/lab/login"),
    ("POST", "/lab/gradio_api/upload"),
    ("POST", "/lab/gradio_api/component_server"),
    ("POST", "/lab/gradio_api/process_recording"),
    ("POST", "/lab/gradio_api/vibe-edit"),
    ("POST", "/lab/gradio_api/call/_ask"),
    ("POST", "/lab/gradio_api/run/_ask"),
]


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    server.wait_ready()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def visitor(server: Server) -> Iterator[httpx.Client]:
    server.wait_ready()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert sign_in(client, new_key(server)).status_code == 303
        yield client


def new_key(server: Server, name: str = "Ada", **limits: object) -> str:
    with server.client() as client:
        return str(client.post("/admin/keys", json={"name": name, **limits}).raise_for_status().json()["key"])


def sign_in(client: httpx.Client, key: str, **headers: str) -> httpx.Response:
    return client.post("/lab/sign-in", data={"key": key}, headers=headers)


@pytest.mark.parametrize("path", PAGES)
def test_pages_lead_a_stranger_to_the_sign_in(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 303
    form = stranger.get(answer.headers["location"])
    assert form.status_code == 200
    assert 'name="key"' in form.text
    assert "gradio_config" not in form.text


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_everything_else_refuses_a_stranger(stranger: httpx.Client, method: str, path: str) -> None:
    answer = stranger.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/json"
    made_up = stranger.request(method, path, headers={"cookie": "promptyard_lab=made-up", "authorization": "Bearer x"})
    assert made_up.status_code == 401


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_the_lab_does_not_use_is_not_there(visitor: httpx.Client, method: str, path: str) -> None:
    assert visitor.request(method, path).status_code == 404


def test_a_key_opens_the_lab_and_the_page_that_was_asked_for(stranger: httpx.Client, server: Server) -> None:
    door = stranger.get("/lab/runs?experiment=0&filter=a%20%3D%20'b'").headers["location"]
    answer = stranger.post(door, data={"key": new_key(server, "Grace <b>")})
    assert answer.headers["location"] == "/lab/runs?experiment=0&filter=a%20%3D%20'b'"
    page = stranger.get(answer.headers["location"])
    assert page.status_code == 200
    assert "Grace &lt;b&gt;" in page.text


@pytest.mark.parametrize("following", ["//example.org", "https://example.org", "sign-out", "../v1", "runs%0d%0ax: y"])
def test_signing_in_leads_nowhere_else(stranger: httpx.Client, server: Server, following: str) -> None:
    answer = stranger.post(f"/lab/sign-in?next={following}", data={"key": new_key(server)})
    assert answer.headers["location"] == "/lab/"
    assert "x" not in answer.headers


def test_an_address_cannot_smuggle_headers(stranger: httpx.Client, server: Server) -> None:
    answer = stranger.post("/lab/sign-in?next=runs?a=%0d%0aset-cookie:%20b=c", data={"key": new_key(server)})
    assert "\r" not in answer.headers["location"]
    assert [value.split("=")[0] for value in answer.headers.get_list("set-cookie")] == ["promptyard_lab"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_for_the_lab_alone(stranger: httpx.Client, server: Server, scheme: str) -> None:
    answer = sign_in(stranger, new_key(server), **{"x-forwarded-proto": scheme})
    value, *flags = answer.headers["set-cookie"].split("; ")
    assert len(value.partition("=")[2]) >= 40
    assert set(flags) == {"Path=/lab", "HttpOnly", "SameSite=Strict"} | ({"Secure"} if scheme == "https" else set())


@pytest.mark.parametrize("key", ["", "sk-py-wrong", "\x00", "schlüssel", "a" * 20_000])
def test_a_wrong_key_is_told_in_words(stranger: httpx.Client, key: str) -> None:
    answer = sign_in(stranger, key)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers
    assert stranger.get("/lab/status").status_code == 401


def test_signing_out_ends_the_session(visitor: httpx.Client) -> None:
    cookie = visitor.cookies["promptyard_lab"]
    assert visitor.get("/lab/status").status_code == 200
    assert visitor.post("/lab/sign-out").status_code == 303
    assert visitor.get("/lab/status", headers={"cookie": f"promptyard_lab={cookie}"}).status_code == 401


@pytest.mark.parametrize("path", ["/lab/sign-in", "/lab/sign-out", "/lab/gradio_api/queue/join"])
@pytest.mark.parametrize("origin", ["https://example.org", "null", "http://127.0.0.1:1"])
def test_other_sites_are_refused(visitor: httpx.Client, path: str, origin: str) -> None:
    answer = visitor.post(path, headers={"origin": origin}, content=b"{}")
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert visitor.get("/lab/status").status_code == 200


def test_our_own_site_is_not_refused(visitor: httpx.Client, server: Server) -> None:
    assert visitor.get("/lab/status", headers={"origin": server.url}).json()["tone"] in ("good", "warn")


def test_a_loaded_page_is_its_visitors_alone(visitor: httpx.Client, server: Server) -> None:
    body = {"data": [], "fn_index": 0, "session_hash": "adas-page"}
    visitor.post("/lab/gradio_api/queue/join", json=body)
    with httpx.Client(base_url=server.url) as other:
        sign_in(other, new_key(server, "Eve"))
        assert other.get("/lab/gradio_api/queue/data?session_hash=adas-page").status_code == 403
        assert other.get("/lab/gradio_api/heartbeat/adas-page").status_code == 403
        # Whichever of several Gradio would read: none is passed on.
        mine, hers = "session_hash=eves-page", "session_hash=adas-page"
        for path in (f"queue/data?{mine}&{hers}", f"queue/data?{hers}&{mine}", f"heartbeat/adas-page?{mine}"):
            assert other.get(f"/lab/gradio_api/{path}").status_code == 403
        assert other.post("/lab/gradio_api/queue/join", json=body).status_code == 403
        assert other.post("/lab/gradio_api/cancel", json={**body, "event_id": "x"}).status_code == 403


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"session_hash": 1}', b"{" * 10_000])
def test_garbage_harms_nothing(visitor: httpx.Client, body: bytes) -> None:
    answer = visitor.post("/lab/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert visitor.get("/lab/").status_code == 200


def test_a_call_of_more_than_4_mb_is_refused(visitor: httpx.Client) -> None:
    assert visitor.post("/lab/gradio_api/queue/join", content=b"x" * 5_000_000).status_code == 413


@pytest.mark.parametrize("path", ["/lab/", "/lab/runs", "/lab/sign-in"])
def test_pages_name_nothing_elsewhere_and_forbid_it(visitor: httpx.Client, path: str) -> None:
    page = visitor.get(path)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    head = page.text.partition("</head>")[0].partition("window.gradio_config")[0]
    assert "https://" not in head


def test_the_assets_of_gradio_may_be_kept_and_pages_may_not(visitor: httpx.Client) -> None:
    page = visitor.get("/lab/")
    script = page.text.partition('crossorigin src="./')[2].partition('"')[0]
    assert "immutable" in visitor.get(f"/lab/{script}").headers["cache-control"]
    assert page.headers["cache-control"] == "no-store"
