"""The rules of tracking: what may be done to experiments and runs, and when. One transaction a call."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from promptlab import existing, filters, filters_tracking, limits, metrics
from promptlab.artifacts import Artifacts, proxied_path
from promptlab.assessments import Assessments
from promptlab.delivery import Delivery
from promptlab.entities import (
    Experiment,
    FileInfo,
    Metric,
    Page,
    Param,
    Run,
    RunInfo,
    RunStatus,
    Tag,
    ViewType,
)
from promptlab.errors import AlreadyExists, InvalidParameter, NotFound
from promptlab.evaluation_datasets import EvaluationDatasets
from promptlab.inputs import RunInputs
from promptlab.logged_models import LoggedModels
from promptlab.metrics import Metrics
from promptlab.names import random_name
from promptlab.ports import Database
from promptlab.registry import Registry
from promptlab.scorers import Scorers
from promptlab.store import Connection, experiments, migrations, runs, search
from promptlab.traces import Traces
from promptlab.webhooks import Webhooks

DEFAULT_EXPERIMENT = 0
RUN_NAME_TAG = "mlflow.runName"
MAX_SEARCH_RESULTS = 50_000


class Lab:
    """Experiments, runs and artifacts. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database, artifacts: Artifacts, sending: Delivery | None = None) -> None:
        """Bring the tables up to date and make the experiment `Default`."""
        self._database = database
        self.artifacts = artifacts
        self.metrics = Metrics(database)
        self.inputs = RunInputs(database)
        self.logged_models = LoggedModels(database, artifacts)
        self.registry = Registry(database)
        self.evaluation_datasets = EvaluationDatasets(database)
        self.scorers = Scorers(database)
        self.webhooks = Webhooks(database, sending or Delivery())
        self.traces = Traces(database, artifacts)
        self.assessments = Assessments(database)
        migrations.migrate(database)
        with database.read() as connection:
            missing = experiments.find(connection, DEFAULT_EXPERIMENT) is None
        if missing:
            database.write(_make_default)

    # ── experiments ──────────────────────────────────────────────────────────────────────────────

    def create_experiment(self, name: str, artifact_location: str | None, tags: Sequence[Tag]) -> int:
        """The number of a new experiment. A deleted one still owns its name."""
        limits.check_experiment_name(name)
        if artifact_location:
            limits.check_artifact_location(artifact_location)
        for tag in tags:
            limits.check_tag(tag, limit=limits.MAX_EXPERIMENT_TAG_VALUE)

        def work(connection: Connection) -> int:
            number = experiments.insert(connection, name, artifact_location or None, _now())
            if number is None:
                raise AlreadyExists(f"Experiment(name={name}) already exists.")
            experiments.set_tags(connection, number, tags)
            return number

        return self._database.write(work)

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment of that id, deleted or not."""
        with self._database.read() as connection:
            return existing.experiment(connection, experiment_id)

    def experiment_by_name(self, name: str) -> Experiment:
        """The experiment of that name, deleted or not."""
        with self._database.read() as connection:
            found = experiments.find_by_name(connection, name)
        if found is None:
            raise NotFound(f"Could not find experiment with name '{name}'")
        return found

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        """Give the experiment a new name."""
        limits.check_experiment_name(name)

        def work(connection: Connection) -> None:
            found = existing.own_experiment(connection, experiment_id)
            if found.deleted:
                raise InvalidParameter("Cannot rename a non-active experiment.")
            if not experiments.rename(connection, found.id, name, _now()):
                raise AlreadyExists(f"Experiment(name={name}) already exists.")

        self._database.write(work)

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark the experiment and all its runs deleted."""
        self._turn(experiment_id, deleted=True)

    def restore_experiment(self, experiment_id: str) -> None:
        """Bring a deleted experiment back, and all its runs."""
        self._turn(experiment_id, deleted=False)

    def _turn(self, experiment_id: str, *, deleted: bool) -> None:
        def work(connection: Connection) -> None:
            found = existing.own_experiment(connection, experiment_id)
            if found.deleted == deleted:
                raise NotFound(f"No Experiment with id={found.id} exists")
            now = _now()
            experiments.update(connection, found.id, deleted=deleted, updated=now)
            runs.update_all_of(connection, found.id, {"deleted": deleted, "deleted_at": now if deleted else None})

        self._database.write(work)

    def set_experiment_tag(self, experiment_id: str, tag: Tag) -> None:
        """Set or change a tag."""
        limits.check_tag(tag, limit=limits.MAX_EXPERIMENT_TAG_VALUE)

        def work(connection: Connection) -> None:
            found = existing.active_experiment(connection, experiment_id)
            experiments.set_tags(connection, found.id, [tag])

        self._database.write(work)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag. Raises `NotFound` where there is none of that key."""

        def work(connection: Connection) -> None:
            found = existing.active_experiment(connection, experiment_id)
            if not experiments.delete_tag(connection, found.id, key):
                raise NotFound(f"No tag with name: {key} in experiment with id {experiment_id}")

        self._database.write(work)

    def search_experiments(
        self, view: ViewType, text: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[Experiment]:
        """A page of the experiments for which the filter holds."""
        _check_page_size(limit)
        clauses = filters.each(filters.parse_filter(text, filters_tracking.EXPERIMENTS), _with_number)
        orders = filters.parse_order_by(order_by, filters_tracking.EXPERIMENTS)
        with self._database.read() as connection:
            return search.search_experiments(connection, view, clauses, orders, limit, token)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────

    def create_run(self, experiment_id: str, user: str, name: str, start: int | None, tags: Sequence[Tag]) -> Run:
        """A new run, under way. Without a name it gets one that can be said aloud."""
        for index, tag in enumerate(tags):
            limits.check_tag(tag, f"tags[{index}]")
        named = [tag.value for tag in tags if tag.key == RUN_NAME_TAG][-1:]
        if name and named and named[0] and name != named[0]:
            raise InvalidParameter(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{named[0]}')."
            )
        name = name or "".join(named) or random_name()

        def work(connection: Connection) -> Run:
            experiment = existing.active_experiment(connection, experiment_id or str(DEFAULT_EXPERIMENT))
            run_id = uuid.uuid4().hex
            info = RunInfo(
                number=0,
                id=run_id,
                experiment_id=experiment.id,
                name=name,
                user=user,
                status=RunStatus.RUNNING.name,
                start=_now() if start is None else start,
                end=None,
                artifact_uri=f"{experiment.artifact_location.rstrip('/')}/{run_id}/artifacts",
                deleted=False,
            )
            info = replace(info, number=runs.insert(connection, info))
            runs.set_tags(connection, info.number, [*tags, Tag(RUN_NAME_TAG, name)])
            return runs.complete(connection, [info])[0]

        return self._database.write(work)

    def run(self, run_id: str) -> Run:
        """The run with its latest metrics, params and tags, deleted or not."""
        with self._database.read() as connection:
            return runs.complete(connection, [existing.run(connection, run_id)])[0]

    def update_run(self, run_id: str, status: RunStatus | None, end: int | None, name: str | None) -> RunInfo:
        """Change what is given. The name and the tag `mlflow.runName` stay the same."""
        values: dict[str, object] = {}
        if status is not None:
            values["status"] = status.name
        if end is not None:
            values["end"] = end

        def work(connection: Connection) -> RunInfo:
            info = existing.active_run(connection, run_id)
            runs.update(connection, info.number, values)
            if name:
                _rename(connection, info, name)
            return existing.run(connection, run_id)

        if name:
            limits.check_tag(Tag(RUN_NAME_TAG, name))
        return self._database.write(work)

    def delete_run(self, run_id: str) -> None:
        """Mark the run deleted."""
        self._write_run(run_id, lambda connection, info: _mark(connection, info, deleted=True), any_state=True)

    def restore_run(self, run_id: str) -> None:
        """Bring a deleted run back."""
        self._write_run(run_id, lambda connection, info: _mark(connection, info, deleted=False), any_state=True)

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        text: str,
        view: ViewType,
        order_by: Sequence[str],
        limit: int,
        token: str | None,
    ) -> Page[Run]:
        """A page of the runs of these experiments for which the filter holds."""
        _check_page_size(limit)
        clauses = filters.parse_filter(text, filters_tracking.RUNS)
        orders = filters.parse_order_by(order_by, filters_tracking.RUNS)
        numbers = [limits.experiment_number(experiment_id) for experiment_id in experiment_ids]
        with self._database.read() as connection:
            return search.search_runs(connection, numbers, view, clauses, orders, limit, token)

    # ── what is logged on a run ──────────────────────────────────────────────────────────────────

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Add one point."""
        limits.check_metric(metric)
        self._write_run(run_id, lambda connection, info: metrics.log(connection, info, [metric]))

    def log_param(self, run_id: str, param: Param) -> None:
        """Set a param for good: the same value again is fine, another is refused."""
        limits.check_param(param)

        def work(connection: Connection, info: RunInfo) -> None:
            before = runs.params_of(connection, info.number, [param.key]).get(param.key, param.value)
            if before != param.value:
                raise InvalidParameter(
                    f"Changing param values is not allowed. Param with key='{param.key}' was already logged with "
                    f"value='{before}' for run ID='{run_id}'. Attempted logging new value '{param.value}'."
                )
            runs.insert_params(connection, info.number, [param])

        self._write_run(run_id, work)

    def set_tag(self, run_id: str, tag: Tag) -> None:
        """Set or change a tag."""
        limits.check_tag(tag)
        self._write_run(run_id, lambda connection, info: _set_tags(connection, info, [tag]))

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag. Raises `NotFound` where there is none of that key."""

        def work(connection: Connection, info: RunInfo) -> None:
            if not runs.delete_tag(connection, info.number, key):
                raise NotFound(f"No tag with name: {key} in run with id {run_id}")

        self._write_run(run_id, work)

    def log_batch(
        self, run_id: str, new_metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[Tag]
    ) -> None:
        """Log them all, or none."""
        limits.check_run_id(run_id)
        limits.check_batch(new_metrics, params, tags)

        def work(connection: Connection, info: RunInfo) -> None:
            before = runs.params_of(connection, info.number, [param.key for param in params]) if params else {}
            changed = [
                {"key": param.key, "old_value": before[param.key], "new_value": param.value}
                for param in params
                if before.get(param.key, param.value) != param.value
            ]
            if changed:
                raise InvalidParameter(
                    "Changing param values is not allowed. Params were already "
                    f"logged='{changed}' for run ID='{run_id}'."
                )
            runs.insert_params(connection, info.number, params)
            metrics.log(connection, info, new_metrics)
            _set_tags(connection, info, tags)

        self._write_run(run_id, work)

    # ── a run's artifacts ────────────────────────────────────────────────────────────────────────

    def artifact_path(self, run_id: str, path: str) -> tuple[RunInfo, str]:
        """The run, and where in our store a path relative to its artifacts is."""
        with self._database.read() as connection:
            info = existing.run(connection, run_id)
        located = proxied_path(info.artifact_uri, path)
        if located is None:
            raise InvalidParameter(
                f"The artifacts of run '{run_id}' are kept at {info.artifact_uri}, which this server does not serve."
            )
        return info, located

    def list_artifacts(self, run_id: str, path: str) -> tuple[RunInfo, Sequence[FileInfo]]:
        """The run, and what the folder at `path` holds, as paths relative to the run's artifacts."""
        info, located = self.artifact_path(run_id, path)
        return info, self.artifacts.list_below(located, path)

    def _write_run(self, run_id: str, work: Callable[[Connection, RunInfo], None], *, any_state: bool = False) -> None:
        find = existing.own_run if any_state else existing.active_run
        self._database.write(lambda connection: work(connection, find(connection, run_id)))


