"""The tables of what runs read and made: datasets, and the ids of logged models."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, beginning, metadata

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("source_type", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("schema", sa.Text),
    sa.Column("profile", sa.Text),
    sa.UniqueConstraint("experiment", "name", "digest"),
    sqlite_autoincrement=True,
)


def _of_run() -> sa.Column[int]:
    return sa.Column("run", Number, sa.ForeignKey("runs.number", ondelete="CASCADE"), nullable=False)


run_datasets = sa.Table(
    "run_datasets",
    metadata,
    _of_run(),
    sa.Column("dataset", Number, sa.ForeignKey("datasets.number", ondelete="CASCADE"), nullable=False),
    sa.PrimaryKeyConstraint("run", "dataset"),
    sa.Index("run_datasets_by_dataset", "dataset", "run"),
)

run_dataset_tags = sa.Table(
    "run_dataset_tags",
    metadata,
    sa.Column("run", Number, nullable=False),
    sa.Column("dataset", Number, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run", "dataset", "key"),
    sa.ForeignKeyConstraint(["run", "dataset"], ["run_datasets.run", "run_datasets.dataset"], ondelete="CASCADE"),
)
sa.Index(
    "run_dataset_tags_by_value",
    run_dataset_tags.c.key,
    beginning(run_dataset_tags.c.value),
    run_dataset_tags.c.run,
)

# The ids are the clients' own words: MLflow's server does not ask whether it knows them.
run_models = sa.Table(
    "run_models",
    metadata,
    _of_run(),
    sa.Column("output", sa.Boolean, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("run", "output", "model_id"),
)

TABLES = (datasets, run_datasets, run_dataset_tags, run_models)
