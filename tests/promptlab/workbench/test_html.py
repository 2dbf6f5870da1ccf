"""What models, runs and people wrote reaches the page as text, never as HTML."""

from __future__ import annotations

import html as escaping
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from promptlab.workbench import components, previews, shell
from promptlab.workbench.asking import Answer
from promptlab.workbench.charts import Series, chart, figure
from promptlab.workbench.comparison import Chosen, comparison, marked
from promptlab.workbench.runs_table import runs_table

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>&lt;b&gt; ${alert(1)} {{x}}"
# What our own markup is made of. Everything else in a page came from outside.
TAGS = {
    *("article", "aside", "b", "button", "code", "div", "dd", "dl", "dt", "figcaption", "figure", "h1", "h2", "h3"),
    *("header", "i", "input", "li", "mark", "p", "polyline", "pre", "section", "small", "span", "svg"),
    *("table", "tbody", "td", "th", "thead", "tr", "ul"),
}


class Tags(HTMLParser):
    """Collects the tags, attributes and text a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def run(text: str) -> dict[str, Any]:
    return {
        "info": {"run_id": text, "run_name": text, "status": text, "start_time": 1, "end_time": 2},
        "data": {
            "params": [{"key": "long", "value": text}, {"key": text, "value": text}],
            "metrics": [{"key": text, "value": 1.0, "timestamp": 1, "step": 0}],
            "tags": [],
        },
    }


RENDERED: dict[str, Callable[[str], str]] = {
    "answer": lambda text: components.answers([Answer(text, "done", [text])]),
    "failed answer": lambda text: components.answers([Answer(text, "failed", [text], error=text)]),
    "problem": lambda text: components.problem(text, text),
    "empty": lambda text: components.empty(text, text, text, text),
    "runs": lambda text: runs_table([run(text)], [text], ""),
    "comparison": lambda text: comparison(
        [Chosen(run(text), {}, [{"path": text, "file_size": 1}]), Chosen(run("other"))], text, {}
    ),
    "chart": lambda text: chart(text, [Series(text, 0, ((0, 1), (1, 2))), Series(text, 1, ((0, 1),))], text),
    "diff": lambda text: marked("a b c", text),
    "text file": lambda text: previews.preview("a.txt", text.encode(), truncated=False),
    "JSON file": lambda text: previews.preview(
        "a.json", f'{{"a": "{escaping.escape(text)}"}}'.encode(), truncated=False
    ),
    "HTML file": lambda text: previews.preview("a.html", text.encode(), truncated=False),
    "SVG file": lambda text: previews.preview("a.svg", f"<svg>{text}</svg>".encode(), truncated=False),
    "table file": lambda text: previews.table([text], [[text]]),
    "sign-in problem": lambda text: shell.worded(text),
}


@pytest.mark.parametrize("name", RENDERED)
def test_hostile_text_stays_text(name: str) -> None:
    seen = Tags(RENDERED[name](HOSTILE))
    assert seen.tags <= TAGS
    assert not [key for key, _ in seen.attributes if key.startswith("on")]
    assert not [value for key, value in seen.attributes if key == "src"]


@pytest.mark.parametrize("name", ["answer", "problem", "text file", "table file", "diff"])
def test_text_is_shown_letter_by_letter(name: str) -> None:
    assert HOSTILE in Tags(RENDERED[name](HOSTILE)).text


def test_a_page_cannot_be_left_through_the_sign_in_address() -> None:
    page = shell.sign_in("/lab/runs?x=</script><script>alert(1)</script>", HOSTILE)
    assert page.count("</script>") == 2
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\x89PNG\r\n\x1a\nrest", "data:image/png;base64,"),
        (b"\xff\xd8\xffrest", "data:image/jpeg;base64,"),
        (b"RIFF0000WEBPrest", "data:image/webp;base64,"),
        (b"\0\1\2", "No preview"),
        (b"\xff\xfe\xfa", "No preview"),
        (b"plain", "<pre>plain</pre>"),
        ("grün".encode(), "<pre>grün</pre>"),
        (b"", "<pre></pre>"),
    ],
)
def test_a_preview_goes_by_the_bytes(content: bytes, shown: str) -> None:
    assert shown in previews.preview("picture.png", content, truncated=False)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"columns": ["a"], "data": [["x"], [1]]}', "<table"),
        (b'{"columns": ["a"], "data": [1, null]}', "<table"),
        (b'{"columns": 1}', "<pre>"),
        (b"not json", "<pre>not json</pre>"),
        (b"[" * 100_000, "<pre>"),
    ],
)
def test_json_is_a_table_when_it_is_one(content: bytes, shown: str) -> None:
    assert shown in previews.preview("a.json", content, truncated=False)


def test_text_cut_inside_a_letter_is_shown_up_to_it() -> None:
    assert "<pre>gr</pre>" in previews.preview("a.txt", "grü".encode()[:-1], truncated=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234567.0, "1,234,567"),
        (0.00001234, "1.234e-05"),
        (3.14159, "3.142"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (None, "–"),
        (-2.5, "-2.5"),
    ],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("points", "kind"),
    [(((0, 1),), "single"), (((0, 1), (1, 2)), "lines"), ((), "single"), (((0, float("nan")),), "single")],
)
def test_charts_of_one_run(points: tuple[tuple[float, float], ...], kind: str) -> None:
    assert f'class="chart {kind}"' in chart("loss", [Series("run", 0, points)])


def test_a_chart_says_how_far_each_run_is_from_the_first() -> None:
    drawn = chart("loss", [Series("a", 0, ((0, 2),)), Series("b", 1, ((0, 3),)), Series("c", 2, ((0, 1),))])
    assert [drawn.count(change) for change in ("+50%", "−50%", "width:100.0%")] == [1, 1, 1]


def test_words_that_differ_are_marked() -> None:
    assert marked("Sell the books", "Sell the <b> books") == "Sell the <mark>&lt;b&gt; </mark>books"
