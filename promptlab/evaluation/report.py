"""What came of an evaluation: each variant's metrics with intervals, and the candidates beside the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promptlab.evaluation import comparison, evidence
from promptlab.evaluation.agreement import Agreement, agreement, corrected, label
from promptlab.evaluation.comparison import Comparison, Verdict
from promptlab.evaluation.evidence import Estimate
from promptlab.evaluation.plan import Plan, Variant
from promptlab.evaluation.running import Result
from promptlab.evaluation.scorers.rule import Rule

#: Metrics that every variant has beside those of its rules.
SCORE, PASS, ERRORS, COST, LATENCY = "score", "pass", "errors", "cost", "latency"
TOTAL_COST, P50, P95 = "total_cost", "latency_p50", "latency_p95"
#: Behind a judge's name: how often it says the same when it is asked again.
REPEATED = "repeated"
_TOKENS = ("input_tokens", "output_tokens")
_AMOUNTS = (COST, LATENCY, *_TOKENS)


@dataclass(frozen=True, slots=True)
class Summary:
    """One variant: its metrics by name, their values of each case, and how many scores could not be had, by rule."""

    variant: Variant
    metrics: Mapping[str, Estimate]
    by_case: Mapping[str, Mapping[str, float]]
    unscored: Mapping[str, int]
    answers: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule beside what people said of the answers: where both spoke, and the rate put right by it."""

    rule: str
    variant: str
    agreement: Agreement
    corrected: Estimate | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a gate says of one candidate: whether it is let through, and a line for each comparison."""

    candidate: str
    holds: bool
    lines: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """The end of an evaluation. `run_id` is that of the parent run, where it was logged; `judged` what a gate says."""

    plan: Plan
    results: Sequence[Result]
    variants: Sequence[Summary]
    comparisons: Sequence[Comparison]
    usd: float
    seconds: float
    run_id: str | None = None
    run_ids: dict[str, str] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the gate lets every candidate through; so it does where there is none."""
        return all(one.holds for one in self.judged)

    @property
    def baseline(self) -> Summary:
        """What the others are compared with."""
        return next(one for one in self.variants if one.variant is self.plan.baseline)

    @property
    def candidates(self) -> list[Summary]:
        """The variants that are to be judged: all but the baseline, or that one where it is alone."""
        return [one for one in self.variants if one.variant is not self.plan.baseline] or list(self.variants)

    def verdict(self, name: str) -> Verdict:
        """What the evidence says of one variant: worse by any metric is REJECTED, better by the first is VALIDATED."""
        ours = [one for one in self.comparisons if one.candidate == name]
        if any(one.verdict is Verdict.REJECTED for one in ours):
            return Verdict.REJECTED
        return ours[0].verdict if ours else Verdict.INCONCLUSIVE


def of(plan: Plan, results: Sequence[Result], usd: float, seconds: float) -> Report:
    """The report of these answers."""
    variants = [_summary(plan, one, [each for each in results if each.variant is one]) for one in plan.variants]
    baseline = next(one for one in variants if one.variant is plan.baseline)
    compared = []
    for one in variants:
        if one is not baseline:
            compared += _compared(plan.rules, one, baseline)
    report = Report(plan, results, variants, comparison.settle(compared), usd, seconds)
    report.checked = [
        made
        for one in plan.variants
        for number, rule in enumerate(plan.rules)
        if rule.scorer.labelled and (made := _checked(rule, number, [each for each in results if each.variant is one]))
    ]
    return report


def _checked(rule: Rule, number: int, results: Sequence[Result]) -> Checked | None:
    """One rule's verdicts beside people's, over the answers of one variant."""
    pairs: list[tuple[bool, bool]] = []
    others: list[float] = []
    for each in results:
        said = each.scores[number].passed
        people = label(each.case.values.get(rule.scorer.labelled or ""))
        if said is not None and people is not None:
            pairs.append((people, said))
        elif said is not None:
            others.append(float(said))
    words = {True: "pass", False: "fail"}
    found = agreement([words[one] for one, _ in pairs], [words[other] for _, other in pairs])
    if found is None:
        return None
    right = corrected(others, [(float(one), float(other)) for one, other in pairs])
    return Checked(rule.name, results[0].variant.name, found, right)


def _compared(rules: Sequence[Rule], one: Summary, baseline: Summary) -> list[Comparison]:
    """The metrics that the plan scores by; the weighted score first, where it is more than one of them."""
    names = [rule.name for rule in rules]
    if len(rules) > 1 and SCORE in one.metrics:
        names.insert(0, SCORE)
    less = {rule.name for rule in rules if rule.less_is_better}
    pair = (one.variant.name, baseline.variant.name)
    found = []
    for name in names:
        ours, theirs = one.by_case.get(name, {}), baseline.by_case.get(name, {})
        made = comparison.compare(name, pair, ours, theirs, less_is_better=name in less)
        found += [made] if made else []
    return found


def _summary(plan: Plan, variant: Variant, results: Sequence[Result]) -> Summary:
    values: dict[str, list[tuple[str, float | None]]] = {}
    unscored: dict[str, int] = {}
    for result in results:
        case, answer = result.case.id, result.answer
        for score in result.scores:
            values.setdefault(score.name, []).append((case, score.value))
            if score.repeated is not None:
                values.setdefault(f"{score.name} {REPEATED}", []).append((case, score.repeated))
            if score.error is not None:
                unscored[score.name] = unscored.get(score.name, 0) + 1
        values.setdefault(ERRORS, []).append((case, float(answer.error is not None)))
        measured: dict[str, float | None] = {
            SCORE: result.score,
            PASS: None if result.passed is None else float(result.passed),
        }
        if answer.error is None:
            measured |= {COST: answer.cost, LATENCY: answer.latency}
            measured |= {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
        for name, value in measured.items():
            if name not in {rule.name for rule in plan.rules}:
                values.setdefault(name, []).append((case, value))
    by_case = {name: _means(pairs) for name, pairs in values.items()}
    metrics = {}
    amounts = {*_AMOUNTS, *(rule.name for rule in plan.rules if rule.less_is_better)}
    for name, each in by_case.items():
        if made := evidence.estimate(list(each.values()), amounts=name in amounts):
            metrics[name] = made
    return Summary(variant, metrics | _plain(results), by_case, unscored, len(results))


def _means(pairs: Sequence[tuple[str, float | None]]) -> dict[str, float]:
    """The mean over the repeats of each case; a case without any value is left out."""
    each: dict[str, list[float]] = {}
    for case, value in pairs:
        if value is not None:
            each.setdefault(case, []).append(value)
    return {case: statistics.fmean(values) for case, values in each.items()}


def _plain(results: Sequence[Result]) -> dict[str, Estimate]:
    """Numbers of all answers together, which have no interval."""
    answered = [one.answer for one in results if one.answer.error is None]
    found = {TOTAL_COST: sum(answer.cost or 0.0 for answer in answered)}
    if answered:
        times = sorted(answer.latency for answer in answered)
        found |= {P50: _quantile(times, 0.5), P95: _quantile(times, 0.95)}
    return {name: Estimate(value, None, None, len(answered)) for name, value in found.items()}


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def expected(plan: Plan) -> dict[str, None]:
    """The names of the metrics that a report of this plan can have."""
    always = (SCORE, PASS, ERRORS, COST, LATENCY, TOTAL_COST, P50, P95, *_TOKENS)
    names = [name for rule in plan.rules for name in (rule.name, f"{rule.name} {REPEATED}")]
    return dict.fromkeys([*names, *always])
