"""SQL of the registry's two searches. Models and prompts share the tables, and are never found together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Page
from promptlab.entities_registry import IS_PROMPT, ModelVersion, RegisteredModel
from promptlab.filters import Clause, Entity, Order
from promptlab.store import model_versions as version_store
from promptlab.store import registered_models as model_store
from promptlab.store.paging import SortKey
from promptlab.store.schema import beginning
from promptlab.store.schema_registry import (
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
)
from promptlab.store.search import column_sort, compare, held, page, tagged

_MODEL_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": registered_models.c.name,
    "last_updated_timestamp": registered_models.c.updated,
}
_VERSION_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": registered_models.c.name,
    "version_number": model_versions.c.version,
    "run_id": model_versions.c.run_id,
    "source_path": model_versions.c.source,
    "creation_timestamp": model_versions.c.created,
    "last_updated_timestamp": model_versions.c.updated,
}
_LATEST_FIRST = (Order(Entity.ATTRIBUTE, "last_updated_timestamp", ascending=False),)


def search_models(
    connection: sa.Connection,
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
    *,
    prompts: bool,
) -> Page[RegisteredModel]:
    """Registered models, or else prompts, for which every clause holds; by name unless `orders` say otherwise."""
    tags, owner, mine = registered_model_tags, registered_model_tags.c.model, registered_models.c.number
    query = sa.select(registered_models)

    def one(clause: Clause) -> sa.ColumnElement[bool]:
        if clause.entity is Entity.TAG:
            return tagged(connection, tags, owner, mine, clause)
        return compare(connection, _MODEL_COLUMNS[clause.key], clause)

    query = query.where(*held(clauses, one))
    if not prompts:
        query = query.where(mine.not_in(sa.select(owner).where(*_is_prompt(tags))))
    keys = [column_sort(connection, _MODEL_COLUMNS[order.key], order.ascending) for order in orders]
    if not any(order.key == "name" for order in orders):
        keys.append(column_sort(connection, registered_models.c.name, ascending=True))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(model_store.from_rows(connection, rows), next_token)


def search_versions(
    connection: sa.Connection,
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
    *,
    prompts: bool,
) -> Page[ModelVersion]:
    """Versions of models, or else of prompts, for which every clause holds; the last changed first."""
    tags, owner, mine = model_version_tags, model_version_tags.c.version, model_versions.c.number
    query = version_store.NAMED

    def one(clause: Clause) -> sa.ColumnElement[bool]:
        if clause.entity is Entity.TAG:
            return tagged(connection, tags, owner, mine, clause)
        return compare(connection, _VERSION_COLUMNS[clause.key], clause)

    query = query.where(*held(clauses, one))
    if not prompts:
        of_prompts = sa.select(model_versions.c.model).join(tags, owner == mine).where(*_is_prompt(tags))
        query = query.where(model_versions.c.model.not_in(of_prompts))
    chosen = orders or _LATEST_FIRST
    keys = [column_sort(connection, _VERSION_COLUMNS[order.key], order.ascending) for order in chosen]
    if not any(order.key == "name" for order in chosen):
        keys.append(column_sort(connection, registered_models.c.name, ascending=True))
    if not any(order.key == "version_number" for order in chosen):
        keys.append(SortKey(model_versions.c.version, int, ascending=False))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(version_store.from_rows(connection, rows), next_token)


def _is_prompt(tags: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return tags.c.key == IS_PROMPT, beginning(tags.c.value) == "true"
