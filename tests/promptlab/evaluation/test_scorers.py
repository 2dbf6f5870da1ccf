"""Scorers as a table: what a plan says, a case, an answer, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sacrebleu import sentence_bleu
from sklearn.metrics import ndcg_score

from promptlab.client_calls import Answer
from promptlab.evaluation.cases import Case
from promptlab.evaluation.problems import PlanInvalid
from promptlab.evaluation.scorers import registry, similar
from promptlab.evaluation.scorers.rule import Score, total

DATA = Path(__file__).parent / "data"
SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


async def nobody(body: Mapping[str, Any], which: int) -> NoReturn:
    raise AssertionError("a deterministic scorer asks nobody")


def scored(said: Any, answer: Answer | str, **values: Any) -> Score:
    [rule] = registry.rules([said], DATA)
    given = (
        Answer(answer, latency=1.5, cost=0.002, output_tokens=7, finish="stop") if isinstance(answer, str) else answer
    )
    return asyncio.run(rule.score(rule.seen(Case("1", values), given, []), nobody))


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


TABLE: list[tuple[Any, str, dict[str, Any], float]] = [
    ("equals", " Paris\n", {"expected": "Paris"}, 1),
    ("equals", "paris", {"expected": "Paris"}, 0),
    ({"type": "equals", "ignore_case": True}, "paris", {"expected": "Paris"}, 1),
    ("exact_match", "Paris ", {"expected": "Paris"}, 0),
    ("not-equals", "Rome", {"expected": "Paris"}, 1),
    ("contains", "It is Paris.", {"expected": "Paris"}, 1),
    ({"contains": "city of {{name}}"}, "the city of Rome", {"name": "Rome"}, 1),
    ("icontains", "PARIS!", {"expected": "paris"}, 1),
    ({"contains-any": ["Rome", "Paris"]}, "Paris", {}, 1),
    ({"contains-any": "Rome, Oslo"}, "Paris", {}, 0),
    ({"icontains-any": ["ROME", "x"]}, "rome", {}, 1),
    ({"contains-all": ["Rome", "Paris"]}, "Paris and Rome", {}, 1),
    ({"contains-all": "{{expected}}"}, "Paris", {"expected": ["Paris", "Rome"]}, 0),
    ({"icontains-all": ["ROME", "paris"]}, "Paris, Rome", {}, 1),
    ({"starts-with": "Yes"}, "Yes, it is", {}, 1),
    ({"ends-with": "."}, "Done.\n", {}, 1),
    ({"regex": r"\d{4}-\d{2}"}, "on 2026-01-02", {}, 1),
    ({"type": "regex", "value": r"\d+", "whole": True}, "12 monkeys", {}, 0),
    ({"not-regex": "sorry"}, "sorry", {}, 0),
    ("finish-reason", "x", {}, 1),
    ({"finish-reason": "length"}, "x", {}, 0),
    ("is-refusal", "I’m sorry, but I can't help with that.", {}, 1),
    ("not-is-refusal", "The capital is Paris.", {}, 1),
    ("is-json", '{"city": 1}', {}, 1),
    ("is-json", "{'city': 1}", {}, 0),
    ("is-json", "NaN", {}, 0),
    ({"is-json": SCHEMA}, '{"city": "Rome"}', {}, 1),
    ({"is-json": SCHEMA}, '{"city": 1}', {}, 0),
    ("json-schema", '{"city": "Rome"}', {"schema": json.dumps(SCHEMA)}, 1),
    ("contains-json", 'Here: ```json\n{"city": "Rome"}\n``` done', {}, 1),
    ({"contains-json": SCHEMA}, '[1] then {"city": "Rome"}', {}, 1),
    ("contains-json", "none {here", {}, 0),
    ("contains-json", "[" * 100_000, {}, 0),
    ("json-equals", '{"b": [1, 2.0], "a": true}', {"expected": '{"a": true, "b": [1, 2]}'}, 1),
    ("json-equals", '{"a": 1}', {"expected": '{"a": true}'}, 0),
    ("is-xml", "<a><b>1</b></a>", {}, 1),
    ({"is-xml": "a.b, c"}, "<a><b>1<c/></b></a>", {}, 1),
    ({"is-xml": ["b.c"]}, "<a><b>1</b></a>", {}, 0),
    ("is-xml", "so <a/>", {}, 0),
    ("is-xml", '<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>', {}, 0),
    ({"contains-xml": "b"}, "so: <i> <a><b/></a> is it", {}, 1),
    ("contains-xml", "<a" * 100_000, {}, 0),
    ("contains-xml", "<a>" * 50_000, {}, 0),
    ("is-html", "<!doctype html><p>Hi<br>there</p>", {}, 1),
    ("is-html", "Here: <p>Hi</p>", {}, 0),
    ("contains-html", "Here: <p>Hi", {}, 1),
    ("contains-html", "1 < 2 and <city> > 3", {}, 0),
    ({"length": {"max": 3}}, "one two three", {}, 1),
    ({"length": {"min": 4, "max": 5, "unit": "characters"}}, "four5", {}, 1),
    ({"length": {"min": 4}}, "one", {}, 0),
    ("latency", "x", {}, 1.5),
    ({"cost": 0.001}, "x", {}, 0.002),
    ("output-tokens", "x", {}, 7),
    ("levenshtein", "kitten", {"expected": "sitting"}, 3),
    ("similarity", "kitten", {"expected": "sitting"}, 1 - 3 / 7),
    ({"type": "similarity", "ignore_case": True}, "PARIS", {"expected": "Paris"}, 1),
    ("similarity", "b", {"expected": ["a", "b"]}, 1),
    ("rouge1", "the cat", {"expected": "the cat sat"}, 0.8),
    ("not-rougeL", "the cat", {"expected": "the dog"}, 0.5),
    ("chrf", "the same", {"expected": "the same"}, 1),
    ("bleu", "the very same text", {"expected": "the very same text"}, 1),
    ("numeric", "It is 1,234.5 km", {"expected": "1234.5"}, 1),
    ({"type": "numeric", "relative": 0.1}, "about 95", {"expected": 100}, 1),
    ("numeric", "about 95", {"expected": 100}, 0),
    ({"python": "checks.py:polite"}, "please", {}, 1),
    ({"python": "checks.py:share", "threshold": 0.2}, "x", {"expected": 0.25}, 0.25),
    ({"python": "checks.py:tokens"}, "x", {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("said", "text", "values", "expected"), TABLE, ids=lambda value: str(value)[:40])
def test_a_scorer_says(said: Any, text: str, values: dict[str, Any], expected: float) -> None:
    score = scored(said, text, **values)
    assert score.error is None
    assert score.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "text", "values", "passed"),
    [
        ("similarity", "kitten", {"expected": "sitting"}, False),
        ({"type": "similarity", "threshold": 0.5}, "kitten", {"expected": "sitting"}, True),
        ({"type": "not-similarity", "threshold": 0.5}, "kitten", {"expected": "sitting"}, False),
        ("latency", "x", {}, None),
        ({"latency": 2}, "x", {}, True),
        ({"latency": 1}, "x", {}, False),
        ({"type": "not-latency", "threshold": 1}, "x", {}, True),
        ("levenshtein", "kitten", {"expected": "sitting"}, True),
    ],
)
def test_a_threshold_decides(said: Any, text: str, values: dict[str, Any], passed: bool | None) -> None:
    assert scored(said, text, **values).passed is passed


@pytest.mark.parametrize(
    ("said", "calls", "wanted", "value"),
    [
        ("tool-calls", [call("find", city="Rome")], ["find"], 1),
        ("tool-calls", [call("find", city="Rome")], [{"name": "find", "arguments": {"city": "Rome"}}], 1),
        ("tool-calls", [call("find", city="Rome", n=1)], [{"name": "find", "arguments": {"city": "Rome"}}], 0),
        ({"type": "tool-calls", "exact": False}, [call("find", city="Rome", n=1), call("x")],
         [{"name": "find", "arguments": {"city": "Rome"}}], 1),
        ("tool-calls", [call("b"), call("a")], "a, b", 1),
        ({"type": "tool-calls", "ordered": True}, [call("b"), call("a")], "a, b", 0),
        ({"type": "tool-calls", "ordered": True}, [call("a"), call("b")], "a, b", 1),
        ("tool-calls", [], "a", 0),
        ("tool-calls", [], [], 1),
        ("tool-call-f1", [call("a"), call("c")], "a, b", 0.5),
        ("is-valid-tool-call", [call("a")], [], 1),
        ("is-valid-tool-call", [{"function": {"name": "a", "arguments": "{"}}], [], 0),
    ],
)  # fmt: skip
def test_tool_calls_are_compared(said: Any, calls: list[Any], wanted: Any, value: float) -> None:
    assert scored(said, Answer(tool_calls=tuple(calls)), expected_tool_calls=wanted).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("said", "values", "why"),
    [
        ("numeric", {"expected": "many"}, "not a number"),
        ({"regex": "{{expected}}"}, {"expected": "("}, "no regular expression"),
        ("json-equals", {"expected": "{"}, "not JSON"),
        ("json-schema", {"schema": "{"}, "no JSON Schema"),
        ("tool-calls", {"expected_tool_calls": 5}, "must be names"),
        ({"python": "checks.py:broken"}, {}, "ZeroDivisionError"),
        ({"python": "checks.py:wordy"}, {}, "must give true or false"),
    ],
)
def test_what_cannot_be_scored_is_an_error_of_that_score(said: Any, values: dict[str, Any], why: str) -> None:
    score = scored(said, '{"a": 1}', **values)
    assert (score.value, score.passed) == (None, None)
    assert why in (score.error or "")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("equal", "'equal' is no scorer. Did you mean 'equals'?"),
        ({"value": 1}, "type is missing"),
        (7, "must be a scorer's name"),
        ({"type": "equals", "strip": "yes"}, "strip must be true or false."),
        ({"type": "equals", "stripp": True}, "stripp is no option of 'equals', which has: strip, ignore_case."),
        ({"type": "equals", "weight": -1}, "weight must be a number from 0 on."),
        ({"type": "similarity", "threshold": 75}, "threshold must be from 0 to 1."),
        ({"type": "equals", "name": "a/b"}, "name must be letters"),
        ({"type": "length"}, "min or max is missing."),
        ({"length": {"max": 1, "unit": "pages"}}, "unit must be words or characters"),
        ({"regex": "("}, "no regular expression"),
        ({"contains": ""}, "value is empty"),
        ({"is-json": {"type": "objekt"}}, "no JSON Schema"),
        ({"type": "is-refusal", "value": 1}, "value is not asked for"),
        ("python", "value is missing: file.py:function."),
        ({"python": "checks.py"}, "must be file.py:function"),
        ({"python": "checks.py:none"}, "has no function 'none'"),
        ({"python": "nowhere.py:f"}, "cannot be imported: FileNotFoundError"),
    ],
)  # fmt: skip
def test_a_scorer_that_is_not_understood_is_refused(said: Any, why: str) -> None:
    with pytest.raises(PlanInvalid) as refused:
        registry.rules(["equals", said], DATA)
    [(place, message)] = refused.value.problems
    assert place == ("scorers", 1)
    assert why in message


def test_two_of_a_kind_are_told_apart() -> None:
    said = [{"contains": "a"}, {"contains": "b"}, len, lambda output, case: True, {"type": "contains", "name": "mine"}]
    assert [rule.name for rule in registry.rules(said, DATA)] == ["contains", "contains 2", "len", "python", "mine"]


def test_the_total_is_a_weighted_mean() -> None:
    rules = registry.rules(
        [{"type": "equals", "weight": 3}, "similarity", "latency", {"latency": 2}, {"type": "contains", "weight": 0}],
        DATA,
    )
    scores = [
        Score("equals", 1, passed=True),
        Score("similarity", 0.5, passed=False),
        Score("latency", 9, passed=None),
        Score("latency 2", 9, passed=True),
        Score("contains", 0, passed=False),
    ]
    assert total(rules, scores) == (pytest.approx((3 + 0.5 + 1) / 5), False)
    assert total((), []) == (None, None)


def test_rouge_is_googles_to_the_ninth_digit() -> None:
    """The values of rouge-score 0.1.2, unstemmed, on 200 pairs."""
    scorers = [similar.Rouge1(), similar.Rouge2(), similar.RougeL(), similar.RougeLsum()]
    for text, wanted, values in json.loads((DATA / "rouge.json").read_text()):
        assert [scorer.likeness(text, wanted) for scorer in scorers] == pytest.approx(values, abs=1e-9)


def test_edit_distance_and_bleu_are_their_libraries_and_the_textbooks() -> None:
    draw = random.Random(4)
    for _ in range(200):
        one, other = ("".join(draw.choice("ab ü") for _ in range(draw.randint(0, 12))) for _ in range(2))
        assert scored("levenshtein", one, expected=other).value == distance(one, other)
        longest = max(len(one), len(other))
        likeness = 1 - distance(one, other) / longest if longest else 1
        assert scored("similarity", one, expected=other).value == pytest.approx(likeness, abs=1e-9)
        words = [" ".join(draw.choice(["the", "cat", "sat", "on"]) for _ in range(draw.randint(1, 9))) for _ in "12"]
        bleu = sentence_bleu(words[0], words[1:]).score / 100
        assert scored("bleu", words[0], expected=words[1]).value == pytest.approx(bleu, abs=1e-9)


def test_gleu_is_nltks_to_the_ninth_digit() -> None:
    """The values of nltk 3.9's `sentence_gleu` on 100 pairs."""
    scorer = similar.Gleu()
    for text, wanted, value in json.loads((DATA / "gleu.json").read_text()):
        assert scorer.likeness(text, wanted) == pytest.approx(value, abs=1e-9)


