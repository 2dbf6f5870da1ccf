"""A report as people and CI read it: Markdown, JUnit, a table of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from promptlab.client import Json
from promptlab.client_calls import columns
from promptlab.evaluation.book import Book
from promptlab.evaluation.comparison import Comparison, Verdict
from promptlab.evaluation.evidence import more_cases
from promptlab.evaluation.report import COST, ERRORS, LATENCY, PASS, SCORE, Checked, Judged, Report, Summary

_FACTS = ("latency", "cost", "input_tokens", "output_tokens", "finish", "deployment", "request_id", "error")
# What XML 1.0 cannot hold.
_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(report: Report) -> str:
    """The report as Markdown: the variants, the comparisons with verdicts, the gate."""
    plan = report.plan
    asked = f"{len(plan.cases)} cases" + (f" × {plan.repeats} repeats" if plan.repeats > 1 else "")
    lines = [
        f"# {plan.name}",
        "",
        f"{asked}, {len(plan.variants)} variants; {report.usd:.6f} USD, {report.seconds:.1f} s.",
        "",
    ]
    lines += _variants(report)
    if report.comparisons:
        lines += ["", f"Beside `{plan.baseline.name}`, tests paired by case, p corrected by Holm:", ""]
        lines += ["| candidate | metric | difference (95 %) | p | effect | verdict |", "|---|---|---:|---:|---:|---|"]
        lines += [_compared(one) for one in report.comparisons]
    lines += _checked(report)
    lines += _unscored(report)
    for one in report.judged:
        lines += ["", f"Gate, `{one.candidate}`: **{'passed' if one.holds else 'failed'}**", ""]
        lines += [f"- {line}" for line in one.lines]
    # Half a character, which JSON can say, is no text.
    return ("\n".join(lines) + "\n").encode("utf-8", "replace").decode()


def _variants(report: Report) -> list[str]:
    ruled = [rule.name for rule in report.plan.rules]
    shown = [*([SCORE] if len(ruled) > 1 else []), *ruled, PASS, ERRORS, COST, LATENCY]
    shown = [name for name in dict.fromkeys(shown) if any(name in one.metrics for one in report.variants)]
    lines = ["| variant | " + " | ".join(shown) + " | verdict |", "|---|" + "---:|" * len(shown) + "---|"]
    for one in report.variants:
        cells = [str(one.metrics[name]) if name in one.metrics else "?" for name in shown]
        verdict = "baseline" if one.variant is report.plan.baseline else f"**{report.verdict(one.variant.name)}**"
        lines.append(f"| {_cell(one.variant.name)} | " + " | ".join(cells) + f" | {verdict} |")
    return lines


def _compared(one: Comparison) -> str:
    interval = "" if one.low is None or one.high is None else f" ({one.low:+.3g} to {one.high:+.3g})"
    verdict = str(one.verdict)
    if one.verdict is Verdict.INCONCLUSIVE and one.more:
        verdict += f"; {more_cases(one.more)}"
    cells = [_cell(one.candidate), _cell(one.metric), f"{one.difference:+.3g}{interval}"]
    return "| " + " | ".join([*cells, f"{one.adjusted:.3g} ({one.test})", f"{one.effect:+.2f}", verdict]) + " |"


def _checked(report: Report) -> list[str]:
    """Judges beside people."""
    lines = []
    for one in report.checked:
        found = one.agreement
        kappa = (
            "no kappa: all say the same"
            if found.kappa is None
            else f"kappa {_interval(found.kappa, found.low, found.high)}"
        )
        lines += ["", f"`{one.rule}` beside people, `{one.variant}`: agree {found.agreed}, {kappa}", ""]
        lines += ["| people \\\\ judge | " + " | ".join(found.labels) + " |", "|---|" + "---:|" * len(found.labels)]
        for name in found.labels:
            counts = [str(found.table.get((name, other), 0)) for other in found.labels]
            lines.append(f"| {name} | " + " | ".join(counts) + " |")
        if one.corrected is not None:
            lines += ["", f"Put right by what people said: {one.corrected}"]
    return lines


def _unscored(report: Report) -> list[str]:
    """Scores that could not be had, with the first reason."""
    lines = []
    for one in report.variants:
        for name, count in one.unscored.items():
            why = next(
                score.error
                for each in report.results
                if each.variant is one.variant
                for score in each.scores
                if score.name == name and score.error
            )
            lines.append(
                f"- `{name}` could not score {count} of {one.answers} answers of `{one.variant.name}`: {_cell(why)}"
            )
    return ["", *lines] if lines else []


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def junit(report: Report) -> bytes:
    """The report as JUnit XML: a suite for each variant with its answers, and one for the gate."""
    root = ElementTree.Element("testsuites", name=_said(report.plan.name))
    for one in report.variants:
        results = [each for each in report.results if each.variant is one.variant]
        suite = ElementTree.SubElement(root, "testsuite", name=_said(one.variant.name), tests=str(len(results)))
        failures = errors = 0
        for each in results:
            named = each.case.id if report.plan.repeats == 1 else f"{each.case.id} #{each.repeat + 1}"
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_said(one.variant.name),
                name=_said(named),
                time=f"{each.answer.latency:.3f}",
            )
            if each.answer.error is not None:
                errors += 1
                ElementTree.SubElement(case, "error", message=_said(each.answer.error))
            elif each.passed is False:
                failures += 1
                failed = [score for score in each.scores if score.passed is False or score.error]
                why = "; ".join(f"{score.name}: {score.error or score.why or score.value}" for score in failed)
                ElementTree.SubElement(case, "failure", message=_said(why))
        suite.set("failures", str(failures))
        suite.set("errors", str(errors))
    if report.judged:
        _gate(root, report.judged)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _gate(root: ElementTree.Element, judged: Sequence[Judged]) -> None:
    failed = str(sum(not one.holds for one in judged))
    suite = ElementTree.SubElement(root, "testsuite", name="gate", tests=str(len(judged)), failures=failed, errors="0")
    for one in judged:
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=_said(one.candidate))
        if not one.holds:
            ElementTree.SubElement(case, "failure", message=_said("; ".join(one.lines)))


def _said(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)


def table(report: Report, one: Summary, book: Book) -> Json:
    """A variant's answers as the table that MLflow's `load_table` reads: a row for each."""
    values = list(dict.fromkeys(name for case in report.plan.cases for name in case.values if name != "id"))
    ruled = [name for rule in report.plan.rules for name in (rule.name, f"{rule.name}/passed", f"{rule.name}/why")]
    names = ["case", "repeat", "prompt", "output", *ruled, SCORE, PASS, *_FACTS]
    inputs = [f"inputs/{name}" if name in names else name for name in values]
    rows = [[each.case.values.get(name) for name in values] + row for each, row in _rows(report, one, book)]
    return columns([*inputs, *names], rows)


def _rows(report: Report, one: Summary, book: Book) -> Iterator[tuple[Any, list[Any]]]:
    for each in report.results:
        if each.variant is not one.variant:
            continue
        answer = book.get(each.key) or each.answer
        output = answer.text or (json.dumps(list(answer.tool_calls)) if answer.tool_calls else "")
        ruled: list[Any] = []
        for score in each.scores:
            ruled += [score.value, score.passed, score.error or score.why]
        prompt = "\n\n".join(message["content"] for message in each.variant.prompt.rendered(each.case))
        facts = [getattr(each.answer, name) for name in _FACTS]
        yield each, [each.case.id, each.repeat + 1, prompt, output, *ruled, each.score, each.passed, *facts]


def document(report: Report) -> Json:
    """The report as JSON: what `--json` prints, and `evaluation.json` of the run."""
    return {
        "name": report.plan.name,
        "run_id": report.run_id,
        "baseline": report.plan.baseline.name,
        "cases": len(report.plan.cases),
        "repeats": report.plan.repeats,
        "usd": report.usd,
        "seconds": report.seconds,
        "variants": [_variant(report, one) for one in report.variants],
        "comparisons": [_comparison(one) for one in report.comparisons],
        "people": [_beside_people(one) for one in report.checked],
        "gate": [{"candidate": one.candidate, "holds": one.holds, "lines": list(one.lines)} for one in report.judged],
    }


def _beside_people(one: Checked) -> Json:
    found = one.agreement
    told: Json = {"rule": one.rule, "variant": one.variant, "agreed": found.agreed.value, "cases": found.agreed.cases}
    told |= {"kappa": found.kappa, "low": found.low, "high": found.high}
    table = [{"people": people, "judge": judge, "count": count} for (people, judge), count in found.table.items()]
    right = one.corrected
    told["corrected"] = None if right is None else {"value": right.value, "low": right.low, "high": right.high}
    return {**told, "table": table}


def _comparison(one: Comparison) -> Json:
    told = {name: getattr(one, name) for name in one.__slots__ if name != "differences"}
    return {**told, "verdict": str(one.verdict)}


def _variant(report: Report, one: Summary) -> Json:
    variant = one.variant
    metrics = {
        name: {"value": each.value, "low": each.low, "high": each.high, "cases": each.cases}
        for name, each in one.metrics.items()
    }
    return {
        "name": variant.name,
        "prompt": variant.prompt.name,
        "route": variant.route or None,
        "outputs": variant.recorded,
        "parameters": dict(variant.parameters),
        "run_id": report.run_ids.get(variant.name),
        "verdict": None if variant is report.plan.baseline else str(report.verdict(variant.name)),
        "answers": one.answers,
        "unscored": dict(one.unscored),
        "metrics": metrics,
    }
