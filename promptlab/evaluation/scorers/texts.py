"""Scorers that look at an answer's text: what it is, holds, begins with, keeps to."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from promptlab.evaluation.cases import text_of
from promptlab.evaluation.scorers.scorer import Mark, Misused, Scorer, Seen, Unscorable, yes

#: Characters of an answer that a regular expression is shown: a bad one takes time that grows with them.
_SHOWN = 100_000


@dataclass(frozen=True)
class Equals(Scorer):
    """Whether the answer is the value. `strip`: white space around either does not count."""

    type = "equals"
    strip: bool = True
    ignore_case: bool = False

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return yes(self._plain(seen.answer.text) == self._plain(seen.text), f"It is not {_short(seen.text)}.")

    def _plain(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class ExactMatch(Equals):
    """MLflow's name for `equals`, which counts white space too."""

    type = "exact_match"
    strip: bool = False


@dataclass(frozen=True)
class _Holds(Scorer):
    """What `contains` and its kin share."""

    least: ClassVar[str] = "one"
    folded: ClassVar[bool] = False

    def check(self, value: Any) -> None:
        """As `Scorer.check`."""
        if value in ([], ""):
            raise Misused("value is empty, so every answer would hold it.")

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        wanted, text = self._wanted(seen), self._plain(seen.answer.text)
        missing = [one for one in wanted if self._plain(one) not in text]
        if self.least == "all":
            return yes(not missing, f"It does not hold {', '.join(map(_short, missing))}.")
        said = ", ".join(map(_short, wanted))
        return yes(len(missing) < len(wanted), f"It holds none of {said}." if len(wanted) > 1 else f"It has no {said}.")

    def _wanted(self, seen: Seen) -> list[str]:
        if self.least == "one":
            return [seen.text]
        # A cell of a table has several as promptfoo's do: separated by commas.
        return seen.texts() if isinstance(seen.value, list) else [part.strip() for part in seen.text.split(",")]

    def _plain(self, text: str) -> str:
        return text.casefold() if self.folded else text


@dataclass(frozen=True)
class Contains(_Holds):
    """Whether the answer holds the value."""

    type = "contains"


@dataclass(frozen=True)
class IContains(_Holds):
    """`contains`, in upper or lower case."""

    type = "icontains"
    folded = True


@dataclass(frozen=True)
class ContainsAny(_Holds):
    """Whether the answer holds one of several."""

    type = "contains-any"
    least = "any"


@dataclass(frozen=True)
class IContainsAny(_Holds):
    """`contains-any`, in upper or lower case."""

    type = "icontains-any"
    least = "any"
    folded = True


@dataclass(frozen=True)
class ContainsAll(_Holds):
    """Whether the answer holds each of several."""

    type = "contains-all"
    least = "all"


@dataclass(frozen=True)
class IContainsAll(_Holds):
    """`contains-all`, in upper or lower case."""

    type = "icontains-all"
    least = "all"
    folded = True


@dataclass(frozen=True)
class StartsWith(Scorer):
    """Whether the answer begins with the value."""

    type = "starts-with"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return yes(seen.answer.text.startswith(seen.text), f"It does not begin with {_short(seen.text)}.")


@dataclass(frozen=True)
class EndsWith(Scorer):
    """Whether the answer ends with the value."""

    type = "ends-with"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return yes(seen.answer.text.rstrip().endswith(seen.text), f"It does not end with {_short(seen.text)}.")


@dataclass(frozen=True)
class Regex(Scorer):
    """Whether a regular expression of Python's is found in the answer; `whole`: is all of it."""

    type = "regex"
    whole: bool = False

    def check(self, value: Any) -> None:
        """As `Scorer.check`."""
        if isinstance(value, str) and "{{" not in value:
            try:
                re.compile(value)
            except re.error as error:
                raise Misused(f"value is no regular expression: {error}.") from None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        try:
            pattern = _compiled(seen.text)
        except re.error as error:
            raise Unscorable(f"{_short(seen.text)} is no regular expression: {error}.") from None
        text = seen.answer.text[:_SHOWN]
        return yes(pattern.fullmatch(text) if self.whole else pattern.search(text), "It does not match.")


@dataclass(frozen=True)
class FinishReason(Scorer):
    """Whether the model ended as the value says: `stop`, `length`, `tool_calls`."""

    type = "finish-reason"
    value = "stop"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        return yes(seen.answer.finish == seen.text, f"It ended with {seen.answer.finish}.")


_REFUSALS = re.compile(
    r"\b(i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|won't|will not|must decline)|as an ai\b|"
    r"i apologi[sz]e, but|against my (?:guidelines|programming)|"
    r"not (?:able|allowed|permitted) to (?:help|assist|provide))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class IsRefusal(Scorer):
    """Whether the answer declines: it is empty, or says so in the words English models use."""

    type = "is-refusal"
    value = None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        text = seen.answer.text.replace("’", "'").strip()
        empty = not text and not seen.answer.tool_calls
        return yes(empty or _REFUSALS.search(text[:500]), "It does not decline.")


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _short(value: Any) -> str:
    text = text_of(value)
    return f"'{text}'" if len(text) <= 80 else f"'{text[:77]}...'"
