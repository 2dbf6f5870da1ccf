"""Traces that come whole and many at once are as those that came by a client, on both databases."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.database import open_database
from promptlab.artifacts import Artifacts
from promptlab.entities_traces import Span
from promptlab.lab import Lab
from promptlab.traces_whole import Whole, WholeTraces
from tests.promptlab.tracing import START


@pytest.fixture(scope="module")
def made(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, WholeTraces]]:
    database = open_database(shared_url)
    yield Lab(database, Artifacts(tmp_path_factory.mktemp("artifacts"))), WholeTraces(database)
    database.close()


def span(trace: str, parent: str | None = None, status: str = "OK", **attributes: Any) -> Span:
    return Span(trace, secrets.token_hex(8), parent, "call", status, START, START + 2_000_000, attributes)


def whole(experiment: str, status: str = "OK", **more: Any) -> Whole:
    trace = secrets.token_hex(16)
    root = span(trace, status=status, **{"mlflow.spanInputs": {"q": 1}, "mlflow.spanOutputs": "é"})
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    return Whole(experiment, f"req_{trace}", [root, span(trace, root.id, **{"mlflow.chat.tokenUsage": usage})], **more)


def test_they_are_found_as_any_other(made: tuple[Lab, WholeTraces]) -> None:
    lab, traces = made
    name, other = uuid.uuid4().hex, uuid.uuid4().hex
    some = [whole(name, prompts=[("greeting", "2")], metadata={"mlflow.trace.user": "ann"})]
    some += [whole(name, "ERROR"), whole(other)]
    assert traces.keep(some) == 3
    experiment = str(lab.experiment_by_name(name).id)
    for text, count in {
        "": 2,
        "attributes.status = 'ERROR'": 1,
        "attributes.prompt = 'greeting/2'": 1,
        "metadata.`mlflow.trace.user` = 'ann'": 1,
        f"attributes.client_request_id = '{some[0].client_request_id}'": 1,
        "span.name = 'call' AND span.content LIKE '%é%'": 2,
    }.items():
        assert len(lab.traces.search([experiment], text, [], 100, None).items) == count, text
    found, spans = lab.traces.get(f"tr-{some[0].spans[0].trace_id}", partial=False)
    assert (found.state, found.duration, found.request_preview, found.response_preview) == ("OK", 2, '{"q": 1}', "é")
    assert found.metadata["mlflow.trace.tokenUsage"] == '{"input_tokens":3,"output_tokens":4,"total_tokens":7}'
    assert "mlflow.trace.cost" not in found.metadata
    assert [one.id for one in spans] == [one.id for one in some[0].spans]


def test_a_deleted_experiment_takes_none_and_costs_the_others_nothing(made: tuple[Lab, WholeTraces]) -> None:
    lab, traces = made
    gone, stays = uuid.uuid4().hex, uuid.uuid4().hex
    lab.delete_experiment(str(lab.create_experiment(gone, None, [])))
    assert traces.keep([whole(gone), whole(stays), whole(gone)]) == 1
    assert len(lab.traces.search([str(lab.experiment_by_name(stays).id)], "", [], 100, None).items) == 1
    assert traces.keep([]) == 0
