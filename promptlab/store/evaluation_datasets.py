"""SQL of evaluation datasets and their records. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
import sqlalchemy as sa

from promptlab.entities import Page
from promptlab.entities_datasets import EvaluationDataset, Record
from promptlab.filters import Clause, Entity, Order
from promptlab.store.paging import SortKey
from promptlab.store.schema_datasets import (
    evaluation_dataset_experiments,
    evaluation_dataset_records,
    evaluation_dataset_tags,
    evaluation_datasets,
)
from promptlab.store.search import column_sort, compare, held, page, tagged
from promptlab.store.upsert import insert_missing, insert_or_replace

# Rows are fetched for this many at once: databases bound the length of an IN list.
_BATCH = 500
_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": evaluation_datasets.c.name,
    "created_time": evaluation_datasets.c.created,
    "last_update_time": evaluation_datasets.c.updated,
    "created_by": evaluation_datasets.c.created_by,
    "last_updated_by": evaluation_datasets.c.updated_by,
}
_NEWEST_FIRST = (Order(Entity.ATTRIBUTE, "created_time", ascending=False),)
_JSON = ("inputs", "outputs", "expectations", "tags", "source")


def find(connection: sa.Connection, dataset_id: str, *, lock: bool = False) -> EvaluationDataset | None:
    """The dataset of that id; with `lock`, nobody else changes it until the transaction ends."""
    query = sa.select(evaluation_datasets).where(evaluation_datasets.c.id == dataset_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _from_rows(connection, [row])[0]


def insert(connection: sa.Connection, dataset: EvaluationDataset) -> int:
    """The number of a new dataset, without tags."""
    values = {name: value for name, value in asdict(dataset).items() if name not in ("number", "tags", "schema")}
    made: int = connection.scalar(sa.insert(evaluation_datasets).values(values).returning(evaluation_datasets.c.number))
    return made


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one dataset."""
    connection.execute(sa.update(evaluation_datasets).where(evaluation_datasets.c.number == number).values(**values))


def delete(connection: sa.Connection, dataset_id: str) -> None:
    """Remove a dataset with all its records, if it is there."""
    connection.execute(sa.delete(evaluation_datasets).where(evaluation_datasets.c.id == dataset_id))


