"""What the search of logged models knows of MLflow's grammar; it is the one whose order is a list of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptlab.entities_models import ModelOrder
from promptlab.errors import InvalidParameter
from promptlab.filters import MAX_ORDER_BY, Clause, Entity, Grammar

_NAMES = ("attributes", "metrics", "params", "tags")
_TIMES = {
    **dict.fromkeys(("creation_timestamp", "creation_timestamp_ms"), "creation_time"),
    **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), "last_updated_time"),
}
_TEXT = frozenset({"name", "model_id", "model_type", "status", "source_run_id"})
_NUMBERS = frozenset({"creation_time", "last_updated_time"})
_METRIC = "metrics."
_STATUS = "LOGGED_MODEL_"

LOGGED_MODELS = Grammar(
    entities={
        **dict.fromkeys(("attribute", "attributes"), Entity.ATTRIBUTE),
        **dict.fromkeys(("metric", "metrics"), Entity.METRIC),
        **dict.fromkeys(("param", "params"), Entity.PARAM),
        **dict.fromkeys(("tag", "tags"), Entity.TAG),
    },
    names=list(_NAMES),
    entity_word="Expected one of",
    text_keys=_TEXT,
    number_keys=_NUMBERS,
    list_keys=_TEXT,
    presence=frozenset({Entity.PARAM, Entity.TAG}),
    ordered=frozenset(),
    aliases=_TIMES,
    listed=frozenset({Entity.PARAM, Entity.TAG}),
)


def stored(clause: Clause) -> Clause:
    """The clause as the table means it: a status may be said with or without its prefix, and is kept with it."""
    if clause.entity is not Entity.ATTRIBUTE or clause.key != "status":
        return clause
    if isinstance(clause.value, tuple):
        return replace(clause, value=tuple(_status(str(one)) for one in clause.value))
    return replace(clause, value=_status(str(clause.value))) if clause.comparator in ("=", "!=") else clause


def _status(name: str) -> str:
    return name if name.startswith(_STATUS) else _STATUS + name


def parse_model_orders(orders: Sequence[ModelOrder]) -> list[ModelOrder]:
    """The orders with attributes under one name each. Raises `InvalidParameter` for what cannot be sorted by."""
    if len(orders) > MAX_ORDER_BY:
        raise InvalidParameter(f"`order_by` has more than {MAX_ORDER_BY} fields")
    parsed = [_parse(order) for order in orders]
    if len({(one.field, one.dataset_name, one.dataset_digest) for one in parsed}) < len(parsed):
        raise InvalidParameter(f"`order_by` contains duplicate fields: {[order.field for order in orders]}")
    return parsed


def _parse(order: ModelOrder) -> ModelOrder:
    if not order.field:
        raise InvalidParameter("`field_name` in the `order_by` clause must be specified.")
    if order.dataset_digest and not order.dataset_name:
        raise InvalidParameter("`dataset_digest` can only be specified if `dataset_name` is also specified.")
    if "." in order.field:
        if not order.field.startswith(_METRIC):
            raise InvalidParameter(f"Invalid order by field name: {order.field}. Only metrics are supported.")
        return order
    name = _TIMES.get(order.field.strip(), order.field.strip())
    if name not in _TEXT | _NUMBERS:
        raise InvalidParameter(f"Invalid order by field name: {order.field}")
    return replace(order, field=name, dataset_name="", dataset_digest="")


def metric_of(order: ModelOrder) -> str | None:
    """The metric to sort by, or None for an attribute."""
    return order.field.removeprefix(_METRIC) if order.field.startswith(_METRIC) else None
