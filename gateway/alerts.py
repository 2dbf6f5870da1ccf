"""Budgets of which much is spent: seen a second later at most, noted once, and told to a webhook until it listens."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from pydantic import SecretStr

from gateway.errors import GatewayError
from gateway.keys import Keys
from gateway.ledger import Ledger
from gateway.money import usd
from gateway.owners import Key
from gateway.providers.transport import Transport
from gateway.routes import PERCENT, Alerts, Budget, Config, Limits
from gateway.store.alerts import AlertStore
from gateway.types import Alert, Rule, UsageRecord
from gateway.windows import window

log = logging.getLogger(__name__)

#: How often budgets that were spent of are looked at, and messages sent that are due, in seconds.
TICK = 1.0
#: Seconds until a message is sent again that was not taken, as Standard Webhooks advises; then it is given up.
_AGAIN = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: Seconds a message may take, and for how long whoever sends it has it for itself.
_PATIENCE, _LEASE = 15.0, 60.0


class _Watched(NamedTuple):
    """One budget: whose (as `Claim` has it, and by name), of which team."""

    scope: str
    name: str
    team_id: str
    budget: Budget
    soft: bool


class Watch:
    """Looks at budgets as they are spent. Everything it knows is in SQL: a restart tells nobody twice."""

    def __init__(
        self, ledger: Ledger, store: AlertStore, keys: Keys, config: Callable[[], Config], transport: Transport
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._keys = keys
        self._config = config
        self._transport = transport
        #: Keys and routes that spent something since the last look.
        self._spent: set[tuple[str, str]] = set()
        #: Of windows that go on, the percentage that was told of: nothing below it needs to be looked up.
        self._known: dict[tuple[str, bool, int, int], int] = {}

    def heard(self, record: UsageRecord) -> None:
        """Note whose budgets a record was spent of. A refused call counts: before it, this process may not have run."""
        if record.cost or record.error == "insufficient_quota":
            self._spent.add((record.key_id, record.fallback or record.route))

    async def run(self) -> None:
        """Look and tell for ever. While SQL is away, both wait."""
        troubled = False
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.look()
                await self.tell()
                troubled = False
            except Exception as error:
                if not troubled:
                    log.warning("Budgets cannot be watched just now (%s).", type(error.__cause__ or error).__name__)
                    log.debug("Because of", exc_info=True)
                troubled = True

    async def look(self) -> None:
        """Note what was passed of the budgets that were spent of since the last look."""
        spent, self._spent = self._spent, set()
        try:
            for watched in self._watched(spent):
                await self._look_at(watched)
        except BaseException:
            self._spent |= spent  # for the next look
            raise

    def _watched(self, spent: set[tuple[str, str]]) -> Iterator[_Watched]:
        if not spent:
            return
        config, keys = self._config(), self._keys.by_id()
        seen: set[str] = set()
        for key_id, route_name in spent:
            owners: list[tuple[str, str, str, Limits]] = []
            if (key := keys.get(key_id)) is not None:
                owners += _owners(key)
            if (route := config.routes.get(route_name)) is not None:
                owners.append((f"route:{route.name}", route.name, "", route.limits))
            for scope, name, team_id, limits in owners:
                if scope in seen:
                    continue
                seen.add(scope)
                for budget, soft in ((limits.budget, False), (limits.soft, True)):
                    if budget is not None:
                        yield _Watched(scope, name, team_id, budget, soft)

    async def _look_at(self, watched: _Watched) -> None:
        now = time.time()
        of, alerts = window(watched.budget.duration, now), self._config().alerts
        at = alerts.at if alerts else PERCENT
        known = (watched.scope, watched.soft, of.start, watched.budget.most)
        before = self._known.get(known, 0)
        if before >= max(at):
            return
        spent = await self._ledger.used(Rule.BUDGET, watched.scope, float(of.start), of.end)
        passed = max((one for one in at if spent * 100 >= one * watched.budget.most), default=0)
        if passed <= before:
            return
        alert = Alert(
            id=f"alert_{secrets.token_hex(12)}", time=now, scope=watched.scope, name=watched.name,
            team_id=watched.team_id, soft=watched.soft, percent=passed, spent=spent, budget=watched.budget.most,
            duration=watched.budget.duration, window_start=of.start, window_end=of.end,
            next_try=None if alerts is None else now,
        )  # fmt: skip
        if await asyncio.to_thread(self._store.add, alert):
            log.warning("%s", _said(alert))
        if len(self._known) >= 10_000:
            self._known.clear()
        self._known[known] = passed

    async def tell(self) -> None:
        """Send what is due. One that is not taken is sent again later, and given up after three days."""
        alerts = self._config().alerts
        if alerts is None:
            return
        due = await asyncio.to_thread(self._store.due, time.time())
        await asyncio.gather(*(self._tell(one, alerts) for one in due))

    async def _tell(self, alert: Alert, alerts: Alerts) -> None:
        if not await asyncio.to_thread(self._store.take, alert, time.time() + _LEASE):
            return
        wrong = await self._sent(alert, alerts)
        if wrong is None:
            await asyncio.to_thread(self._store.told, alert.id, time.time())
            return
        again = time.time() + _AGAIN[alert.tries] if alert.tries < len(_AGAIN) else None
        log.warning("The alerts' webhook did not take %s: %s%s", alert.id, wrong, "" if again else " It is given up.")
        await asyncio.to_thread(self._store.failed, alert.id, wrong, again)

    async def _sent(self, alert: Alert, alerts: Alerts) -> str | None:
        """Why a message was not taken; None: it was."""
        body = orjson.dumps(message(alert))
        said = signed(alerts.secret, alert.id, int(time.time()), body)
        headers = {"content-type": "application/json", "user-agent": "promptyard", **said}
        try:
            async with asyncio.timeout(_PATIENCE):
                url = alerts.webhook.get_secret_value()
                answer = await self._transport.post(url, body, headers, _PATIENCE, stream=False)
        except TimeoutError:
            return f"It did not answer within {_PATIENCE:g} s."
        except GatewayError as error:
            return error.message.replace("The provider", "It").replace("provider's base_url", "webhook")
        return None if answer.status < 300 else f"It answered HTTP {answer.status}."


def _owners(key: Key) -> Iterator[tuple[str, str, str, Limits]]:
    yield f"key:{key.id}", key.name, key.team_id, key.limits
    for one in key.tenants:
        yield f"{one.kind}:{one.id}", one.name, one.id if one is key.team else "", one.limits


def message(alert: Alert) -> Mapping[str, Any]:
    """What a webhook is told: money in USD, times in ISO 8601."""
    kind, _, owner_id = alert.scope.partition(":")
    return {
        "type": "budget.spent",
        "timestamp": _iso(alert.time),
        "data": {
            "alert_id": alert.id,
            "owner": kind,
            "owner_id": owner_id,
            "owner_name": alert.name,
            "budget": "soft" if alert.soft else "hard",
            "percent": alert.percent,
            "spent_usd": alert.spent / 1e9,
            "budget_usd": alert.budget / 1e9,
            "budget_duration": alert.duration,
            "window_start": _iso(alert.window_start) if alert.window_start else None,
            "window_end": None if alert.window_end is None else _iso(alert.window_end),
            "message": _said(alert),
        },
    }


def _said(alert: Alert) -> str:
    whose = f"{alert.scope.partition(':')[0]} '{alert.name}'"
    period = f" in {alert.duration}" if alert.duration else ""
    kind = "soft budget" if alert.soft else "budget"
    return f"{alert.percent} % of the {kind} of {whose} is spent: {usd(alert.spent)} of {usd(alert.budget)}{period}."


def signed(secret: SecretStr, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that prove whose a message is: HMAC-SHA256 over its id, time and body.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    text = secret.get_secret_value()
    key = text.encode()
    if text.startswith("whsec_"):
        with contextlib.suppress(binascii.Error):
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    digest = hmac.digest(key, b"%b.%d.%b" % (message_id.encode(), at, body), hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
