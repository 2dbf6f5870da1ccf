"""The browser is real, and its pages fail what must not happen on them."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.services.pages import Watch

PAGES = {
    "/quiet": "<h1>quiet</h1>",
    "/loud": "<script>console.error('broken hinge')</script>",
    "/raises": "<script>throw new Error('no such door')</script>",
    "/foreign": "<img src='http://elsewhere.example/pixel.png'>",
    "/missing": "<img src='/nowhere.png'>",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGES.get(self.path)
        self.send_response(200 if body else 404)
        self.send_header("content-type", "text/html")
        self.end_headers()
        icon = "<link rel='icon' href='data:,'>"
        self.wfile.write(f"{icon}{body or 'nothing here'}".encode())

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_shows_what_the_server_sent(page: Page, site: str) -> None:
    page.goto(f"{site}/quiet")
    expect(page.get_by_role("heading")).to_have_text("quiet")
    assert page.viewport_size == {"width": 1280, "height": 800}


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/quiet", None),
        ("/loud", "broken hinge"),
        ("/raises", "no such door"),
        ("/foreign", "left this machine: http://elsewhere.example/pixel.png"),
        ("/missing", "404"),
    ],
)
def test_the_watch_complains(browser: Browser, site: str, path: str, complaint: str | None) -> None:
    watch = Watch(browser)
    page = watch.open(f"{site}{path}", width=400, color_scheme="dark")
    page.wait_for_timeout(50)
    complaints = watch.complaints()
    watch.close()
    assert complaints == [] if complaint is None else any(re.search(complaint, each) for each in complaints)


def test_what_a_test_announces_is_no_complaint(pages: Watch, site: str) -> None:
    pages.expect("broken hinge")
    pages.open(f"{site}/loud")
