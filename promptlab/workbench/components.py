"""Pieces of HTML the pages share. Everything a model, a run or a person wrote is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from promptlab.workbench.asking import Answer
from promptlab.workbench.charts import tint
from promptlab.workbench.figures import dollars, seconds, whole
from promptlab.workbench.shell import worded


def html(value: str = "", *, elem_id: str | None = None, js: str | None = None) -> gr.HTML:
    """A place for HTML of our own."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=js, apply_default_css=False)


def empty(title: str, text: str, button: str = "", act: str = "") -> str:
    """An empty state: what is missing, how to get it, and the one button that does it."""
    action = (
        f'<button type="button" class="btn primary" data-act="{escape(act)}">{escape(button)}</button>'
        if button
        else ""
    )
    return f'<div class="yard empty"><h2>{escape(title)}</h2><p>{escape(text)}</p>{action}</div>'


def problem(title: str, text: str) -> str:
    """What failed, and why."""
    return f'<div class="yard problem" role="alert"><b>{escape(title)}</b> {worded(text)}</div>'


def answers(found: Sequence[Answer]) -> str:
    """The answers side by side."""
    best = _best(found)
    columns = "".join(_answer(index, answer, best) for index, answer in enumerate(found))
    return f'<div class="yard answers" data-count="{len(found)}">{columns}</div>'


_STATES = {
    "waiting": ("", "waiting"),
    "streaming": ("", "answering"),
    "done": ("", "done"),
    "stopped": ("warn", "stopped"),
    "failed": ("bad", "failed"),
}


def _answer(index: int, answer: Answer, best: dict[str, int]) -> str:
    tone, word = _STATES[answer.state]
    if answer.state == "done" and answer.finish == "length":
        tone, word = "warn", "cut at max tokens"
    text = f'<div class="text mono" tabindex="0">{escape(answer.text)}</div>' if answer.text else ""
    if answer.error:
        text += problem(f"{answer.route} failed." if not answer.text else "Then it failed.", answer.error)
    elif not answer.text and answer.state == "done":
        text = '<div class="text muted">The model answered with nothing.</div>'
    elif not answer.text and answer.state == "stopped":
        text = '<div class="text muted">Stopped before the first word.</div>'
    return (
        f'<article class="answer" data-state="{answer.state}" {tint(index)}>'
        f'<header><h2 title="{escape(answer.route)}">{escape(answer.route)}</h2>'
        f'<span class="badge {tone}">{word}</span></header>'
        # Above the text, where they stand still while it grows.
        f'<dl>{_figures(index, answer, best)}</dl><div class="body">{text}</div></article>'
    )


def _figures(index: int, answer: Answer, best: dict[str, int]) -> str:
    total = seconds(answer.elapsed)
    if answer.state in ("waiting", "streaming"):
        total = f"{answer.elapsed:.1f} s"
    tokens = "–" if answer.output_tokens is None else f"{whole(answer.input_tokens)} → {whole(answer.output_tokens)}"
    # A failed call that reached its model has tokens, and so a cost or none that is known.
    called = answer.state in ("done", "stopped") or answer.output_tokens
    cost = dollars(answer.cost)
    if called and answer.settled and answer.cost is None:
        cost = '<span title="No price is known for this model">unpriced</span>'
    figures = (
        ("first", "First token", seconds(answer.first_token)),
        ("total", "Total", total),
        ("tokens", "Tokens", f'<span title="In → out">{tokens}</span>'),
        ("cost", "Cost", cost),
    )
    return "".join(
        f"<div><dt>{label}</dt><dd{_mark(best.get(name) == index, name)}>{value}</dd></div>"
        for name, label, value in figures
    )


def _mark(is_best: bool, name: str) -> str:
    word = "Least cost" if name == "cost" else "Quickest"
    return f' class="best" title="{word} of these answers, one call each"' if is_best else ""


def _best(found: Sequence[Answer]) -> dict[str, int]:
    """Which column is best in each figure, once all have ended and at least two are whole."""
    if any(answer.state in ("waiting", "streaming") or not answer.settled for answer in found):
        return {}
    best = {}
    for name, figure in (("first", "first_token"), ("total", "total"), ("cost", "cost")):
        values: list[tuple[Any, int]] = [
            (getattr(answer, figure), index)
            for index, answer in enumerate(found)
            if answer.state == "done" and getattr(answer, figure) is not None
        ]
        values.sort()
        if len(values) > 1 and values[0][0] < values[1][0]:
            best[name] = values[0][1]
    return best
