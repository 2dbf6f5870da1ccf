"""Scorers of structure: JSON, JSON Schema, and tool calls beside those that were expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from promptlab.client import Json
from promptlab.evaluation.scorers.scorer import Kind, Mark, Misused, Scorer, Seen, Unscorable, yes


@dataclass(frozen=True)
class IsJson(Scorer):
    """Whether the answer is JSON, and keeps to the schema that is the value, if there is one."""

    type = "is-json"
    value: ClassVar[Any] = None

    def check(self, value: Any) -> None:
        """As `Scorer.check`."""
        if isinstance(value, Mapping) and "{{" not in json.dumps(value):
            _check_schema(value)

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        try:
            found = _parsed(seen.answer.text)
        except ValueError:
            return Mark(0.0, "It is not JSON.")
        return _kept(found, seen.value)


@dataclass(frozen=True)
class JsonSchema(IsJson):
    """`is-json` that needs a schema."""

    type = "json-schema"
    value = "{{schema}}"


@dataclass(frozen=True)
class ContainsJson(IsJson):
    """Whether there is JSON in the answer, in a fence or between words; with a schema, one that keeps to it."""

    type = "contains-json"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        last = Mark(0.0, "There is no JSON in it.")
        for found in _within(seen.answer.text):
            last = _kept(found, seen.value)
            if last.value:
                return last
        return last


@dataclass(frozen=True)
class JsonEquals(Scorer):
    """Whether the answer is JSON equal to the value, in whatever order its keys are."""

    type = "json-equals"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        try:
            wanted = _parsed(seen.value) if isinstance(seen.value, str) else seen.value
        except ValueError:
            raise Unscorable("The value is not JSON.") from None
        try:
            found = _parsed(seen.answer.text)
        except ValueError:
            return Mark(0.0, "It is not JSON.")
        return yes(_same(found, wanted), "It is other JSON.")


@dataclass(frozen=True)
class ToolCalls(Scorer):
    """Whether the model called the tools of the value: names, or `{name, arguments}`.

    `ordered`: in that order. `exact`: no others, and arguments that are said are all there are.
    """

    type = "tool-calls"
    value = "{{expected_tool_calls}}"
    ordered: bool = False
    exact: bool = True

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        wanted, called = _wanted(seen.value), _called(seen.answer.tool_calls)
        if self.exact and len(called) != len(wanted):
            return Mark(0.0, f"It called {_names(called)}, not {_names(wanted)}.")
        left = list(called)
        for call in wanted:
            place = next((number for number, one in enumerate(left) if self._fits(call, one)), None)
            if place is None or (self.ordered and self.exact and place):
                return Mark(0.0, f"It did not call {call['name']} as expected; it called {_names(called)}.")
            del left[: place + 1 if self.ordered else 0]
            if not self.ordered:
                del left[place]
        return Mark(1.0)

    def _fits(self, wanted: Json, called: Json) -> bool:
        if wanted["name"] != called["name"]:
            return False
        if "arguments" not in wanted:
            return True
        expected, given = wanted["arguments"], called["arguments"]
        if self.exact or not (isinstance(expected, dict) and isinstance(given, dict)):
            return _same(expected, given)
        return all(name in given and _same(value, given[name]) for name, value in expected.items())


@dataclass(frozen=True)
class ToolCallF1(Scorer):
    """How well the names of the tools called agree with those of the value: F1."""

    type = "tool-call-f1"
    kind = Kind.SHARE
    value = "{{expected_tool_calls}}"

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        wanted = {call["name"] for call in _wanted(seen.value)}
        called = {call["name"] for call in _called(seen.answer.tool_calls)}
        if not wanted and not called:
            return Mark(1.0)
        return Mark(2 * len(wanted & called) / (len(wanted) + len(called)), f"It called {', '.join(sorted(called))}.")


@dataclass(frozen=True)
class ValidToolCall(Scorer):
    """Whether there are tool calls, and the arguments of each are a JSON object."""

    type = "is-valid-tool-call"
    value = None

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        called = _called(seen.answer.tool_calls)
        return yes(called and all(isinstance(one["arguments"], dict) for one in called), f"It called {_names(called)}.")


@dataclass(frozen=True)
class ValidOpenAiToolsCall(ValidToolCall):
    """The name promptfoo has for `is-valid-tool-call`."""

    type = "is-valid-openai-tools-call"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text.strip(), parse_constant=_refused)
    except RecursionError:
        raise ValueError("too deep") from None


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _within(text: str) -> list[Any]:
    """Every object or list in `text`, outermost first. Bounded: a text of brackets alone has no end of beginnings."""
    decoder, found, place, tries = json.JSONDecoder(), [], 0, 0
    while place < len(text) and tries < 1000:
        starts = [start for start in (text.find("{", place), text.find("[", place)) if start >= 0]
        if not starts:
            break
        tries += 1
        try:
            value, place = decoder.raw_decode(text, min(starts))
            found.append(value)
        except (ValueError, RecursionError):
            place = min(starts) + 1
    return found


def _kept(found: Any, schema: Any) -> Mark:
    if schema in (None, ""):
        return Mark(1.0)
    import jsonschema

    try:
        wanted = json.loads(schema) if isinstance(schema, str) else schema
        _check_schema(wanted)
    except ValueError as error:
        raise Unscorable(f"The value is no JSON Schema: {error}") from None
    kind = jsonschema.validators.validator_for(wanted, default=jsonschema.Draft202012Validator)
    first = next(iter(kind(wanted).iter_errors(found)), None)
    if first is None:
        return Mark(1.0)
    where = first.json_path.removeprefix("$").removeprefix(".")
    return Mark(0.0, f"{where}: {first.message}"[:300] if where else first.message[:300])


def _check_schema(schema: Any) -> None:
    import jsonschema

    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Misused(f"value is no JSON Schema: {error.message[:200]}.") from None
    except (TypeError, AttributeError):
        raise Misused("value is no JSON Schema: it is not a mapping.") from None


def _wanted(value: Any) -> list[Json]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [name.strip() for name in value.split(",") if name.strip()]
    calls = value if isinstance(value, list) else [value]
    named: list[Json] = [{"name": call} if isinstance(call, str) else call for call in calls]
    if any(not isinstance(call, dict) or not isinstance(call.get("name"), str) for call in named):
        raise Unscorable("The expected tool calls must be names, or mappings with a name and arguments.")
    return named


def _called(calls: tuple[Json, ...]) -> list[Json]:
    found = []
    for call in calls:
        function = call.get("function") or {}
        try:
            arguments: Any = json.loads(function.get("arguments") or "{}")
        except (ValueError, TypeError):
            arguments = None
        found.append({"name": function.get("name"), "arguments": arguments})
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _names(calls: list[Json]) -> str:
    return ", ".join(str(call["name"]) for call in calls) or "no tool"
