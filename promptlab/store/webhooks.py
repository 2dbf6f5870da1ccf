"""SQL of webhooks and of messages on their way. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from promptlab.entities import Page
from promptlab.entities_webhooks import Delivery, Event, Webhook, WebhookAction, WebhookEntity, WebhookStatus
from promptlab.store.paging import SortKey
from promptlab.store.schema_webhooks import webhook_deliveries, webhook_events, webhooks
from promptlab.store.search import page


def insert(connection: sa.Connection, webhook: Webhook, secret: str | None) -> int:
    """The number of a new webhook."""
    values = {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "description": webhook.description,
        "secret": secret,
        "status": int(webhook.status),
        "created": webhook.created,
        "updated": webhook.updated,
    }
    made: int = connection.scalar(sa.insert(webhooks).values(values).returning(webhooks.c.number))
    set_events(connection, made, webhook.events)
    return made


def set_events(connection: sa.Connection, number: int, events: Iterable[Event]) -> None:
    """What a webhook is told of, in place of what it was."""
    connection.execute(sa.delete(webhook_events).where(webhook_events.c.webhook == number))
    rows = [{"webhook": number, "entity": int(one.entity), "action": int(one.action)} for one in dict.fromkeys(events)]
    connection.execute(sa.insert(webhook_events), rows)


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one webhook."""
    connection.execute(sa.update(webhooks).where(webhooks.c.number == number).values(**values))


def delete(connection: sa.Connection, number: int) -> None:
    """Remove a webhook with all that was on its way to it."""
    connection.execute(sa.delete(webhooks).where(webhooks.c.number == number))


def find(connection: sa.Connection, webhook_id: str, *, lock: bool = False) -> tuple[Webhook, str | None] | None:
    """The webhook of that id, and its secret."""
    query = sa.select(webhooks).where(webhooks.c.id == webhook_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else (_from_rows(connection, [row])[0], row.secret)


def page_of(connection: sa.Connection, limit: int, token: str | None) -> Page[Webhook]:
    """Webhooks, the newest first."""
    keys = [SortKey(webhooks.c.number, int, ascending=False)]
    rows, next_token = page(connection, sa.select(webhooks), keys, limit, token)
    return Page(_from_rows(connection, rows), next_token)


def any_for(connection: sa.Connection, event: Event) -> list[int]:
    """The numbers of those that are told of `event`."""
    told = (webhook_events.c.entity == int(event.entity)) & (webhook_events.c.action == int(event.action))
    active = webhooks.c.status == int(WebhookStatus.ACTIVE)
    query = sa.select(webhooks.c.number).join(webhook_events, webhook_events.c.webhook == webhooks.c.number)
    return list(connection.scalars(query.where(told, active)))


def queue(connection: sa.Connection, numbers: Iterable[int], body: str, now: int) -> None:
    """Have `body` sent to each of these webhooks."""
    rows = [{"webhook": number, "body": body, "due": now, "tries": 0} for number in numbers]
    if rows:
        connection.execute(sa.insert(webhook_deliveries), rows)


def due(connection: sa.Connection, now: int, limit: int) -> list[Delivery]:
    """Messages that are to be sent by now, the longest due first."""
    query = (
        sa.select(webhook_deliveries, webhooks.c.url, webhooks.c.secret)
        .join(webhooks, webhooks.c.number == webhook_deliveries.c.webhook)
        .where(webhook_deliveries.c.due <= now)
        .order_by(webhook_deliveries.c.due)
        .limit(limit)
    )
    rows = connection.execute(query)
    return [Delivery(row.number, row.body, row.due, row.tries, row.url, row.secret) for row in rows]


def take(connection: sa.Connection, delivery: Delivery, until: int) -> bool:
    """Whether it is the caller's to send, until then: whoever else wants it comes too late."""
    mine = (webhook_deliveries.c.number == delivery.number) & (webhook_deliveries.c.due == delivery.due)
    taken = sa.update(webhook_deliveries).where(mine).values(due=until, tries=delivery.tries + 1)
    return connection.execute(taken).rowcount > 0


def put_off(connection: sa.Connection, delivery: Delivery, until: int) -> None:
    """Have a message sent again then."""
    mine = webhook_deliveries.c.number == delivery.number
    connection.execute(sa.update(webhook_deliveries).where(mine).values(due=until))


def done(connection: sa.Connection, delivery: Delivery) -> None:
    """A message was taken, or is given up."""
    connection.execute(sa.delete(webhook_deliveries).where(webhook_deliveries.c.number == delivery.number))


def _from_rows(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Webhook]:
    events: dict[int, list[Event]] = defaultdict(list)
    of = webhook_events
    wanted = of.c.webhook.in_([row.number for row in rows])
    for row in connection.execute(sa.select(of).where(wanted).order_by(of.c.entity, of.c.action)):
        events[row.webhook].append(Event(WebhookEntity(row.entity), WebhookAction(row.action)))
    return [
        Webhook(
            number=row.number,
            id=row.id,
            name=row.name,
            url=row.url,
            events=tuple(events[row.number]),
            created=row.created,
            updated=row.updated,
            description=row.description,
            status=WebhookStatus(row.status),
            has_secret=row.secret is not None,
        )
        for row in rows
    ]
