"""What models, runs and people wrote reaches the page as text, never as HTML."""

from __future__ import annotations

import html as escaping
import math
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from promptlab.workbench import components, previews, shell
from promptlab.workbench.asking import Answer
from promptlab.workbench.charts import Series, chart
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
        "inputs": {
            "dataset_inputs": [
                {"dataset": {"name": text, "digest": text}, "tags": [{"key": "mlflow.data.context", "value": text}]}
            ],
            "model_inputs": [{"model_id": text}],
        },
        "outputs": {"model_outputs": [{"model_id": text}]},
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
    "chart": lambda text: chart(text, [Series(text, 0, ((0, 1), (1, 2))), Series(text, 1, ((0, 1),))], lambda _: text),
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
    ("points", "kind"),
    [(((0, 1),), "single"), (((0, 1), (1, 2)), "lines"), ((), "single"), (((0, float("nan")),), "single")],
)
def test_charts_of_one_run(points: tuple[tuple[float, float], ...], kind: str) -> None:
    assert f'class="chart {kind}"' in chart("loss", [Series("run", 0, points)])


def test_a_chart_says_how_far_each_run_is_from_the_first() -> None:
    drawn = chart("loss", [Series("a", 0, ((0, 2),)), Series("b", 1, ((0, 3),)), Series("c", 2, ((0, 1),))])
    assert [drawn.count(change) for change in ("+50%", "−50%", "width:100.0%")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("first", "value", "change"),
    [
        (2.0, 2.0, ">same<"),
        (1_364_000.0, 1_363_999.0, ">≈ same<"),
        (1_364_000.0, 1_363_000.0, ">−0.1%<"),
        (1.0, 12.0, ">×12<"),
        (1e-300, 1e300, "<small></small>"),
        (3.0, sys.float_info.max, "<small></small>"),
        (3.0, math.nan, "<small></small>"),
        (0.0, 1.0, "<small></small>"),
    ],
)
def test_a_change_is_short_whatever_the_numbers(first: float, value: float, change: str) -> None:
    drawn = chart("score", [Series("a", 0, ((0, first),)), Series("b", 1, ((0, value),))])
    assert change in drawn.rpartition("<li")[2]


def playground_run(**measured: float) -> dict[str, Any]:
    made = run("x")
    made["data"]["metrics"] = [{"key": key, "value": value} for key, value in measured.items()]
    made["data"]["tags"] = [{"key": "mlflow.runSourceType", "value": "PROMPT_ENGINEERING"}]
    return made


def test_the_playground_s_metrics_have_units_and_all_of_a_column_the_same() -> None:
    runs = [
        playground_run(latency=0.9, first_token=0.2, cost=0.0, output_tokens=2200),
        playground_run(latency=12, first_token=0.4, output_tokens=3),
    ]
    shown = runs_table(runs, [], "")
    for cell in ("0.90 s", "12.00 s", "200 ms", "400 ms", "$0", "unpriced", "2,200"):
        assert f">{cell}<" in shown
    compared = comparison([Chosen(one) for one in runs], "", {})
    for bar in ("0.90 s", "12.00 s", "200 ms", "$0", "2,200"):
        assert f"<b>{bar}</b>" in compared


def test_metrics_of_others_have_no_units() -> None:
    foreign = playground_run(latency=0.9, cost=3.0)
    foreign["data"]["tags"] = []
    assert '<td class="num">0.9</td>' in runs_table([foreign], [], "")
    assert "<b>0.9</b>" in comparison([Chosen(foreign), Chosen(playground_run(latency=1))], "", {})


def test_a_table_shows_the_params_that_tell_its_runs_apart() -> None:
    runs = []
    for index in range(6):
        given = {f"fixed{number}": "same" for number in range(8)} | {"rate": str(0.1 / (index + 3)), "seed": str(index)}
        runs.append(run("x") | {"data": {"params": [{"key": key, "value": given[key]} for key in sorted(given)]}})
    shown = runs_table(runs, [], "")
    assert all(f">{name}</button>" in shown for name in ("rate", "seed"))
    assert shown.count(">fixed") == 2
    assert ">0.0333333<" in shown


def test_a_nested_run_is_told_from_its_parent() -> None:
    nested = run("x")
    nested["data"]["tags"] = [{"key": "mlflow.parentRunId", "value": "y"}]
    assert ["↳" in runs_table([one], [], "") for one in (run("x"), nested)] == [False, True]


def test_an_unpriced_answer_says_so() -> None:
    priced, free, unknown = (Answer("r", "done", ["x"], settled=True, cost=cost) for cost in (0.0000024, 0.0, None))
    shown = components.answers([priced, free, unknown])
    assert [part in shown for part in ("$0.0000024", ">$0<", ">unpriced<")] == [True] * 3


def test_words_that_differ_are_marked() -> None:
    assert marked("Sell the books", "Sell the <b> books") == "Sell the <mark>&lt;b&gt; </mark>books"
