"""What calls came to since the start, counted from usage records as they are made, for Prometheus to ask.

Told apart by names of `routes.yaml` (routes, deployments), tasks, statuses and error codes: there are never more than
these. Keys and users are not: `/admin/usage` tells of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from gateway.types import UsageRecord

#: Upper bounds of seconds, for whole calls and for their first token.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Seconds:
    """How many things took up to each of `BOUNDS` (and beyond), and how long all of them took."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class RouteMetrics:
    """What calls of one route came to: how many by task and status, failures by error code; `cost` in nano-dollars."""

    __slots__ = ("cached", "calls", "cost", "failed", "first_token", "input", "output", "seconds")

    def __init__(self) -> None:
        self.calls: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.failed: defaultdict[str, int] = defaultdict(int)
        self.input = self.output = self.cached = self.cost = 0
        self.seconds = Seconds()
        self.first_token = Seconds()


class Metrics:
    """Counts usage records."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        #: By deployment, and how they ended: "answered" or an error code.
        self.attempts: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, record: UsageRecord) -> None:
        """Count one record."""
        route = self.routes.get(record.route)
        if route is None:
            route = self.routes[record.route] = RouteMetrics()
        route.input += record.input_tokens
        route.output += record.output_tokens
        route.cached += record.cached_tokens
        route.cost += record.cost
        error = record.error
        if record.attempt:
            self.attempts[record.deployment, error or "answered"] += 1
        if not record.final:
            return
        route.calls[record.task, record.status] += 1
        route.seconds.add(record.latency)
        if record.first_token is not None:
            route.first_token.add(record.first_token)
        if error is not None:
            route.failed[error] += 1