def set_tags(connection: sa.Connection, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a dataset."""
    rows = [{"dataset": number, "key": key, "value": value} for key, value in tags.items()]
    insert_or_replace(connection, evaluation_dataset_tags, rows)


def delete_tag(connection: sa.Connection, number: int, key: str) -> None:
    """Remove a tag, if there is such a one."""
    mine = (evaluation_dataset_tags.c.dataset == number) & (evaluation_dataset_tags.c.key == key)
    connection.execute(sa.delete(evaluation_dataset_tags).where(mine))


def experiments_of(connection: sa.Connection, number: int) -> list[int]:
    """The experiments that a dataset belongs to."""
    mine = evaluation_dataset_experiments.c.dataset == number
    query = sa.select(evaluation_dataset_experiments.c.experiment).where(mine)
    return list(connection.scalars(query.order_by(evaluation_dataset_experiments.c.experiment)))


def add_to(connection: sa.Connection, number: int, experiments: Iterable[int]) -> None:
    """Have a dataset belong to these experiments too."""
    rows = [{"dataset": number, "experiment": one} for one in dict.fromkeys(experiments)]
    insert_missing(connection, evaluation_dataset_experiments, rows)


def remove_from(connection: sa.Connection, number: int, experiments: Sequence[int]) -> None:
    """Have a dataset belong to these experiments no more."""
    of = evaluation_dataset_experiments
    connection.execute(sa.delete(of).where(of.c.dataset == number, of.c.experiment.in_(experiments)))


def search(
    connection: sa.Connection,
    experiments: Sequence[int],
    clauses: Sequence[Clause],
    orders: Sequence[Order],
    limit: int,
    token: str | None,
) -> Page[EvaluationDataset]:
    """Datasets of these experiments (of any, where none is named) for which every clause holds; newest first."""
    tags, of = evaluation_dataset_tags, evaluation_dataset_experiments
    query = sa.select(evaluation_datasets)
    if experiments:
        query = query.where(
            evaluation_datasets.c.number.in_(sa.select(of.c.dataset).where(of.c.experiment.in_(experiments)))
        )

    def one(clause: Clause) -> sa.ColumnElement[bool]:
        if clause.entity is Entity.TAG:
            return tagged(connection, tags, tags.c.dataset, evaluation_datasets.c.number, clause)
        return compare(connection, _COLUMNS[clause.key], clause)

    query = query.where(*held(clauses, one))
    keys = [column_sort(connection, _COLUMNS[order.key], order.ascending) for order in orders or _NEWEST_FIRST]
    keys.append(SortKey(evaluation_datasets.c.number, int, ascending=False))
    rows, next_token = page(connection, query, keys, limit, token)
    return Page(_from_rows(connection, rows), next_token)


def records(connection: sa.Connection, number: int, limit: int, token: str | None) -> Page[Record]:
    """Records of a dataset, oldest first."""
    query = sa.select(evaluation_dataset_records).where(evaluation_dataset_records.c.dataset == number)
    keys = [
        SortKey(evaluation_dataset_records.c.created, int),
        SortKey(evaluation_dataset_records.c.number, int),
    ]
    rows, next_token = page(connection, query, keys, limit, token)
    return Page([_record(row) for row in rows], next_token)


def records_by_hash(connection: sa.Connection, number: int, hashes: Sequence[str]) -> dict[str, Record]:
    """Those records of a dataset that there are, by the hash of their inputs."""
    found: dict[str, Record] = {}
    table = evaluation_dataset_records
    for start in range(0, len(hashes), _BATCH):
        wanted = table.c.input_hash.in_(hashes[start : start + _BATCH])
        for row in connection.execute(sa.select(table).where(table.c.dataset == number, wanted)):
            found[row.input_hash] = _record(row)
    return found


def insert_records(connection: sa.Connection, number: int, new: Mapping[str, Record]) -> None:
    """Add records, by the hash of their inputs."""
    if new:
        rows = [{"dataset": number, "input_hash": of, **_values(record)} for of, record in new.items()]
        connection.execute(sa.insert(evaluation_dataset_records), rows)


def update_records(connection: sa.Connection, changed: Iterable[Record]) -> None:
    """Replace what records that are there say, but for their ids and inputs."""
    table = evaluation_dataset_records
    rows = [_values(record) for record in changed]
    if rows:
        fields = [name for name in rows[0] if name not in ("id", "inputs")]
        statement = sa.update(table).where(table.c.id == sa.bindparam("of_id"))
        statement = statement.values({name: sa.bindparam(f"new_{name}") for name in fields})
        given = [{"of_id": row["id"], **{f"new_{name}": row[name] for name in fields}} for row in rows]
        connection.execute(statement, given)


def delete_records(connection: sa.Connection, number: int, ids: Sequence[str]) -> int:
    """Remove records of a dataset; how many there were."""
    table, removed = evaluation_dataset_records, 0
    for start in range(0, len(ids), _BATCH):
        wanted = table.c.id.in_(ids[start : start + _BATCH])
        removed += connection.execute(sa.delete(table).where(table.c.dataset == number, wanted)).rowcount
    return removed


def _from_rows(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[EvaluationDataset]:
    labels: dict[int, dict[str, str]] = defaultdict(dict)
    tags = evaluation_dataset_tags
    for start in range(0, len(rows), _BATCH):
        wanted = tags.c.dataset.in_([row.number for row in rows[start : start + _BATCH]])
        for tag in connection.execute(sa.select(tags).where(wanted).order_by(tags.c.key)):
            labels[tag.dataset][tag.key] = tag.value
    return [
        EvaluationDataset(
            number=row.number,
            id=row.id,
            name=row.name,
            created=row.created,
            updated=row.updated,
            digest=row.digest,
            created_by=row.created_by,
            updated_by=row.updated_by,
            records=row.records,
            schema=None if row.schema is None else orjson.loads(row.schema),
            tags=labels[row.number],
        )
        for row in rows
    ]


def _values(record: Record) -> dict[str, Any]:
    values = asdict(record)
    for name in _JSON:
        values[name] = None if values[name] is None else orjson.dumps(values[name]).decode()
    return values


def _record(row: sa.Row[Any]) -> Record:
    parts: dict[str, Any] = {}
    for name in _JSON:
        text = getattr(row, name)
        parts[name] = None if text is None else orjson.loads(text)
    others = {name: getattr(row, name) for name in ("id", "created", "updated", "created_by", "updated_by")}
    return Record(**parts, **others)
