"""The rules of metrics: what a point is measured of, and how a history is handed out whole, paged or sampled."""

from __future__ import annotations

from collections.abc import Sequence

from promptlab import existing, limits_models
from promptlab.entities import Metric, Page, RunInfo
from promptlab.errors import InvalidParameter
from promptlab.ports import Database
from promptlab.store import Connection, logged_models
from promptlab.store import metrics as store

MAX_HISTORY_PAGE = 25_000
MAX_RUNS = 100
MAX_SAMPLES = 2500


class Metrics:
    """The histories of metrics. Safe to call from many threads."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    def history(self, run_id: str, key: str, limit: int | None, token: str | None) -> Page[Metric]:
        """Every point of a metric, or a page of them."""
        if limit is not None and limit <= 0:
            raise InvalidParameter(
                f"Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer."
            )
        if limit is not None and limit > MAX_HISTORY_PAGE:
            raise InvalidParameter(
                f"Invalid value {limit} for parameter 'max_results' supplied. It must be at most {MAX_HISTORY_PAGE}."
            )
        with self._database.read() as connection:
            info = existing.run(connection, run_id)
            return store.history(connection, info.number, key, limit, token)

    def histories(self, run_ids: Sequence[str], key: str, limit: int) -> list[tuple[str, Metric]]:
        """The first points of a metric of several runs, with the id of each one's run: at most `limit` in all."""
        if len(run_ids) > MAX_RUNS:
            raise InvalidParameter(
                f"GetMetricHistoryBulk request cannot specify more than {MAX_RUNS} run_ids. "
                f"Received {len(run_ids)} run_ids."
            )
        if limit < 0:
            raise InvalidParameter(
                f"Invalid value {limit} for parameter 'max_results' supplied. It must not be negative."
            )
        left = min(limit, MAX_HISTORY_PAGE)
        found: list[tuple[str, Metric]] = []
        with self._database.read() as connection:
            infos = [existing.run(connection, run_id) for run_id in sorted(set(run_ids))]
            for info in infos:
                if left > len(found):
                    page = store.history(connection, info.number, key, left - len(found), None)
                    found += [(info.id, point) for point in page.items]
        return found

    def samples(
        self, run_ids: Sequence[str], key: str, steps: tuple[int | None, int | None], limit: int
    ) -> list[tuple[str, Metric]]:
        """At most `limit` points of a metric of each run by step, evenly spread, the first and the last among them.

        `steps` are the first and last step to look at, or both None.
        """
        first, last = steps
        if len(run_ids) > MAX_RUNS:
            raise InvalidParameter(
                f"GetMetricHistoryBulkInterval request must specify at most {MAX_RUNS} run_ids. "
                f"Received {len(run_ids)} run_ids."
            )
        if not 1 <= limit <= MAX_SAMPLES:
            raise InvalidParameter(f"max_results must be between 1 and {MAX_SAMPLES}.")
        if (first is None) != (last is None):
            raise InvalidParameter("If either start step or end step are specified, both must be specified.")
        if first is not None and last is not None and first > last:
            raise InvalidParameter(
                f"end_step must be greater than start_step. Found start_step={first} and end_step={last}."
            )
        with self._database.read() as connection:
            infos = [existing.run(connection, run_id) for run_id in run_ids]
            return [
                (info.id, point)
                for info in infos
                for point in store.samples(connection, info.number, key, first, last, limit)
            ]


def log(connection: Connection, run: RunInfo, new: Sequence[Metric]) -> None:
    """Add points to a run, and those that name a logged model to that model too."""
    store.log(connection, run.number, new)
    measured = [point for point in new if point.model_id]
    if not measured:
        return
    for point in measured:
        limits_models.check_measured(point)
    numbers = logged_models.numbers(connection, sorted({point.model_id for point in measured}))
    for point in measured:
        if point.model_id not in numbers:
            raise existing.no_logged_model(point.model_id)
    logged_models.log_metrics(connection, run.number, [(numbers[point.model_id], point) for point in measured])
