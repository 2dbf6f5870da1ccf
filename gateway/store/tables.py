"""The gateway's tables. Times are UTC epoch seconds, money nano-dollars."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
    true,
)

metadata = MetaData()

# Teams, and organisations of teams. None is ever deleted, so that those of keys and lines are always there.
tenants = Table(
    "gateway_tenants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(200), nullable=False),
    Column("organisation_id", String(32)),
    Column("routes", Text),
    Column("denied", Text),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("concurrency", Integer),
    Column("max_budget", BigInteger),
    Column("budget_duration", String(8)),
    Column("created_at", Float, nullable=False),
    Column("blocked_at", Float),
    Column("rpd", Integer),
    Column("tpd", Integer),
    # What each end user may use: an object of JSON, NULL for no limit.
    Column("user_limits", Text),
    Column("soft_budget", BigInteger),
    # Whether minutes are the clock's; NULL as false.
    Column("fixed", Boolean),
)

keys = Table(
    "gateway_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    # SHA-256 of the secret, hex. The secret is 256 random bits: there is nothing to guess, so nothing to slow down.
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("routes", Text),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("concurrency", Integer),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    # Of a budget: nano-dollars, and in which windows.
    Column("max_budget", BigInteger),
    Column("budget_duration", String(8)),
    # Lists and an object of JSON; NULL for none.
    Column("denied", Text),
    Column("tags", Text),
    Column("metadata", Text),
    Column("blocked_at", Float),
    # The secret before this one, in force until then.
    Column("hash_before", String(64)),
    Column("hash_before_until", Float),
    Column("team_id", String(32)),
    Column("rpd", Integer),
    Column("tpd", Integer),
    # As that of `tenants`.
    Column("user_limits", Text),
    # Nano-dollars that refuse nothing.
    Column("soft_budget", BigInteger),
    # As that of `tenants`.
    Column("fixed", Boolean),
)

# One row: every change of a key adds one, and every process looks at it.
key_changes = Table(
    "gateway_key_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

# What was done by whom, each line sealed with the one before. Times are UTC epoch microseconds.
audit = Table(
    "gateway_audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
    Column("action", String(40), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("seal", String(64), nullable=False),
)

# Budgets of which much was spent, and whether somebody was told. Times are UTC epoch seconds, money nano-dollars.
alerts = Table(
    "gateway_alerts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("time", Float, nullable=False),
    # Whose budget, as claims name it; its name; the team it is of, "" for none.
    Column("scope", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("team_id", String(32), nullable=False),
    Column("soft", Boolean, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("budget", BigInteger, nullable=False),
    Column("duration", String(8)),
    Column("window_start", BigInteger, nullable=False),
    Column("window_end", BigInteger),
    Column("tries", Integer, nullable=False),
    # When it is to be told (again); NULL: no more.
    Column("next_try", Float),
    Column("told_at", Float),
    Column("error", String(200)),
    Index("gateway_alerts_scope", "scope"),
    Index("gateway_alerts_next_try", "next_try"),
)

# How far each process's journal has been copied into `usage`, advanced in the same transaction.
journals = Table(
    "gateway_journals",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    # Where the oldest attempt stands that was begun and not settled.
    Column("open_segment", BigInteger),
    Column("open_offset", BigInteger),
)

usage = Table(
    "gateway_usage",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("time", Float, nullable=False),
    # Whole days since 1970, UTC: the databases do not agree on how to take them from a time.
    Column("day", Integer, nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("key_name", String(200), nullable=False),
    Column("route", String(200), nullable=False),
    Column("deployment", String(400), nullable=False),
    Column("task", String(40), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(80)),
    Column("stream", Boolean, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("priced", Boolean, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("latency", Float, nullable=False),
    Column("first_token", Float),
    # False: an attempt that used tokens and did not become its call's answer.
    Column("final", Boolean, nullable=False, server_default=true()),
    # The route under way, where it is not the one asked.
    Column("fallback", String(200)),
    # Which of its call's attempts, from 1; 0: nobody was asked.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    # Those of its key at the time; "" for none.
    Column("team_id", String(32), nullable=False, server_default=""),
    Column("organisation_id", String(32), nullable=False, server_default=""),
    # For whom its caller asked; "" where nobody was named.
    Column("end_user", String(200), nullable=False, server_default=""),
    # The version of a prompt that it was made from; "" for none.
    Column("prompt", String(300), nullable=False, server_default=""),
    Index("gateway_usage_request", "request_id"),
    Index("gateway_usage_time", "time"),
)
_NAMED = usage.c.end_user != ""
usage_by_user = Index(
    "gateway_usage_user", usage.c.end_user, usage.c.time, sqlite_where=_NAMED, postgresql_where=_NAMED
)


def _by_days(name: str, *first: Column[Any]) -> Table:
    """The lines of `usage` by days, added to in the transaction that adds them. `fallback` is "" for none."""
    return Table(
        name,
        metadata,
        *first,
        Column("day", Integer, primary_key=True, autoincrement=False),
        Column("key_id", String(32), primary_key=True),
        Column("key_name", String(200), primary_key=True),
        Column("team_id", String(32), primary_key=True),
        Column("organisation_id", String(32), primary_key=True),
        Column("route", String(200), primary_key=True),
        Column("fallback", String(200), primary_key=True),
        Column("deployment", String(400), primary_key=True),
        Column("calls", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False),
        # Of those that failed, calls of which nobody was asked.
        Column("refused", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cost", BigInteger, nullable=False),
    )


usage_days = _by_days("gateway_usage_days")
usage_owners = [
    Index(f"gateway_usage_days_{name}", usage_days.c[f"{name}_id"], usage_days.c.day)
    for name in ("key", "team", "organisation")
]
# Of lines that name an end user: there may be many of them, and whoever does not ask for them need not read them.
usage_users = _by_days("gateway_usage_users", Column("end_user", String(200), primary_key=True))
