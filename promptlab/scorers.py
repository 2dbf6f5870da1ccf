"""The rules of scorers that are kept for an experiment: versions of a name, numbered from 1."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

import orjson

from promptlab import existing
from promptlab.entities_datasets import Scorer
from promptlab.errors import InvalidParameter, NotFound
from promptlab.ports import Database
from promptlab.store import Connection, scorers

MAX_NAME = 256
MAX_SERIALIZED = 1_000_000


class Scorers:
    """Scorers of experiments. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    def register(self, experiment_id: str, name: str, serialized: str) -> Scorer:
        """The next version of an experiment's scorer. What it is is the client's to know: JSON is all it must be."""
        if not name.strip() or len(name) > MAX_NAME:
            raise InvalidParameter(f"A scorer's name has 1 to {MAX_NAME} characters, and not only spaces")
        _check(serialized)

        def work(connection: Connection) -> Scorer:
            experiment = existing.active_experiment(connection, experiment_id)
            number = scorers.make(connection, str(uuid.uuid4()), experiment.id, name)
            scorers.add_version(connection, number, serialized, time.time_ns() // 1_000_000)
            return scorers.versions(connection, number)[-1]

        return self._database.write(work)

    def newest(self, experiment_ids: Sequence[str] | None) -> list[Scorer]:
        """The newest version of each scorer of these experiments, or of all (None)."""
        with self._database.read() as connection:
            if experiment_ids is None:
                return scorers.latest(connection, None)
            wanted = [existing.experiment(connection, one).id for one in dict.fromkeys(experiment_ids)]
            return scorers.latest(connection, wanted)

    def versions(self, experiment_id: str, name: str) -> list[Scorer]:
        """Every version of a scorer. Raises `NotFound`."""
        with self._database.read() as connection:
            return scorers.versions(connection, _found(connection, experiment_id, name))

    def get(self, experiment_id: str, name: str, version: int | None) -> Scorer:
        """That version of a scorer, the newest where none is named. Raises `NotFound`."""
        found = self.versions(experiment_id, name)
        if version is None:
            return found[-1]
        for one in found:
            if one.version == version:
                return one
        raise _no_version(experiment_id, name, version)

    def delete(self, experiment_id: str, name: str, version: int | None) -> None:
        """Remove one version of a scorer, or all of them. Raises `NotFound`."""

        def work(connection: Connection) -> None:
            if not scorers.delete(connection, _found(connection, experiment_id, name, lock=True), version):
                raise _no_version(experiment_id, name, version)

        self._database.write(work)


def _found(connection: Connection, experiment_id: str, name: str, *, lock: bool = False) -> int:
    experiment = existing.experiment(connection, experiment_id)
    number = scorers.number(connection, experiment.id, name, lock=lock)
    if number is None:
        raise NotFound(f"Scorer with name '{name}' not found for experiment {experiment_id}.")
    return number


def _no_version(experiment_id: str, name: str, version: int | None) -> NotFound:
    return NotFound(f"Scorer with name '{name}' and version {version} not found for experiment {experiment_id}.")


def _check(serialized: str) -> None:
    if len(serialized) > MAX_SERIALIZED:
        raise InvalidParameter(f"'serialized_scorer' is longer than {MAX_SERIALIZED} characters")
    try:
        whole = isinstance(orjson.loads(serialized), dict)
    except orjson.JSONDecodeError:
        whole = False
    if not whole:
        raise InvalidParameter("'serialized_scorer' must be a JSON object, as a string")
