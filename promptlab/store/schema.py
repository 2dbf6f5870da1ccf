"""The lab's tables.

Rows refer to each other by small integers, not by the 32 letters a client sees. A metric is a
row per run and key that holds the latest value; its points hang below it, so reading a history
is one range of one index and the latest value needs no search.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

# SQLite gives out row numbers only for a column of exactly this type.
Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# PostgreSQL refuses index entries over 2,700 bytes: long values are indexed by their beginning.
INDEXED_LETTERS = 200


def beginning(column: sa.ColumnElement[str] | str) -> sa.ColumnElement[str]:
    """The part of a long value that its index holds."""
    return sa.func.substr(column, 1, INDEXED_LETTERS)


experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", Number, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("artifact_location", sa.Text, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Index("experiments_by_creation", "deleted", "created"),
    # Else SQLite would give a new experiment the number, and so the artifacts, of one that is gone.
    sqlite_autoincrement=True,
)

experiment_tags = sa.Table(
    "experiment_tags",
    metadata,
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("experiment", "key"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("experiment", Number, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger),
    sa.Column("artifact_uri", sa.Text, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
    sqlite_autoincrement=True,
)
sa.Index("runs_by_start", runs.c.experiment, runs.c.deleted, runs.c.start.desc(), runs.c.id)


def _of_run() -> sa.Column[int]:
    return sa.Column("run", Number, sa.ForeignKey("runs.number", ondelete="CASCADE"), nullable=False)


params = sa.Table(
    "params",
    metadata,
    _of_run(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run", "key"),
)
sa.Index("params_by_value", params.c.key, beginning(params.c.value), params.c.run)

tags = sa.Table(
    "tags",
    metadata,
    _of_run(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("run", "key"),
)
sa.Index("tags_by_value", tags.c.key, beginning(tags.c.value), tags.c.run)

# The latest point of each metric of each run. NaN is `value` 0 with `nan` set: databases disagree about NaN.
metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("id", Number, primary_key=True),
    _of_run(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("nan", sa.Boolean, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("run", "key"),
    sa.Index("metrics_by_value", "key", "value", "run"),
)

# The primary key is MLflow's identity of a point and its order of a history, both at once.
points = sa.Table(
    "metric_points",
    metadata,
    sa.Column("metric", Number, sa.ForeignKey("metrics.id", ondelete="CASCADE"), nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("nan", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("metric", "timestamp", "step", "value", "nan"),
    sqlite_with_rowid=False,
)