def test_retrieval_is_mlflows_and_scikit_learns() -> None:
    draw = random.Random(6)
    for _ in range(200):
        found = draw.sample("abcdefgh", draw.randint(0, 6))
        relevant = draw.sample("abcdefgh", draw.randint(0, 5))
        k = draw.randint(1, 5)
        values = {
            name: scored({"type": f"{name}-at-k", "k": k}, json.dumps(found), expected_documents=relevant).value
            for name in ("precision", "recall", "ndcg")
        }
        top = found[:k]
        assert values["precision"] == (len(set(top) & set(relevant)) / len(top) if top else 0)
        assert values["recall"] == (len(set(top) & set(relevant)) / len(relevant) if relevant else not top)
        if not top or not relevant:
            assert values["ndcg"] == (not top and not relevant)
            continue
        every = [*found, *(one for one in relevant if one not in found), "x", "y"]
        truth = [float(one in relevant) for one in every]
        order = [float(len(top) - top.index(one)) if one in top else 0.0 for one in every]
        if all(one in relevant for one in every[len(top) :]):
            continue
        theirs = ndcg_score([truth], [order], k=len(top), ignore_ties=True)
        best = sum(1 / math.log2(place + 2) for place in range(min(len(relevant), k)))
        reachable = sum(1 / math.log2(place + 2) for place in range(min(len(relevant), len(top))))
        assert values["ndcg"] == pytest.approx(theirs * reachable / best, abs=1e-9)


def distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        before, row = row, [place]
        for against, wanted in enumerate(other, 1):
            row.append(min(before[against] + 1, row[-1] + 1, before[against - 1] + (letter != wanted)))
    return row[-1]
