"""The tables of webhooks, and of messages on their way: written in the transaction of what they tell of."""

from __future__ import annotations

import sqlalchemy as sa

from promptlab.store.schema import Number, metadata

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("number", Number, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("secret", sa.Text),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)


def _of_webhook() -> sa.Column[int]:
    owner = sa.ForeignKey("webhooks.number", ondelete="CASCADE")
    return sa.Column("webhook", Number, owner, nullable=False)


webhook_events = sa.Table(
    "webhook_events",
    metadata,
    _of_webhook(),
    sa.Column("entity", sa.Integer, nullable=False),
    sa.Column("action", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("webhook", "entity", "action"),
    sa.Index("webhooks_by_event", "entity", "action", "webhook"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("number", Number, primary_key=True),
    _of_webhook(),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("due", sa.BigInteger, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Index("webhook_deliveries_by_due", "due"),
    sqlite_autoincrement=True,
)

TABLES = (webhooks, webhook_events, webhook_deliveries)
