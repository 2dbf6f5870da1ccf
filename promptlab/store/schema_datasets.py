"""The tables of evaluation datasets and of scorers. JSON is kept as text, for both databases alike."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, beginning, metadata

evaluation_datasets = sa.Table(
    "evaluation_datasets",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text),
    sa.Column("updated_by", sa.Text),
    sa.Column("schema", sa.Text),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Index("evaluation_datasets_by_creation", "created"),
    sqlite_autoincrement=True,
)


def _of_dataset() -> sa.Column[int]:
    owner = sa.ForeignKey("evaluation_datasets.number", ondelete="CASCADE")
    return sa.Column("dataset", Number, owner, nullable=False)


evaluation_dataset_tags = sa.Table(
    "evaluation_dataset_tags",
    metadata,
    _of_dataset(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("dataset", "key"),
)
sa.Index(
    "evaluation_dataset_tags_by_value",
    evaluation_dataset_tags.c.key,
    beginning(evaluation_dataset_tags.c.value),
    evaluation_dataset_tags.c.dataset,
)

evaluation_dataset_experiments = sa.Table(
    "evaluation_dataset_experiments",
    metadata,
    _of_dataset(),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.PrimaryKeyConstraint("dataset", "experiment"),
    sa.Index("evaluation_datasets_by_experiment", "experiment", "dataset"),
)

evaluation_dataset_records = sa.Table(
    "evaluation_dataset_records",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _of_dataset(),
    sa.Column("input_hash", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("outputs", sa.Text),
    sa.Column("expectations", sa.Text),
    sa.Column("tags", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text),
    sa.Column("updated_by", sa.Text),
    sa.UniqueConstraint("dataset", "input_hash"),
    sa.Index("evaluation_dataset_records_in_order", "dataset", "created", "number"),
    sqlite_autoincrement=True,
)

# A scorer's number goes on counting while any version of it is there; with the last, the scorer is gone.
scorers = sa.Table(
    "scorers",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.UniqueConstraint("experiment", "name"),
    sqlite_autoincrement=True,
)

scorer_versions = sa.Table(
    "scorer_versions",
    metadata,
    sa.Column("scorer", Number, sa.ForeignKey("scorers.number", ondelete="CASCADE"), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("serialized", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("scorer", "version"),
)

TABLES = (
    *(evaluation_datasets, evaluation_dataset_tags, evaluation_dataset_experiments, evaluation_dataset_records),
    *(scorers, scorer_versions),
)
