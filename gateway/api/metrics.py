"""`/metrics`: what Prometheus asks for, in the format it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from gateway.api.access import Access
from gateway.api.roles import guard
from gateway.metrics import BOUNDS, Metrics, RouteMetrics, Seconds

_LES = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")


class Gauge(NamedTuple):
    """A figure that is read when Prometheus asks. `only_grows`: it is a counter."""

    name: str
    about: str
    read: Callable[[], float]
    only_grows: bool = False


def router(access: Access, metrics: Metrics, gauges: Iterable[Gauge], version: str) -> APIRouter:
    """Prometheus's page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(metrics, tuple(gauges), version))
    ProcessCollector(registry=registry)
    api = APIRouter(tags=["metrics"], dependencies=[Depends(guard(access))])

    @api.get("/metrics", response_class=Response)
    def told(request: Request) -> Response:
        """Calls, attempts, tokens, cost and durations by route, as Prometheus or OpenMetrics text."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return api


class _Told(Collector):
    """The counts in Prometheus's words."""

    def __init__(self, metrics: Metrics, gauges: tuple[Gauge, ...], version: str) -> None:
        self._metrics = metrics
        self._gauges = gauges
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        build = GaugeMetricFamily("promptyard_build_info", "1, and which version this is", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        # Copies: calls go on in the event loop's thread while this one writes.
        yield from _routes(list(self._metrics.routes.items()))
        attempts = CounterMetricFamily(
            "promptyard_attempts", "Attempts at deployments, by how they ended", labels=["deployment", "outcome"]
        )
        for (deployment, outcome), count in list(self._metrics.attempts.items()):
            attempts.add_metric([deployment, outcome], count)
        yield attempts
        for name, about, read, only_grows in self._gauges:
            yield (CounterMetricFamily if only_grows else GaugeMetricFamily)(name, about, read())


def _routes(routes: list[tuple[str, RouteMetrics]]) -> Iterator[Metric]:
    calls = CounterMetricFamily("promptyard_calls", "Calls that ended", labels=["route", "task", "status"])
    failed = CounterMetricFamily("promptyard_failures", "Calls that failed, by error", labels=["route", "error"])
    tokens = CounterMetricFamily("promptyard_tokens", "Tokens used", labels=["route", "kind"])
    cost = CounterMetricFamily("promptyard_cost_usd", "What calls cost, in USD", labels=["route"])
    seconds = HistogramMetricFamily("promptyard_call_seconds", "How long calls took", labels=["route"])
    first = HistogramMetricFamily("promptyard_first_token_seconds", "Until the first token came", labels=["route"])
    for name, route in routes:
        for (task, status), count in list(route.calls.items()):
            calls.add_metric([name, task, str(status)], count)
        for error, count in list(route.failed.items()):
            failed.add_metric([name, error], count)
        for kind, count in (("input", route.input), ("output", route.output), ("cached", route.cached)):
            tokens.add_metric([name, kind], count)
        cost.add_metric([name], route.cost / 1e9)
        seconds.add_metric([name], *_histogram(route.seconds))
        first.add_metric([name], *_histogram(route.first_token))
    yield from (calls, failed, tokens, cost, seconds, first)


def _histogram(taken: Seconds) -> tuple[list[tuple[str, float]], float]:
    return list(zip(_LES, accumulate(taken.counts), strict=True)), taken.total
