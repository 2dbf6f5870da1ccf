"""Scorers by the names that plans say, and rules made of what a plan says of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptlab.evaluation.problems import PlanInvalid
from promptlab.evaluation.scorers import code, meaning, measured, similar, structured, texts
from promptlab.evaluation.scorers.judges import JUDGES
from promptlab.evaluation.scorers.markup import MARKUP
from promptlab.evaluation.scorers.retrieval import RETRIEVAL
from promptlab.evaluation.scorers.rule import Rule, renamed
from promptlab.evaluation.scorers.scorer import Kind, Misused, Scorer

_ALL: tuple[type[Scorer], ...] = (
    *(texts.Equals, texts.ExactMatch, texts.Contains, texts.IContains, texts.ContainsAny, texts.IContainsAny),
    *(texts.ContainsAll, texts.IContainsAll, texts.StartsWith, texts.EndsWith, texts.Regex, texts.FinishReason),
    *(texts.IsRefusal, structured.IsJson, structured.JsonSchema, structured.ContainsJson, structured.JsonEquals),
    *(
        structured.ToolCalls,
        structured.ToolCallF1,
        structured.ValidToolCall,
        structured.ValidOpenAiToolsCall,
        measured.Length,
        measured.Latency,
    ),
    *(measured.Cost, measured.OutputTokens, measured.Levenshtein, measured.Numeric, similar.Similarity),
    *(
        similar.Bleu,
        similar.Chrf,
        similar.Rouge1,
        similar.RougeN,
        similar.Rouge2,
        similar.RougeL,
        similar.RougeLsum,
        similar.Gleu,
    ),
    *(code.Python, meaning.EmbeddingSimilarity, meaning.Similar, *RETRIEVAL, *MARKUP, *JUDGES),
)
SCORERS: Mapping[str, type[Scorer]] = {scorer.type: scorer for scorer in _ALL}
#: Keys of a rule itself; all others are its scorer's options.
_RULE = ("type", "value", "threshold", "weight", "name")
_NOT = "not-"
_NAME = re.compile(r"[A-Za-z][\w. -]{0,99}")


def rules(said: Sequence[Any], folder: Path) -> tuple[Rule, ...]:
    """The rules of a plan's `scorers`. Raises `PlanInvalid` with all that is wrong.

    Each is a name (`not-equals`), a mapping (`{type: contains, value: …}` or `{contains: …}`), a Python function, or
    a `Scorer`. Two of a kind without names of their own are told apart by a number.
    """
    found: list[Rule] = []
    problems = []
    for number, one in enumerate(said):
        try:
            found.append(_rule(one, folder))
        except ValueError as error:
            problems.append((("scorers", number), str(error)))
    if problems:
        raise PlanInvalid(problems)
    taken: dict[str, int] = {}
    for number, rule in enumerate(found):
        taken[rule.name] = taken.get(rule.name, 0) + 1
        if taken[rule.name] > 1:
            found[number] = renamed(rule, f"{rule.name} {taken[rule.name]}")
    return tuple(found)


def _rule(said: Any, folder: Path) -> Rule:
    if isinstance(said, Scorer):
        return Rule(said.type, said, said.value, said.threshold)
    if callable(said):
        name = getattr(said, "__name__", "")
        return Rule(name if _NAME.fullmatch(name) else "python", code.Python(said), None, code.Python.threshold)
    if isinstance(said, str):
        said = {"type": said}
    if not isinstance(said, Mapping):
        raise Misused("must be a scorer's name, or a mapping with a type.")
    asked = dict(said)
    if "type" not in asked and len(asked) >= 1:
        asked = _shortened(asked)
    name = asked.get("type")
    if not isinstance(name, str):
        raise Misused("type is missing: the name of a scorer.")
    negated = name.startswith(_NOT) and name not in SCORERS
    scorer = SCORERS.get(name.removeprefix(_NOT) if negated else name)
    if scorer is None:
        raise Misused(f"'{name[:60]}' is no scorer.{_nearest(name)}")
    options = {key: value for key, value in asked.items() if key not in _RULE}
    value = asked.get("value", scorer.value)
    if scorer is code.Python:
        options["function"], value = _function(options.get("function", value), folder), None
    elif "value" in asked and scorer.value is None and not issubclass(scorer, structured.IsJson):
        raise Misused(f"value is not asked for by '{scorer.type}'.")
    made = scorer.made(options)
    made.check(value)
    threshold = _number(asked, "threshold", scorer.threshold, scorer.kind)
    weight = _number(asked, "weight", 1.0, Kind.AMOUNT)
    return Rule(_named(asked, name), made, value, threshold, 1.0 if weight is None else weight, negated)


def _shortened(asked: dict[str, Any]) -> dict[str, Any]:
    """`{contains: x, weight: 2}` written out."""
    names = [name for name in asked if name.removeprefix(_NOT) in SCORERS]
    if len(names) != 1:
        first = next(iter(asked))
        raise Misused(f"type is missing: the name of a scorer.{_nearest(first) if len(asked) == 1 else ''}")
    value, scorer = asked.pop(names[0]), SCORERS[names[0].removeprefix(_NOT)]
    if scorer.value is None and not issubclass(scorer, structured.IsJson | code.Python):
        if isinstance(value, Mapping):
            return {"type": names[0], **asked, **value}
        if scorer.kind is Kind.AMOUNT:
            return {"type": names[0], "threshold": value, **asked}
    return {"type": names[0], "value": value, **asked}


def _named(asked: Mapping[str, Any], name: str) -> str:
    said = asked.get("name", name)
    if not isinstance(said, str) or not _NAME.fullmatch(said):
        raise Misused("name must be letters, figures, '_', '-', '.' and spaces, at most 100, a letter first.")
    return said.strip()


def _function(said: Any, folder: Path) -> Callable[..., Any]:
    if callable(said):
        function: Callable[..., Any] = said
        return function
    if not isinstance(said, str):
        raise Misused("value is missing: file.py:function.")
    return code.load(said, folder)


def _number(asked: Mapping[str, Any], name: str, default: float | None, kind: Kind) -> float | None:
    said = asked.get(name, default)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 0:
        raise Misused(f"{name} must be a number from 0 on.")
    if name == "threshold" and kind is not Kind.AMOUNT and said > 1:
        raise Misused("threshold must be from 0 to 1.")
    return float(said)


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.removeprefix(_NOT), SCORERS, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" There are: {', '.join(SCORERS)}."
