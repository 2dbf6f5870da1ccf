"""The tables of logged models: their params, their tags and what was measured of them."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, beginning, metadata

logged_models = sa.Table(
    "logged_models",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("artifact_uri", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("model_type", sa.Text, nullable=False),
    sa.Column("source_run_id", sa.Text, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index(
    "logged_models_by_creation",
    logged_models.c.experiment,
    logged_models.c.deleted,
    logged_models.c.created.desc(),
    logged_models.c.id,
)


def _of_model() -> sa.Column[int]:
    return sa.Column("model", Number, sa.ForeignKey("logged_models.number", ondelete="CASCADE"), nullable=False)


logged_model_params = sa.Table(
    "logged_model_params",
    metadata,
    _of_model(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "key"),
)
logged_model_tags = sa.Table(
    "logged_model_tags",
    metadata,
    _of_model(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "key"),
)
for labels in (logged_model_params, logged_model_tags):
    sa.Index(f"{labels.name}_by_value", labels.c.key, beginning(labels.c.value), labels.c.model)

# `dataset` is a digest of the dataset's name and its own digest, which are too long for PostgreSQL's indexes.
logged_model_metrics = sa.Table(
    "logged_model_metrics",
    metadata,
    _of_model(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("run", Number, sa.ForeignKey("runs.number", ondelete="CASCADE"), nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("nan", sa.Boolean, nullable=False),
    sa.Column("dataset_name", sa.Text, nullable=False),
    sa.Column("dataset_digest", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "key", "timestamp", "step", "run", "dataset", "value", "nan"),
    sa.Index("logged_model_metrics_by_value", "key", "value", "model"),
    sqlite_with_rowid=False,
)

TABLES = (logged_models, logged_model_params, logged_model_tags, logged_model_metrics)
