"""What a call names: the experiment, the run or the logged model, or the error that says why it cannot be had."""

from __future__ import annotations

from promptlab import limits
from promptlab.entities import Experiment, RunInfo
from promptlab.entities_models import LoggedModel
from promptlab.errors import InvalidParameter, NotFound
from promptlab.store import Connection, experiments, logged_models, runs


def experiment(connection: Connection, experiment_id: str) -> Experiment:
    """The experiment of that id, deleted or not. Raises `NotFound`."""
    return _experiment(connection, experiment_id, lock=None)


def own_experiment(connection: Connection, experiment_id: str) -> Experiment:
    """The same, and nobody else uses or changes it until the transaction ends."""
    return _experiment(connection, experiment_id, lock="own")


def active_experiment(connection: Connection, experiment_id: str) -> Experiment:
    """The experiment, which is not deleted now nor until the transaction ends."""
    found = _experiment(connection, experiment_id, lock="share")
    if found.deleted:
        raise InvalidParameter(f"The experiment {found.id} must be in the 'active' state. Current state is deleted.")
    return found


def run(connection: Connection, run_id: str) -> RunInfo:
    """The run of that id, deleted or not. Raises `NotFound`."""
    return _run(connection, run_id, lock=False)


def own_run(connection: Connection, run_id: str) -> RunInfo:
    """The same, and nobody else writes to it until the transaction ends."""
    return _run(connection, run_id, lock=True)


def active_run(connection: Connection, run_id: str) -> RunInfo:
    """A run that is not deleted, and that nobody else writes to until the transaction ends."""
    found = own_run(connection, run_id)
    if found.deleted:
        raise InvalidParameter(f"The run {run_id} must be in the 'active' state. Current state is deleted.")
    return found


def logged_model(connection: Connection, model_id: str) -> LoggedModel:
    """The logged model of that id, deleted or not. Raises `NotFound`."""
    return _logged_model(connection, model_id, lock=False)


def own_logged_model(connection: Connection, model_id: str) -> LoggedModel:
    """The same, and nobody else changes it until the transaction ends."""
    return _logged_model(connection, model_id, lock=True)


def no_logged_model(model_id: str) -> NotFound:
    """The error that says that there is no such logged model."""
    return NotFound(f"Logged model with ID '{model_id}' not found.")


def _experiment(connection: Connection, experiment_id: str, *, lock: experiments.Lock | None) -> Experiment:
    number = limits.parse_experiment_id(experiment_id)
    found = experiments.find(connection, number, lock=lock)
    if found is None:
        raise NotFound(f"No Experiment with id={number} exists")
    return found


def _run(connection: Connection, run_id: str, *, lock: bool) -> RunInfo:
    found = runs.find(connection, run_id, lock=lock)
    if found is None:
        raise NotFound(f"Run with id={run_id} not found")
    return found


def _logged_model(connection: Connection, model_id: str, *, lock: bool) -> LoggedModel:
    found = logged_models.find(connection, model_id, lock=lock)
    if found is None:
        raise no_logged_model(model_id)
    return found
