"""The registry's tables. A registered model and a version have numbers of their own, so a rename is one row.

A deleted version stays as a row without contents: its number in the model is not given out again.
"""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, beginning, metadata

registered_models = sa.Table(
    "registered_models",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)


def _of_model() -> sa.Column[int]:
    return sa.Column("model", Number, sa.ForeignKey("registered_models.number", ondelete="CASCADE"), nullable=False)


registered_model_tags = sa.Table(
    "registered_model_tags",
    metadata,
    _of_model(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "key"),
)
sa.Index(
    "registered_model_tags_by_value",
    registered_model_tags.c.key,
    beginning(registered_model_tags.c.value),
    registered_model_tags.c.model,
)

model_aliases = sa.Table(
    "registered_model_aliases",
    metadata,
    _of_model(),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("model", "alias"),
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("number", Number, primary_key=True),
    _of_model(),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("run_link", sa.Text, nullable=False),
    sa.UniqueConstraint("model", "version"),
    sa.Index("model_versions_by_update", "deleted", "updated"),
    sa.Index("model_versions_by_run", "run_id"),
    sqlite_autoincrement=True,
)

model_version_tags = sa.Table(
    "model_version_tags",
    metadata,
    sa.Column("version", Number, sa.ForeignKey("model_versions.number", ondelete="CASCADE"), nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("version", "key"),
)
sa.Index(
    "model_version_tags_by_value",
    model_version_tags.c.key,
    beginning(model_version_tags.c.value),
    model_version_tags.c.version,
)

TABLES = (registered_models, registered_model_tags, model_aliases, model_versions, model_version_tags)
