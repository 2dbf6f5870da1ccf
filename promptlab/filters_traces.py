"""What the search of traces knows of MLflow's grammar, and what its keys stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptlab import filters
from promptlab.entities_traces import LINKED_PROMPTS, SOURCE_RUN, TRACE_NAME
from promptlab.errors import InvalidParameter
from promptlab.filters import LISTS, NUMERIC, PRESENCE, TEXT, Clause, Entity, Grammar, Order

_TEXT = (*TEXT, "RLIKE")
_LABELS = (*_TEXT, *PRESENCE)
_ASSESSED = tuple(dict.fromkeys((*_LABELS, *NUMERIC)))
_ALIASES = {"timestamp": "timestamp_ms", "execution_time": "execution_time_ms", "end_time": "end_time_ms"}
_NUMBERS = frozenset(_ALIASES) | frozenset(_ALIASES.values())
_SPAN_KEYS = ("name", "type", "status")

TRACES = Grammar(
    entities={
        **dict.fromkeys(("attribute", "attributes", "trace"), Entity.ATTRIBUTE),
        **dict.fromkeys(("tag", "tags"), Entity.TAG),
        **dict.fromkeys(("request_metadata", "metadata"), Entity.METADATA),
        "span": Entity.SPAN,
        "feedback": Entity.FEEDBACK,
        "expectation": Entity.EXPECTATION,
        "issue": Entity.ISSUE,
    },
    names=("attribute", "trace", "tag", "metadata", "span", "feedback", "expectation", "issue"),
    entity_word="Valid values are",
    text_keys=frozenset({"request_id", "status", "client_request_id", "name", "run_id", "prompt", "text"}),
    number_keys=_NUMBERS,
    list_keys=frozenset({"name", "status", "request_id", "run_id", "client_request_id"}),
    presence=frozenset({Entity.TAG, Entity.METADATA, Entity.FEEDBACK, Entity.EXPECTATION}),
    ordered=frozenset({Entity.ATTRIBUTE, Entity.TAG, Entity.METADATA}),
    aliases=_ALIASES,
    order_keys=frozenset({"experiment_id", "status", "request_id", "name", "run_id"}) | _NUMBERS,
    comparators={
        Entity.ATTRIBUTE: (*_TEXT, *LISTS),
        Entity.TAG: _LABELS,
        Entity.METADATA: _LABELS,
        Entity.SPAN: (*_TEXT, *LISTS),
        Entity.FEEDBACK: _ASSESSED,
        Entity.EXPECTATION: _ASSESSED,
        Entity.ISSUE: ("=",),
    },
)

_PLACES = {
    "name": (Entity.TAG, TRACE_NAME),
    "prompt": (Entity.TAG, LINKED_PROMPTS),
    "run_id": (Entity.METADATA, SOURCE_RUN),
    "text": (Entity.SPAN, "content"),
}


def parse_filter(text: str) -> list[Clause]:
    """The clauses of a filter of traces, each about the place where what it asks for is kept."""
    return filters.each(filters.parse_filter(text, TRACES), _placed)


def parse_order_by(items: Sequence[str]) -> list[Order]:
    """The keys to sort traces by, each in the place where it is kept."""
    orders = filters.parse_order_by(items, TRACES)
    return [
        replace(order, entity=_PLACES[order.key][0], key=_PLACES[order.key][1])
        if order.entity is Entity.ATTRIBUTE and order.key in _PLACES
        else order
        for order in orders
    ]


def _placed(clause: Clause) -> Clause:
    if clause.entity is Entity.ATTRIBUTE and clause.key in _PLACES:
        entity, key = _PLACES[clause.key]
        clause = replace(clause, entity=entity, key=key)
    match clause.entity:
        case Entity.TAG if clause.key == LINKED_PROMPTS:
            _check_prompt(clause)
        case Entity.SPAN:
            return _of_span(clause)
        case Entity.FEEDBACK | Entity.EXPECTATION:
            _check_assessed(clause)
        case Entity.ISSUE if clause.key != "id":
            raise InvalidParameter(f"Invalid issue attribute '{clause.key}'. Supported attributes: id")
    return clause


def _check_prompt(clause: Clause) -> None:
    if clause.comparator != "=":
        raise InvalidParameter(
            f"Invalid comparator '{clause.comparator}' for prompts filter. "
            "Only '=' is supported with format: prompt = \"name/version\""
        )
    if str(clause.value).count("/") != 1:
        raise InvalidParameter(
            f"Invalid prompts filter value '{clause.value}'. Expected format: prompt = \"name/version\""
        )


def _of_span(clause: Clause) -> Clause:
    if clause.key == "content":
        if clause.comparator not in ("LIKE", "ILIKE"):
            raise InvalidParameter(
                f"span.content comparator '{clause.comparator}' not one of ['ILIKE', 'LIKE']: "
                "what spans hold can be searched by pattern only"
            )
        return clause
    if clause.key in _SPAN_KEYS:
        return clause
    if clause.key.startswith("attributes."):
        key = clause.key.removeprefix("attributes.")
        if len(key) > 1 and key[0] == key[-1] and key[0] in '`"':
            key = key[1:-1]
        if not key or '"' in key or "\\" in key:
            raise InvalidParameter(f"Span attribute name '{key}' cannot be empty or hold quotes or backslashes")
        return replace(clause, key=f"attributes.{key}")
    raise InvalidParameter(
        f"Invalid span attribute '{clause.key}'. "
        f"Supported attributes: {', '.join(_SPAN_KEYS)}, content, attributes.<attribute_name>."
    )


def _check_assessed(clause: Clause) -> None:
    if not clause.key:
        raise InvalidParameter("Assessment field name cannot be empty")
    is_number = isinstance(clause.value, float)
    if (clause.comparator in ("<", "<=", ">", ">=")) and not is_number:
        raise InvalidParameter(
            f"Expected a numeric value for {clause.entity.value} when using comparator "
            f"'{clause.comparator}'. Got value {clause.value}"
        )
    if is_number and clause.comparator not in NUMERIC:
        raise InvalidParameter(
            f"Expected a quoted string value for {clause.entity.value} (e.g. 'my-value'). Got value {clause.value}"
        )
