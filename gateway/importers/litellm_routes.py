"""Routes of a LiteLLM proxy: what models of one name, and the settings of the file, say of how they are called."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gateway import strict
from gateway.config_yaml import mapping
from gateway.importers.plan import Plan, RoutePlan

#: How a deployment is chosen there, as our `strategy`; what is not here has no counterpart.
STRATEGIES = {
    "simple-shuffle": None,
    "least-busy": "least_busy",
    "latency-based-routing": "latency",
    "cost-based-routing": "cheapest",
}
#: What of `router_settings` and `litellm_settings` becomes part of every route.
SETTINGS = frozenset((
    "routing_strategy", "timeout", "request_timeout", "stream_timeout", "num_retries", "retry_after", "allowed_fails",
    "cooldown_time", "drop_params",
))  # fmt: skip
TOTAL = "'total' ends an answer here, streamed ones too; there, often only a silence. Raise it for long streams."


@dataclass(slots=True)
class Entry:
    """One item of `model_list`, placed: its deployment, and the numbers it states."""

    path: strict.Path
    provider: str
    model: str
    numbers: dict[str, float] = field(default_factory=dict)
    drops: bool = False

    def said(self) -> dict[str, int]:
        """What our file says beside a deployment's weight."""
        ours = {"order": "order", "max_parallel_requests": "concurrency"}
        return {ours[key]: int(value) for key, value in self.numbers.items() if key in ours}


class Routes:
    """Makes routes of entries, with the settings of `data` in each."""

    def __init__(self, plan: Plan, data: dict[str, Any]) -> None:
        self.plan = plan
        router, settings = mapping(data.get("router_settings")), mapping(data.get("litellm_settings"))
        general = number(settings.get("request_timeout"))
        self._timeout = general or number(router.get("timeout"))
        self._stream_timeout = number(router.get("stream_timeout")) or general
        self._times = number(router.get("num_retries", settings.get("num_retries")))
        self._backoff = number(router.get("retry_after"))
        self._strategy = STRATEGIES.get(str(router.get("routing_strategy")))
        self._drops = settings.get("drop_params") is True
        self._cooldown: dict[str, float] = {}
        if (fails := number(router.get("allowed_fails", settings.get("allowed_fails")))) is not None:
            # It rests there when it fails once more than that.
            self._cooldown["failures"] = int(fails) + 1
        if (seconds := number(router.get("cooldown_time", settings.get("cooldown_time")))) is not None:
            self._cooldown["seconds"] = seconds

    def check(self, section: str, key: str, value: Any) -> None:
        """Note what becomes of a setting in `SETTINGS` that is not simply carried over."""
        path = (section, key)
        if key == "routing_strategy":
            if value not in STRATEGIES:
                self.plan.lose(path, "how a deployment is chosen. Here they share calls by weight.")
        elif key == "drop_params":
            if value is not True and value:
                self.plan.lose(path, "must be true or false here. Write `unsupported: drop` at each route.")
        elif number(value) is None and value is not None:
            self.plan.lose(path, "must be a number here: no reference is read under 'routes'. Write it out.")
        elif key in ("timeout", "request_timeout") and value:
            self.plan.lose(path, TOTAL)
        elif key == "allowed_fails":
            self.plan.lose(path, "failures within a minute there, in a row here ('cooldown').")

    def route(self, name: str, task: str, entries: list[Entry]) -> RoutePlan:
        """The route `name`, which `entries` serve."""
        plan = RoutePlan(entries[0].path, task)
        for entry, weight in zip(entries, _weights(entries), strict=True):
            plan.add(entry.provider, entry.model, weight, entry.said())
        for key in ("rpm", "tpm"):
            if (total := self._sum(name, entries, key)) is not None:
                plan.limits[key] = total
        plan.timeouts = self._timeouts(name, entries)
        plan.retries = self._retries(name, entries)
        plan.strategy, plan.cooldown = self._strategy, dict(self._cooldown)
        if self._drops or any(entry.drops for entry in entries):
            plan.unsupported = "drop"
        most = [entry.numbers.get("max_tokens") for entry in entries]
        if any(most):
            said = "a default there, the most an answer may have here: a request for more is refused."
            self.plan.lose(_path(entries, "max_tokens"), said, name)
            plan.max_output_tokens = int(max(filter(None, most))) if all(most) else None
        return plan

    def _sum(self, name: str, entries: list[Entry], key: str) -> int | None:
        """A limit of the whole route: what its deployments may take together, where each of them says."""
        stated = [entry.numbers[key] for entry in entries if key in entry.numbers]
        if not stated:
            return None
        if len(stated) < len(entries):
            self.plan.lose(
                _path(entries, key), "limits one deployment. Limits are a route's here: give it its own.", name
            )
            return None
        if len(stated) > 1:
            self.plan.lose(_path(entries, key), "a limit of each deployment. The route has their sum here.", name)
        return int(sum(stated))

    def _timeouts(self, name: str, entries: list[Entry]) -> dict[str, float]:
        """`total` and a stream's silences. There, a timeout is often how long the upstream may be silent."""
        whole = self._longest(name, entries, "timeout", self._timeout)
        stream = self._longest(name, entries, "stream_timeout", self._stream_timeout) or whole
        found: dict[str, float] = {}
        # A stream's silences end after a minute where nothing is written: short of that, `total` says it all.
        if stream is not None and stream != 60 and (stream != whole or stream > 60):
            found |= {"first_token": stream, "idle": stream}
        if whole is not None and whole != 600:
            found["total"] = whole
            if any("timeout" in entry.numbers for entry in entries):
                self.plan.lose(_path(entries, "timeout"), TOTAL, name)
        return found

    def _longest(self, name: str, entries: list[Entry], key: str, default: float | None) -> float | None:
        stated = {entry.numbers.get(key) or default for entry in entries}
        if len(stated) > 1:
            self.plan.lose(_path(entries, key), "differs between deployments. A route has one: the longest.", name)
        return max((one for one in stated if one is not None), default=None)

    def _retries(self, name: str, entries: list[Entry]) -> dict[str, float]:
        own = [
            entry.numbers[key] for entry in entries for key in ("num_retries", "max_retries") if key in entry.numbers
        ]
        times = max(own, default=self._times)
        if not times:
            return {}
        return {"times": int(times), **({"backoff": self._backoff} if self._backoff else {})}


def number(value: Any) -> float | None:
    """`value` if it is a number a setting may have."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _weights(entries: list[Entry]) -> list[float | None]:
    """Shares as litellm's simple-shuffle takes them: of `weight`, else of `rpm`, else of `tpm`; None where alike."""
    for key in ("weight", "rpm", "tpm"):
        stated = [entry.numbers.get(key, 0) for entry in entries]
        if max(stated) > 0:
            if len(set(stated)) == 1:
                break
            if key == "weight" or not all(float(one).is_integer() for one in stated):
                return list(stated)
            divisor = math.gcd(*map(int, stated))
            return [int(one) // divisor for one in stated]
    return [None] * len(entries)


def _path(entries: list[Entry], key: str) -> strict.Path:
    """Where the first of `entries` that states `key` does so."""
    stated = next((entry for entry in entries if key in entry.numbers), entries[0])
    return (*stated.path, "litellm_params", key)
