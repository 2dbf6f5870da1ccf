"""The rules of webhooks: who is told of what, and messages sent until they are taken, three times more at most."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from promptlab.delivery import Delivery as Sending
from promptlab.entities import Page
from promptlab.entities_webhooks import EXAMPLES, Delivery, Event, Sent, Webhook
from promptlab.errors import InvalidParameter, NotFound
from promptlab.ports import Database
from promptlab.store import Connection, webhooks

log = logging.getLogger(__name__)

MAX_WEBHOOKS = 1000
MAX_URL, MAX_DESCRIPTION, MAX_SECRET = 500, 1000, 1000
_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
#: How often messages are looked for, and for how long one is its sender's, in seconds.
_LOOK, _LEASE = 0.5, 60.0
#: Messages sent one after another between two looks, tries after the first, and the longest wait, in seconds.
_BATCH, _AGAIN, _LONGEST = 50, 3, 60.0


class Webhooks:
    """Webhooks. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database, sending: Sending) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database
        self._sending = sending

    def create(self, webhook: Webhook, secret: str | None) -> Webhook:
        """A new webhook. Raises `InvalidParameter` naming what is wrong, an address that is not public among it."""
        self._check(webhook, secret)
        now = _now()
        new = replace(webhook, id=str(uuid.uuid4()), created=now, updated=now)

        def work(connection: Connection) -> Webhook:
            webhooks.insert(connection, new, secret)
            return _found(connection, new.id)[0]

        return self._database.write(work)

    def get(self, webhook_id: str) -> Webhook:
        """The webhook of that id. Raises `NotFound`."""
        with self._database.read() as connection:
            return _found(connection, webhook_id)[0]

    def list_page(self, limit: int, token: str | None) -> Page[Webhook]:
        """A page of webhooks, the newest first."""
        if not 1 <= limit <= MAX_WEBHOOKS:
            raise InvalidParameter(f"Invalid value {limit} for parameter 'max_results': must be 1 to {MAX_WEBHOOKS}")
        with self._database.read() as connection:
            return webhooks.page_of(connection, limit, token)

    def update(self, webhook_id: str, changes: Mapping[str, Any], secret: str | None) -> Webhook:
        """The webhook, changed: `changes` are fields of `Webhook`; a `secret` of None stays, an empty one goes."""
        with self._database.read() as connection:
            self._check(replace(_found(connection, webhook_id)[0], **changes), secret)
        values = {name: value for name, value in changes.items() if name != "events"}
        if "status" in values:
            values["status"] = int(values["status"])
        if secret is not None:
            values["secret"] = secret or None

        def work(connection: Connection) -> Webhook:
            found, _ = _found(connection, webhook_id, lock=True)
            webhooks.update(connection, found.number, updated=_now(), **values)
            if "events" in changes:
                webhooks.set_events(connection, found.number, changes["events"])
            return _found(connection, webhook_id)[0]

        return self._database.write(work)

    def delete(self, webhook_id: str) -> None:
        """Remove a webhook; what is on its way to it is not sent. Raises `NotFound`."""

        def work(connection: Connection) -> None:
            webhooks.delete(connection, _found(connection, webhook_id, lock=True)[0].number)

        self._database.write(work)

    def test(self, webhook_id: str, event: Event | None) -> Sent:
        """How a message that tells of an example is taken, now."""
        with self._database.read() as connection:
            found, secret = _found(connection, webhook_id)
        about = event or found.events[0]
        _check_events([about])
        return self._sending.send(found.url, secret, message(about, EXAMPLES[about]))

    def _check(self, webhook: Webhook, secret: str | None) -> None:
        if not _NAME.fullmatch(webhook.name):
            raise InvalidParameter(
                f"Webhook name {webhook.name[:100]!r} is invalid. It must start and end with a letter or digit, be "
                "less than 63 characters long, and contain only letters, digits, dots (.), underscores (_), and "
                "hyphens (-)."
            )
        for name, text, most in (
            ("url", webhook.url, MAX_URL),
            ("description", webhook.description or "", MAX_DESCRIPTION),
            ("secret", secret or "", MAX_SECRET),
        ):
            if len(text) > most:
                raise InvalidParameter(f"A webhook's {name} has at most {most} characters")
        _check_events(webhook.events)
        self._sending.check(webhook.url)


class Deliverer:
    """Sends what is due, in a thread of its own, until `close`. Several servers at one database share the work."""

    def __init__(self, database: Database, sending: Sending) -> None:
        self._database = database
        self._sending = sending
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send no more. What is due stays due."""
        self._closing.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        troubled = False
        while not self._closing.wait(_LOOK):
            try:
                self.look()
                troubled = False
            except Exception as error:
                if not troubled and not self._closing.is_set():
                    log.warning("Webhooks cannot be told just now (%s)", type(error).__name__)
                troubled = True

    def look(self) -> None:
        """Send what is due by now."""
        with self._database.read() as connection:
            found = webhooks.due(connection, _now(), _BATCH)
        for one in found:
            if not self._closing.is_set():
                self._deliver(one)

    def _deliver(self, one: Delivery) -> None:
        until = _now() + round(_LEASE * 1000)
        if not self._database.write(lambda connection: webhooks.take(connection, one, until)):
            return  # another server has it
        sent = self._sending.send(one.url, one.secret, one.body)
        if not sent.taken and sent.again and one.tries < _AGAIN:
            wait = max(2.0**one.tries + random.random(), min(sent.retry_after or 0.0, _LONGEST))  # noqa: S311 - a wait
            again = _now() + round(wait * 1000)
            self._database.write(lambda connection: webhooks.put_off(connection, one, again))
            return
        if not sent.taken:
            # Its host alone: whoever hears may be named in the rest.
            log.warning("A webhook did not take a message: %s", sent.wrong or f"it answered HTTP {sent.status}")
        self._database.write(lambda connection: webhooks.done(connection, one))


def tell(connection: Connection, event: Event, data: Mapping[str, Any]) -> None:
    """Have every webhook told of `event` that wants to be, if the transaction of `connection` comes to be."""
    numbers = webhooks.any_for(connection, event)
    if numbers:
        webhooks.queue(connection, numbers, message(event, data), _now())


def message(event: Event, data: Mapping[str, Any]) -> str:
    """What is sent."""
    said = {"entity": event.entity.name.lower(), "action": event.action.name.lower()}
    return orjson.dumps({**said, "timestamp": datetime.now(UTC).isoformat(), "data": dict(data)}).decode()


def _found(connection: Connection, webhook_id: str, *, lock: bool = False) -> tuple[Webhook, str | None]:
    found = webhooks.find(connection, webhook_id, lock=lock)
    if found is None:
        raise NotFound(f"Webhook with ID {webhook_id} not found.")
    return found


def _check_events(events: Sequence[Event]) -> None:
    if not events:
        raise InvalidParameter("Webhook events must be a non-empty list of events")
    for event in events:
        if event not in EXAMPLES:
            valid = sorted(one.action.name.lower() for one in EXAMPLES if one.entity is event.entity)
            raise InvalidParameter(
                f"Invalid action '{event.action.name.lower()}' for entity '{event.entity.name.lower()}'. "
                f"Valid actions are: {valid}"
            )


def _now() -> int:
    return time.time_ns() // 1_000_000