def _now() -> int:
    return time.time_ns() // 1_000_000


def _make_default(connection: Connection) -> None:
    # Two processes may start together: whoever comes second finds it made.
    experiments.insert(connection, "Default", None, _now(), number=DEFAULT_EXPERIMENT)


def _mark(connection: Connection, info: RunInfo, *, deleted: bool) -> None:
    runs.update(connection, info.number, {"deleted": deleted, "deleted_at": _now() if deleted else None})


def _rename(connection: Connection, info: RunInfo, name: str) -> None:
    runs.update(connection, info.number, {"name": name})
    runs.set_tags(connection, info.number, [Tag(RUN_NAME_TAG, name)])


def _set_tags(connection: Connection, info: RunInfo, tags: Sequence[Tag]) -> None:
    runs.set_tags(connection, info.number, tags)
    names = [tag.value for tag in tags if tag.key == RUN_NAME_TAG and tag.value]
    if names:
        runs.update(connection, info.number, {"name": names[-1]})


def _check_page_size(limit: int) -> None:
    if not 1 <= limit <= MAX_SEARCH_RESULTS:
        raise InvalidParameter(
            f"Invalid value for request parameter max_results. It must be at most {MAX_SEARCH_RESULTS} "
            f"and at least 1, but got value {limit}"
        )


def _with_number(clause: filters.Clause) -> filters.Clause:
    """Experiment ids are strings in a filter and numbers in the table."""
    if clause.key != "experiment_id" or clause.entity is not filters.Entity.ATTRIBUTE:
        return clause
    if isinstance(clause.value, tuple):
        return replace(clause, value=tuple(limits.experiment_number(str(one)) for one in clause.value))
    return replace(clause, value=limits.experiment_number(str(clause.value)))
