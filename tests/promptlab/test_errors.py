"""Every error of ours has a status and a code that MLflow's client knows, and says nothing it should not."""

from __future__ import annotations

import logging

import orjson
import pytest
import sqlalchemy as sa

from promptlab import errors
from promptlab.api.wire import failed


def family(kind: type[errors.LabError]) -> list[type[errors.LabError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in family(child))]


@pytest.mark.parametrize("kind", family(errors.LabError))
def test_an_error_in_mlflows_shape(kind: type[errors.LabError]) -> None:
    status, body = errors.to_mlflow(kind("why"))
    assert orjson.loads(body) == {"error_code": kind.code, "message": "why"}
    assert (status == 500) == (kind.code == "INTERNAL_ERROR")
    # Its client repeats these for minutes: only what passes by itself may be one of them.
    assert status not in (408, 429, 502, 503, 504) or kind is errors.Unavailable


def test_the_codes_are_mlflows_own() -> None:
    from mlflow.protos.databricks_pb2 import ErrorCode

    assert {kind.code for kind in family(errors.LabError)} <= set(ErrorCode.keys())


def test_a_fault_of_ours_is_told_to_the_log_and_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            with sa.create_engine("sqlite://").connect() as connection:
                connection.exec_driver_sql("SELECT secret FROM nowhere")
        except sa.exc.OperationalError as error:
            response = failed(error)
    assert response.status_code == 500
    assert orjson.loads(bytes(response.body)) == {
        "error_code": "INTERNAL_ERROR",
        "message": "The server failed to carry this out; its log says why.",
    }
    assert "nowhere" in caplog.text
