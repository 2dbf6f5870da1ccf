"""The rules of logged models: models that runs made, with their params, tags and metrics. One transaction a call."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson

from promptlab import existing, filters, filters_models, limits, limits_models
from promptlab.artifacts import Artifacts, proxied_path
from promptlab.entities import FileInfo, Page, Param, Tag
from promptlab.entities_models import (
    MODEL_VERSIONS,
    DatasetFilter,
    LoggedModel,
    LoggedModelStatus,
    ModelOrder,
    NewLoggedModel,
)
from promptlab.errors import InvalidParameter, NotFound
from promptlab.names import random_name
from promptlab.ports import Database
from promptlab.store import Connection, logged_models, search_logged_models

T = TypeVar("T")

DEFAULT_RESULTS = 100
MAX_RESULTS = 50_000


class LoggedModels:
    """Logged models and their files. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database
        self._artifacts = artifacts

    def create(self, new: NewLoggedModel) -> LoggedModel:
        """A new logged model, pending: its maker says later whether its files arrived."""
        limits_models.check_new(new)
        params = {param.key: param.value for param in new.params}
        if len(params) < len(set(new.params)):
            raise InvalidParameter("A param of the logged model has two values; give one value for each key.")

        def work(connection: Connection) -> LoggedModel:
            experiment = existing.active_experiment(connection, new.experiment_id)
            model_id, now = f"m-{uuid.uuid4().hex}", _now()
            made = LoggedModel(
                number=0,
                id=model_id,
                experiment_id=experiment.id,
                name=new.name or random_name(),
                artifact_uri=f"{experiment.artifact_location.rstrip('/')}/models/{model_id}/artifacts",
                created=now,
                updated=now,
                status=LoggedModelStatus.LOGGED_MODEL_PENDING,
                model_type=new.model_type,
                source_run_id=new.source_run_id,
            )
            number = logged_models.insert(connection, made)
            logged_models.insert_params(connection, number, new.params)
            logged_models.set_tags(connection, number, new.tags)
            return existing.logged_model(connection, model_id)

        return self._database.write(work)

    def get(self, model_id: str, *, deleted_too: bool = False) -> LoggedModel:
        """The logged model of that id. Raises `NotFound`; for a deleted one too unless `deleted_too`."""
        with self._database.read() as connection:
            found = existing.logged_model(connection, model_id)
        if found.deleted and not deleted_too:
            raise existing.no_logged_model(model_id)
        return found

    def finish(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """The logged model once its maker has said how the upload of its files went."""

        def work(connection: Connection, found: LoggedModel) -> LoggedModel:
            logged_models.update(connection, found.number, status=status.name, updated=_now())
            return existing.logged_model(connection, model_id)

        return self._write(model_id, work)

    def delete(self, model_id: str) -> None:
        """Mark the logged model deleted. Its files stay where they are."""

        def work(connection: Connection, found: LoggedModel) -> None:
            logged_models.update(connection, found.number, deleted=True, updated=_now())

        self._write(model_id, work)

    def set_tags(self, model_id: str, tags: Sequence[Tag]) -> LoggedModel:
        """The logged model with these tags set or changed."""
        limits_models.check_labels("tags", tags)

        def work(connection: Connection, found: LoggedModel) -> LoggedModel:
            logged_models.set_tags(connection, found.number, tags)
            return existing.logged_model(connection, model_id)

        return self._write(model_id, work)

    def delete_tag(self, model_id: str, key: str) -> None:
        """Remove a tag. Raises `NotFound` where there is none of that key."""

        def work(connection: Connection, found: LoggedModel) -> None:
            if not logged_models.delete_tag(connection, found.number, key):
                raise NotFound(f"No tag with key {key!r} found for model with ID {model_id!r}.")

        self._write(model_id, work)

    def log_params(self, model_id: str, params: Sequence[Param]) -> None:
        """Set params for good: the same value again is fine, another is refused."""
        limits_models.check_labels("params", params)

        def work(connection: Connection, found: LoggedModel) -> None:
            known = {param.key: param.value for param in found.params}
            for param in params:
                before = known.setdefault(param.key, param.value)
                if before != param.value:
                    raise InvalidParameter(
                        f"Changing param values is not allowed. Param with key='{param.key}' was already logged with "
                        f"value='{before}' for model ID='{model_id}'. Attempted logging new value '{param.value}'."
                    )
            logged_models.insert_params(connection, found.number, params)

        self._write(model_id, work)

    def search(
        self,
        experiment_ids: Sequence[str],
        text: str,
        datasets: Sequence[DatasetFilter],
        order_by: Sequence[ModelOrder],
        limit: int,
        token: str | None,
    ) -> Page[LoggedModel]:
        """A page of the logged models of these experiments for which the filter holds."""
        if not 0 <= limit <= MAX_RESULTS:
            raise InvalidParameter(
                f"Invalid value for request parameter max_results. It must be at most {MAX_RESULTS} "
                f"and at least 1, but got value {limit}"
            )
        if not all(one.name for one in datasets):
            raise InvalidParameter("`dataset_name` in the `datasets` clause must be specified.")
        limits_models.check_count("datasets", datasets)
        clauses = filters.each(filters.parse_filter(text, filters_models.LOGGED_MODELS), filters_models.stored)
        orders = filters_models.parse_model_orders(order_by)
        numbers = [limits.experiment_number(one) for one in experiment_ids]
        asked = _Asked(experiment_ids, text, datasets, order_by)
        with self._database.read() as connection:
            found = search_logged_models.search_logged_models(
                connection, numbers, clauses, datasets, orders, limit or DEFAULT_RESULTS, token and asked.opened(token)
            )
        return Page(found.items, found.token and asked.sealed(found.token))

    # ── files ────────────────────────────────────────────────────────────────────────────────────

    def artifact_path(self, model_id: str, path: str) -> tuple[LoggedModel, str]:
        """The logged model, and where in our store a path relative to its artifacts is."""
        found = self.get(model_id)
        located = proxied_path(found.artifact_uri, path)
        if located is None:
            raise InvalidParameter(
                f"The artifacts of logged model '{model_id}' are kept at {found.artifact_uri}, "
                "which this server does not serve."
            )
        return found, located

    def list_artifacts(self, model_id: str, path: str) -> tuple[LoggedModel, Sequence[FileInfo]]:
        """The logged model, and what the folder at `path` holds, as paths relative to the model's artifacts."""
        found, located = self.artifact_path(model_id, path)
        return found, self._artifacts.list_below(located, path)

    def _write(self, model_id: str, work: Callable[[Connection, LoggedModel], T]) -> T:
        return self._database.write(
            lambda connection: work(connection, existing.own_logged_model(connection, model_id))
        )


class _Asked:
    """What a search asked for: its page tokens are good for the same question only, as MLflow's are."""

    def __init__(
        self,
        experiment_ids: Sequence[str],
        text: str,
        datasets: Sequence[DatasetFilter],
        order_by: Sequence[ModelOrder],
    ) -> None:
        self._parts: dict[str, Any] = {
            "experiment_ids": list(experiment_ids),
            "filter_string": text,
            "order_by": [[one.field, one.ascending, one.dataset_name, one.dataset_digest] for one in order_by],
            "datasets": [[one.name, one.digest] for one in datasets],
        }

    def sealed(self, token: str) -> str:
        """The token with the question in it."""
        return base64.b64encode(orjson.dumps({**self._parts, "page": token})).decode()

    def opened(self, token: str) -> str:
        """What was sealed. Raises `InvalidParameter` where the question was another."""
        try:
            found = orjson.loads(base64.b64decode(token.encode(), validate=True))
        except (binascii.Error, UnicodeEncodeError, orjson.JSONDecodeError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("page"), str):
            raise InvalidParameter("Invalid page token, could not base64-decode")
        for name, words in _PARTS.items():
            if found.get(name) != self._parts[name]:
                raise InvalidParameter(f"{words}. Expected: {self._parts[name]}. Found: {found.get(name)}")
        return str(found["page"])


_PARTS = {
    "experiment_ids": "Experiment IDs in the page token do not match the requested experiment IDs",
    "filter_string": "Filter string in the page token does not match the requested filter string",
    "order_by": "Order by in the page token does not match the requested order by",
    "datasets": "Datasets in the page token do not match the requested datasets",
}


def note_version(connection: Connection, model_id: str, name: str, version: int) -> None:
    """Tell in the logged model's tags that this registered version was made of it."""
    found = existing.own_logged_model(connection, model_id)
    before = next((tag.value for tag in found.tags if tag.key == MODEL_VERSIONS), "[]")
    try:
        versions = orjson.loads(before)
    except orjson.JSONDecodeError:
        versions = []
    this = {"name": name, "version": version}
    known = versions if isinstance(versions, list) else []
    if this not in known:
        logged_models.set_tags(connection, found.number, [Tag(MODEL_VERSIONS, json.dumps([*known, this]))])


def _now() -> int:
    return time.time_ns() // 1_000_000
