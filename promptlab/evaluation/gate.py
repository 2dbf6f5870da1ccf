"""A condition that candidates must meet: `correctness >= 0.9 and cost <= baseline * 1.1`."""

from __future__ import annotations

import ast
import difflib
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from promptlab.evaluation import evidence
from promptlab.evaluation.evidence import Estimate, more_cases
from promptlab.evaluation.problems import PlanInvalid
from promptlab.evaluation.report import Judged, Report, Summary

_COMPARED: Mapping[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.GtE: (">=", operator.ge),
    ast.Gt: (">", operator.gt),
    ast.LtE: ("<=", operator.le),
    ast.Lt: ("<", operator.lt),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_COUNTED: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_BASELINE, _WORDS = "baseline", ("and", "or", "not", "baseline")
_LONGEST = 2000


class Gate:
    """A condition, understood. Raises `PlanInvalid` where it is none."""

    def __init__(self, text: str, metrics: Mapping[str, Any], *, settled: bool = False) -> None:
        """`metrics` are the names it may use. `settled`: a comparison must hold for all of the interval."""
        self.text = text
        self._settled = settled
        self._names: dict[str, str] = {}
        self._tree = self._parsed(text, metrics)

    def judge(self, report: Report) -> list[Judged]:
        """What it says of each candidate."""
        return [self._judged(one, report.baseline) for one in report.candidates]

    def _judged(self, one: Summary, baseline: Summary) -> Judged:
        reading = _Reading(self._names, one, baseline, settled=self._settled)
        holds = reading.true(self._tree)
        return Judged(one.variant.name, holds, tuple(reading.lines))

    def _parsed(self, text: str, metrics: Mapping[str, Any]) -> ast.expr:
        if len(text) > _LONGEST:
            raise _refused("is too long.")
        known = sorted(metrics, key=len, reverse=True)
        names = {f"metric_{number}": name for number, name in enumerate(known)}
        back = {name: word for word, name in names.items()}
        # In one pass, the longest first: a metric's name may hold another's, or a minus sign.
        pattern = "|".join(map(re.escape, known)) or "(?!)"
        written = re.sub(rf"(?<![\w.])({pattern})(?![\w-])", lambda found: f" {back[found[1]]} ", text)
        self._names = names
        try:
            tree = ast.parse(written.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _refused("is not understood. For example: pass >= 0.9 and cost <= baseline * 1.1") from None
        _check(tree, names, known)
        return tree


def _refused(message: str) -> PlanInvalid:
    return PlanInvalid.at(("gate",), message)


def _check(tree: ast.expr, names: Mapping[str, str], known: list[str]) -> None:
    """Refuse all but conditions of comparisons of sums of metrics and numbers."""
    if isinstance(tree, ast.BoolOp):
        for part in tree.values:
            _check(part, names, known)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        _check(tree.operand, names, known)
    elif isinstance(tree, ast.Compare) and all(type(one) in _COMPARED for one in tree.ops):
        for part in (tree.left, *tree.comparators):
            _check_sum(part, names, known)
        if _metric_in(tree, names) is None:
            raise _refused("a comparison must name a metric.")
    else:
        raise _refused("must compare: for example pass >= 0.9")


def _check_sum(tree: ast.expr, names: Mapping[str, str], known: list[str]) -> None:
    if isinstance(tree, ast.BinOp) and type(tree.op) in _COUNTED:
        _check_sum(tree.left, names, known)
        _check_sum(tree.right, names, known)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        _check_sum(tree.operand, names, known)
    elif isinstance(tree, ast.Name):
        if tree.id not in names and tree.id != _BASELINE:
            close = difflib.get_close_matches(tree.id, known, n=1)
            fix = f" Did you mean '{close[0]}'?" if close else ""
            raise _refused(f"'{tree.id[:60]}' is no metric.{fix} There are: {', '.join(sorted(known))}.")
    elif not (isinstance(tree, ast.Constant) and type(tree.value) in (int, float)):
        raise _refused("may hold metrics, numbers, baseline, + - * / and comparisons.")


def _metric_in(tree: ast.AST, names: Mapping[str, str]) -> str | None:
    return next((names[one.id] for one in ast.walk(tree) if isinstance(one, ast.Name) and one.id in names), None)


class _Reading:
    """A condition as it is for one candidate, with what was found on the way."""

    def __init__(self, names: Mapping[str, str], one: Summary, baseline: Summary, *, settled: bool) -> None:
        self._names = names
        self._one = one
        self._baseline = baseline
        self._settled = settled
        self._about = ""
        self.lines: list[str] = []

    def true(self, tree: ast.expr) -> bool:
        """Whether a condition holds. All of it is read, also what can no longer matter: each line is worth knowing."""
        if isinstance(tree, ast.BoolOp):
            parts = [self.true(part) for part in tree.values]
            return all(parts) if isinstance(tree.op, ast.And) else any(parts)
        if isinstance(tree, ast.UnaryOp):
            return not self.true(tree.operand)
        if not isinstance(tree, ast.Compare):
            raise TypeError("a gate was not checked")
        sides = [tree.left, *tree.comparators]
        self._about = _metric_in(tree, self._names) or ""
        pairs = zip(sides, tree.ops, sides[1:], strict=False)
        found = [self._compared(left, op, right) for left, op, right in pairs]
        return all(found)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> bool:
        sign, holds = _COMPARED[type(op)]
        one, other = self._number(left), self._number(right)
        said = f"{self._shown(left, one)} {sign} {self._shown(right, other)}"
        if one is None or other is None:
            self.lines.append(f"no: {said}: not known")
            return False
        found = holds(one, other)
        estimate = self._estimate(left)
        if estimate is None or estimate.low is None or estimate.high is None:
            self.lines.append(f"{'yes' if found else 'no'}: {said}")
            return found
        settled = holds(estimate.low, other) == holds(estimate.high, other) == found
        if not settled:
            more = evidence.cases_for_bound(estimate, other)
            said += " (not settled"
            said += f"; {more_cases(more - estimate.cases)})" if more else ")"
        found = found and (settled or not self._settled)
        self.lines.append(f"{'yes' if found else 'no'}: {said}")
        return found

    def _estimate(self, tree: ast.expr) -> Estimate | None:
        """The metric that stands there alone."""
        return self._one.metrics.get(self._names.get(tree.id, "")) if isinstance(tree, ast.Name) else None

    def _shown(self, tree: ast.expr, value: float | None) -> str:
        if isinstance(tree, ast.Constant):
            return f"{value:g}"
        written = ast.unparse(tree)
        for word, name in self._names.items():
            written = re.sub(rf"\b{word}\b", name, written)
        estimate = self._estimate(tree)
        return f"{written} = {estimate or ('?' if value is None else f'{value:.4g}')}"

    def _number(self, tree: ast.expr) -> float | None:
        if isinstance(tree, ast.Constant):
            return float(tree.value)  # type: ignore[arg-type]  # `_check` has seen that it is a number
        if isinstance(tree, ast.UnaryOp):
            inner = self._number(tree.operand)
            return None if inner is None else -inner
        if isinstance(tree, ast.BinOp):
            left, right = self._number(tree.left), self._number(tree.right)
            if left is None or right is None or (isinstance(tree.op, ast.Div) and right == 0):
                return None
            return _COUNTED[type(tree.op)](left, right)
        if not isinstance(tree, ast.Name):
            raise TypeError("a gate was not checked")
        of, name = (self._baseline, self._about) if tree.id == _BASELINE else (self._one, self._names[tree.id])
        return of.metrics[name].value if name in of.metrics else None
