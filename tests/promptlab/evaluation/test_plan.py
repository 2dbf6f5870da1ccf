"""Plans and gates: what they come to, and what is refused, with place and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

from promptlab.client_calls import Answer
from promptlab.evaluation import cases, plan, report, writing
from promptlab.evaluation.book import Book, key_of
from promptlab.evaluation.gate import Gate
from promptlab.evaluation.problems import PlanInvalid
from promptlab.evaluation.running import Result
from promptlab.evaluation.scorers import rule

GOOD: dict[str, Any] = {"cases": [{"q": "a"}, {"q": "b"}], "prompts": {"p": "{{q}}"}, "routes": "chat"}


def read(**changed: Any) -> plan.Plan:
    return plan.read({**GOOD, **changed}, Path.cwd())


def test_variants_are_named_by_what_tells_them_apart() -> None:
    made = read(
        prompts={"p": "{{q}}", "s": {"system": "Be short.", "template": "{{q}}"}},
        routes=["chat", "fast"],
        parameters=[{"temperature": 0, "max_tokens": 9}, {"temperature": 1, "max_tokens": 9}],
        baseline="s",
    )
    assert len(made.variants) == 8
    assert made.variants[1].name == "p / chat / temperature=1"
    assert made.baseline.name == "s / chat / temperature=0"
    assert made.baseline.body(made.cases[0]) == {
        "model": "chat",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "a"}],
        "temperature": 0,
        "max_tokens": 9,
    }
    assert [one.name for one in read().variants] == ["p"]


@pytest.mark.parametrize(
    ("changed", "place", "why"),
    [
        ({"prompts": {}}, ("prompts",), "at least 1"),
        ({"prompts": {"p": {"system": "x"}}}, ("prompts", "p"), "say either template"),
        ({"prompts": {"p": {"template": "x", "tone": 1}}}, ("prompts", "p", "tone"), "is not understood"),
        ({"prompts": {"p": "{{q}} {{r}}"}}, ("prompts", "p"), "asks for 'r', which case 1 does not have. It has: q."),
        ({"promps": {}}, ("promps",), "is not understood. Known: name, experiment, cases, prompts"),
        ({"repeats": 0}, ("repeats",), "greater than or equal to 1"),
        ({"repeats": "3"}, ("repeats",), "valid integer"),
        ({"parameters": {"model": "x"}}, ("parameters", 0, "model"), "is filled by the evaluation"),
        ({"parameters": [{"n": 1}]}, ("parameters", 0, "n"), "is filled by the evaluation"),
        ({"parameters": [{}, {}]}, ("parameters",), "says the same twice"),
        ({"baseline": "x"}, ("baseline",), "'x' is no variant. There are: 'p'."),
        ({"scorers": "equals"}, ("scorers",), "asks for 'expected', which not every case has"),
        ({"scorers": ["equal"]}, ("scorers", 0), "Did you mean 'equals'?"),
        ({"cases": []}, ("cases",), "there are none"),
        ({"cases": [{"id": "x", "q": 1}, {"id": "x", "q": 2}]}, ("cases",), "two cases have the id 'x'"),
        ({"cases": "no.csv"}, ("cases",), "cannot be read: No such file"),
        ({"cases": "no.xlsx"}, ("cases",), "is none of .csv"),
        ({"routes": [""]}, ("routes", 0), "is empty"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(changed: dict[str, Any], place: tuple[Any, ...], why: str) -> None:
    with pytest.raises(PlanInvalid) as refused:
        read(**changed)
    assert [(place, True)] == [(at, why in message) for at, message in refused.value.problems], refused.value


def test_cases_are_read_alike_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"id": "x", "q": 'two\nlines, "quoted"', "expected": "1"}, {"id": "y", "q": "ü\u2028", "expected": "2"}]
    (tmp_path / "c.csv").write_text('\ufeffid,q,expected\nx,"two\nlines, ""quoted""",1\ny,ü\u2028,2\n', "utf-8")
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    read_ones = [cases.read(f"c.{kind}", tmp_path) for kind in ("csv", "json", "jsonl", "parquet")]
    assert [[dict(case.values) for case in found] for found in read_ones] == [rows] * 4
    assert [case.id for case in read_ones[0]] == ["x", "y"]
    assert len({cases.digest(found) for found in read_ones}) == 1


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("c.csv", "a,b\n1\n", "c.csv:2: more or fewer fields than the 2"),
        ("c.csv", 'a,b\n"1,2\n', "is not CSV"),
        ("c.csv", "a,b\n", "there are none"),
        ("c.jsonl", '{"a": 1}\n{"a": \n', "c.jsonl:2: is not JSON"),
        ("c.jsonl", "[1]\n", "case 1 is not a mapping"),
        ("c.json", "{}", "is not a list"),
        ("c.json", "[" * 100_000, "is not JSON"),
        ("c.parquet", "PAR", "is not Parquet"),
        ("c.csv", "a\n\udcff\n", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(name: str, text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PlanInvalid, match=why.replace("(", r"\(").replace("[", r"\[")):
        cases.read(name, tmp_path)


def test_a_book_keeps_answers_over_a_cut_and_refuses_a_second_writer(tmp_path: Path) -> None:
    path, body = tmp_path / "a" / "book.jsonl", {"model": "m", "messages": [{"role": "user", "content": "ü\ud800"}]}
    keys = [key_of(body, repeat) for repeat in range(3)]
    assert len(set(keys)) == 3
    assert key_of(dict(reversed(body.items())), 0) == keys[0]
    first, second = Answer("a\u2028\n", ({"id": "x"},), cost=0.0, latency=1.0), Answer("b", error=None)
    with Book(path) as book:
        book.add(keys[0], first)
        book.add(keys[1], second)
        with pytest.raises(PlanInvalid, match="in use by another evaluation"), Book(path):
            pass
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 3].rstrip(b"\n"))
    with Book(path) as book:
        assert len(book) == 2
        assert (book.get(keys[0]), book.get(keys[1]), book.get(keys[2])) == (first, second, None)
        book.add(keys[2], second)
    with Book(path) as book:
        assert book.get(keys[2]) == second


