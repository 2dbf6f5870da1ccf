"""The playground's form: read from its fields and from an address, checked, and turned into calls."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from promptlab.workbench import snippets
from promptlab.workbench.form import Form

FULL = Form(
    routes=("chat", "fast"),
    system="Be kind.",
    template="Sell {{ what }} in {{ where }}.",
    values={"what": 'it\'s "books" & more', "where": "{{ what }}", "old": "left over"},
    temperature=0.5,
    max_tokens=40,
    stop=("\\n", "END"),
    seed=7,
)


def test_an_address_describes_the_whole_form() -> None:
    pairs = [
        *(("route", route) for route in FULL.routes),
        ("system", FULL.system),
        ("template", FULL.template),
        *((f"v.{name}", value) for name, value in FULL.values.items()),
        ("temperature", "0.5"),
        ("max_tokens", "40"),
        *(("stop", stop) for stop in FULL.stop),
        ("seed", "7"),
    ]
    assert Form.linked(parse_qsl(urlencode(pairs))) == FULL


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("", Form()),
        ("temperature=hot&max_tokens=many&seed=nan", Form()),
        ("temperature=nan&max_tokens=inf", Form()),
        ("unknown=1&route=a", Form(routes=("a",))),
        ("&".join(f"route={n}" for n in range(9)), Form(routes=("0", "1", "2", "3"))),
    ],
)
def test_an_address_that_cannot_be_read_is_left_out(query: str, form: Form) -> None:
    assert Form.linked(parse_qsl(query)) == form


def test_fields_left_blank_are_left_to_the_model() -> None:
    form = Form.entered(["chat"], "  ", "Hello", None, None, None, "", None)
    assert form.call("chat") == {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_call_holds_what_was_given() -> None:
    assert FULL.call("fast") == {
        "model": "fast",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": 'Sell it\'s "books" & more in {{ what }}.'},
        ],
        "temperature": 0.5,
        "max_tokens": 40,
        "stop": ["\\n", "END"],
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (Form(template="x"), "Pick a route"),
        (Form(routes=("a",)), "Write a prompt"),
        (Form(routes=("a",), template=" \n"), "Write a prompt"),
        (Form(routes=("a",), template="{{ b }} {{ c }}", values={"b": "1"}), "value for c."),
        (Form(routes=("a",), template="{{ b }}", values={"b": "  "}), "value for b."),
        (Form(routes=tuple("abcde"), template="x"), "at most 4"),
        (Form(routes=("a",), template="x", max_tokens=0), "Max tokens is 0. It must be a whole number of 1 or more."),
        (Form(routes=("a",), template="x", max_tokens=1.5), "Max tokens is 1.5. "),
        (Form(routes=("a",), template="x", max_tokens=1e300), "Max tokens is 1e+300. "),
        (Form(routes=("a",), template="x", temperature=2.1), "Temperature is 2.1. It must be between 0 and 2."),
        (Form(routes=("a",), template="x", temperature=-0.1), "Temperature is -0.1. "),
        (Form(routes=("a",), template="x", seed=1.5), "Seed is 1.5. It must be a whole number between -"),
        (Form(routes=("a",), template="x", seed=2**53), "Seed is 9007199254740992. "),
        (Form(routes=("a",), template="x", seed=-7), None),
        (Form(routes=("a",), template="x", temperature=0.0), None),
        (FULL, None),
    ],
)
def test_what_keeps_a_form_from_running(form: Form, problem: str | None) -> None:
    said = form.problem()
    assert said is None if problem is None else said is not None and problem in said


def test_numbers_are_kept_as_typed_and_whole_ones_are_sent_whole() -> None:
    linked = Form.linked([("temperature", "9"), ("max_tokens", "1.5"), ("seed", "1e300")])
    assert (linked.temperature, linked.max_tokens, linked.seed) == (9, 1.5, 1e300)
    typed = Form.entered(["chat"], "", "Hello", None, 1.0, 40.0, "", 7.0)
    assert json.dumps(typed.parameters()) == '{"temperature": 1, "max_tokens": 40, "seed": 7}'


def test_the_curl_call_is_the_call() -> None:
    words = shlex.split(snippets.curl(FULL.call("chat"), "http://here:4000").replace("\\\n", " "))
    assert words[:2] == ["curl", "http://here:4000/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1]) == FULL.call("chat")


def test_the_python_call_is_the_call() -> None:
    written = snippets.python(FULL.call("chat"), "http://here:4000")
    made: dict[str, Any] = {}

    class Completions:
        def create(self, **arguments: Any) -> Any:
            made.update(arguments)
            raise StopIteration

    completions = written[written.index("client.chat") :].replace("client.chat.completions", "completions")
    with pytest.raises(StopIteration):
        exec(completions, {"completions": Completions()})
    assert made == FULL.call("chat")
    compile(written, "snippet", "exec")


def test_every_snippet_is_of_its_route_and_none_holds_a_key() -> None:
    for call in snippets.calls(FULL, "http://here:4000"):
        compile(call["MLflow"], "snippet", "exec")
        for kind in ("curl", "Python", "MLflow"):
            assert call["route"] in call[kind]
            assert "sk-py-" not in call[kind]
