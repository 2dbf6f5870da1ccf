"""A scorer as a plan uses it: under a name, with a value, a threshold, a weight, perhaps turned round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptlab import templates
from promptlab.client import CallFailed
from promptlab.client_calls import Answer
from promptlab.evaluation.cases import Case
from promptlab.evaluation.scorers.scorer import Ask, Kind, Mark, Scorer, Seen, Unscorable


@dataclass(frozen=True, slots=True)
class Score:
    """What one rule says of one answer. `passed` is None where it has no threshold; `error` why it says nothing."""

    name: str
    value: float | None
    passed: bool | None
    why: str = ""
    error: str | None = None
    repeated: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One scorer of a plan. `name` is that of its metric."""

    name: str
    scorer: Scorer
    value: Any = None
    threshold: float | None = None
    weight: float = 1.0
    negated: bool = False

    @property
    def less_is_better(self) -> bool:
        """Whether its numbers are amounts to be kept small."""
        return self.scorer.kind is Kind.AMOUNT

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of cases' values that it asks for."""
        asked = tuple(dict.fromkeys(_variables(self.value)))
        own = self.scorer.fills()
        labels = (self.scorer.labelled,) if self.scorer.labelled else ()
        return (*(name for name in asked if name not in own), *labels)

    def seen(self, case: Case, answer: Answer, messages: Sequence[Mapping[str, str]]) -> Seen:
        """The answer as its scorer sees it."""
        value = self.value if self.scorer.fills() else _filled(self.value, case)
        return Seen(case, answer, tuple(messages), value)

    async def score(self, seen: Seen, ask: Ask) -> Score:
        """What it says of an answer; what goes wrong on the way is an error of this one score."""
        try:
            mark = await self.scorer.judged(seen, ask) if self.scorer.routes else self.scorer.mark(seen)
        except (Unscorable, CallFailed) as error:
            return Score(self.name, None, None, error=str(error))
        return self._said(mark)

    def _said(self, mark: Mark) -> Score:
        if self.scorer.kind is Kind.AMOUNT:
            passed = None if self.threshold is None else (mark.value <= self.threshold) is not self.negated
            return Score(self.name, mark.value, passed, mark.why)
        threshold = 1.0 if self.threshold is None else self.threshold
        passed = (mark.value >= threshold) is not self.negated
        if not self.negated:
            return Score(self.name, mark.value, passed, mark.why, repeated=mark.repeated)
        why = mark.why or ("" if passed else "It holds, and must not.")
        return Score(self.name, 1.0 - mark.value, passed, why, repeated=mark.repeated)


def total(rules: Sequence[Rule], scores: Sequence[Score]) -> tuple[float | None, bool | None]:
    """The weighted mean of scores from 0 to 1, and whether every rule with a weight passed.

    An amount counts as 1 or 0 by its threshold, and not at all without one; nor does a rule of weight 0. A score
    that failed counts as 0: what could not be judged was not shown to be good.
    """
    weights = value = 0.0
    passed: list[bool] = []
    for rule, score in zip(rules, scores, strict=True):
        if rule.weight == 0 or (rule.less_is_better and rule.threshold is None):
            continue
        share = float(bool(score.passed)) if rule.less_is_better else score.value or 0.0
        weights, value = weights + rule.weight, value + rule.weight * share
        passed.append(bool(score.passed))
    return (value / weights, all(passed)) if passed else (None, None)


def of_failed(rules: Sequence[Rule], why: str) -> list[Score]:
    """The scores of an answer that never came: a share of 0 and no pass; an amount is not known."""
    return [
        Score(rule.name, None if rule.less_is_better else 0.0, False if rule.threshold is not None else None, why)
        for rule in rules
    ]


def renamed(rule: Rule, name: str) -> Rule:
    """The same rule under another name."""
    return replace(rule, name=name)


def _variables(value: Any) -> list[str]:
    if isinstance(value, str):
        return list(templates.variables(value))
    if isinstance(value, list):
        return [name for one in value for name in _variables(one)]
    if isinstance(value, Mapping):
        return [name for one in value.values() for name in _variables(one)]
    return []


def _filled(value: Any, case: Case) -> Any:
    """`value` with the case's values in it. `{{name}}` alone is that value itself, also where it is no text."""
    if isinstance(value, str):
        names = templates.variables(value)
        if len(names) == 1 and value.strip() == value and value.startswith("{{") and value.endswith("}}"):
            inner = value[2:-2].strip()
            if inner == names[0]:
                return case.values[inner]
        texts = case.texts
        return templates.render(value, {name: texts[name] for name in names}) if names else value
    if isinstance(value, list):
        return [_filled(one, case) for one in value]
    if isinstance(value, Mapping):
        return {name: _filled(one, case) for name, one in value.items()}
    return value