def made(correct: tuple[int, int] = (19, 10), costs: tuple[float, float] = (0.001, 0.002)) -> report.Report:
    """A report of two variants, 20 cases, so many of them correct and so dear."""
    document = {**GOOD, "prompts": {"new": "{{q}}", "old": "{{q}} "}, "baseline": "old"}
    document["cases"] = [{"q": str(number), "expected": "x"} for number in range(20)]
    document["scorers"] = [{"type": "equals", "name": "correctness"}, {"not-contains": "|"}]
    read_one = plan.read(document, Path.cwd())
    results = []
    for variant, hits, cost in zip(read_one.variants, correct, costs, strict=True):
        for number, case in enumerate(read_one.cases):
            answer = Answer(cost=cost, latency=0.1)
            scores = [rule.Score("correctness", float(number < hits), number < hits, "It is | <wrong>."),
                      rule.Score("not-contains", 1.0, passed=True)]  # fmt: skip
            score, passed = rule.total(read_one.rules, scores)
            results.append(Result(variant, case, 0, key_of(variant.body(case), 0), answer, scores, score, passed))
    return report.of(read_one, results, 0.06, 1.0)


@pytest.mark.parametrize(
    ("text", "holds", "line"),
    [
        ("correctness >= 0.9", True, "yes: correctness = 0.95 (0.7639 to 0.9911) >= 0.9 (not settled; about"),
        ("correctness >= 0.9 and cost <= baseline * 1.1", True, "yes: cost = 0.001"),
        ("correctness > 0.95", False, "no: correctness"),
        ("correctness > baseline + 0.3", True, "> baseline + 0.3 = 0.8"),
        ("cost < baseline", True, "yes"),
        ("not-contains == 1 and not errors > 0", True, "no: errors = 0"),
        ("correctness > 1 or pass >= 0.5", True, "yes: pass"),
        ("0.5 < score <= 1", True, "yes: 0.5 < score"),
        ("total_cost <= 0.5 and latency_p95 < 1 and -cost < 0", True, "total_cost = 0.02"),
        ("input_tokens < 5", False, "not known"),
        ("cost / (cost - cost) > 1", False, "not known"),
    ],
)
def test_a_gate_judges_the_candidates(text: str, holds: bool, line: str) -> None:
    found = made()
    [judged] = Gate(text, report.expected(found.plan)).judge(found)
    assert (judged.candidate, judged.holds) == ("new", holds), judged
    assert any(line in said for said in judged.lines), judged.lines


def test_a_gate_that_must_be_settled_asks_the_whole_interval() -> None:
    found = made()
    names = report.expected(found.plan)
    assert Gate("correctness >= 0.9", names).judge(found)[0].holds
    assert not Gate("correctness >= 0.9", names, settled=True).judge(found)[0].holds
    assert Gate("correctness >= 0.7", names, settled=True).judge(found)[0].holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("correctnes >= 0.9", "Did you mean 'correctness'?"),
        ("correctness", "must compare"),
        ("correctness >=", "is not understood"),
        ("1 > 0", "must name a metric"),
        ("__import__('os').system('x') > cost", "may hold metrics"),
        ("cost > 'x'", "may hold"),
        ("cost ** 2 > 1", "may hold"),
        ("(" * 3000 + "cost", "too long"),
        ("cost in (1, 2)", "must compare"),
    ],
)
def test_a_gate_that_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(PlanInvalid, match=f"gate: .*{why}".replace("?", r"\?")):
        Gate(text, report.expected(made().plan))


def test_the_report_says_who_is_better_and_whether_that_is_settled() -> None:
    found = made()
    assert found.verdict("new") == "VALIDATED"
    assert made((10, 19)).verdict("new") == "REJECTED"
    assert made((11, 10)).verdict("new") == "INCONCLUSIVE"
    found.judged = Gate("correctness >= 0.99", report.expected(found.plan)).judge(found)
    text = writing.markdown(found)
    for part in ("| new |", "**VALIDATED**", "baseline", "McNemar", "**failed**"):
        assert part in text
    xml = writing.junit(found).decode()
    assert xml.count("<testcase") == 41
    assert xml.count("<failure") == 1 + 10 + 1
    assert "&lt;wrong&gt;" in xml
