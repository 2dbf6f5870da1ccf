"""Which calls of the protocol only read is known of every path there is, and told by one table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from gateway.api import tracking
from gateway.database import open_database
from promptlab.api import app

#: POST as MLflow's clients use it for questions: with each path that answers it, whether it changes anything.
CHANGES = {
    *("create", "delete", "restore", "update", "set-tag", "delete-tag", "set-experiment-tag", "delete-experiment-tag"),
    *("log-batch", "log-metric", "log-parameter", "log-model", "log-inputs", "outputs", "rename", "alias", "records"),
    *("transition-stage", "add-experiments", "remove-experiments", "register"),
    *("logged-models", "params", "tags", "traces", "assessments", "link-to-run", "link-prompts", "delete-traces"),
    *("webhooks", "test", "create-promptlab-run", "upload-artifact"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Method and path of everything the tracking server answers."""
    folder = tmp_path_factory.mktemp("lab")
    database = open_database(f"sqlite:///{folder / 'lab.db'}")
    made = app.create(database, folder / "artifacts")
    found = [(method, one.path) for one in _routes(made) for method in sorted(one.methods)]
    made.state.close()
    database.close()
    assert len(found) > 50
    return found


def _routes(router: Any) -> Iterator[APIRoute]:
    for one in router.routes:
        if isinstance(one, APIRoute):
            yield one
        elif (included := getattr(one, "original_router", None)) is not None:
            yield from _routes(included)


def test_every_path_reads_or_changes(served: list[tuple[str, str]]) -> None:
    others = ("/v1/", "/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/")
    posts = {path for method, path in served if method == "POST" and not path.startswith(others)}
    changing = {path for path in posts if not tracking.reads("POST", path)}
    # What is new must be put into one of the two tables.
    assert [path for path in sorted(changing) if path.rstrip("/").rpartition("/")[2] not in CHANGES] == []
    assert posts - changing
    for method, path in served:
        concrete = re.sub(r"\{[^}]*\}", "x", path)
        assert tracking.reads(method, concrete) == (method in ("GET", "HEAD") or path in posts - changing), path


def test_what_is_not_known_changes() -> None:
    assert not tracking.reads("POST", "/api/2.0/mlflow/runs/search/../delete")
    assert not tracking.reads("POST", "/api/2.0/mlflow/new/search")
    assert not tracking.reads("POST", "/runs/search")
    assert not tracking.reads("PATCH", "/api/2.0/mlflow/runs/search")
    assert not tracking.reads("POST", "/v1/traces")
    assert not tracking.reads("PUT", "/api/2.0/mlflow-artifacts/artifacts/x")


def test_a_table_without_its_path_is_noticed(served: list[tuple[str, str]]) -> None:
    known = {path.partition("/mlflow/")[2] for method, path in served if method == "POST"}
    assert tracking.READS - known == set()
