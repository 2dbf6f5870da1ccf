"""The rules of tracking, on both databases."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from gateway.database import open_database
from promptlab.artifacts import Artifacts
from promptlab.entities import Metric, Param, RunStatus, Tag, ViewType
from promptlab.errors import AlreadyExists, InvalidParameter, NotFound
from promptlab.lab import Lab


def new_run(lab: Lab, name: str = "", *tags: Tag) -> str:
    return lab.create_run("0", "me", name, 1, tags).info.id


def params(lab: Lab, run_id: str) -> dict[str, str]:
    return {param.key: param.value for param in lab.run(run_id).params}


def tags(lab: Lab, run_id: str) -> dict[str, str]:
    return {tag.key: tag.value for tag in lab.run(run_id).tags}


# ── experiments ──────────────────────────────────────────────────────────────────────────────────


def test_there_is_a_default_experiment(lab: Lab) -> None:
    found = lab.experiment("0")
    assert (found.name, found.artifact_location, found.deleted) == ("Default", "mlflow-artifacts:/0", False)


def test_a_second_start_finds_what_the_first_made(database_url: str, tmp_path: Path) -> None:
    for expected in ([0], [1, 0]):
        database = open_database(database_url)
        lab = Lab(database, Artifacts(tmp_path))
        page = lab.search_experiments(ViewType.ALL, "", [], 10, None)
        assert [found.id for found in page.items] == expected
        if expected == [0]:
            lab.create_experiment("kept", None, [])
        database.close()


def test_ids_go_up_and_name_the_artifacts(lab: Lab) -> None:
    first, second = (lab.create_experiment(name, None, []) for name in "ab")
    assert second > first > 0
    assert lab.experiment(str(second)).artifact_location == f"mlflow-artifacts:/{second}"


def test_a_deleted_experiment_still_owns_its_name(lab: Lab) -> None:
    number = lab.create_experiment("mine", "s3://bucket/x", [Tag("a", "1")])
    lab.delete_experiment(str(number))
    assert lab.experiment_by_name("mine").deleted
    assert lab.experiment_by_name("mine").tags == (Tag("a", "1"),)
    with pytest.raises(AlreadyExists, match=r"^Experiment\(name=mine\) already exists\.$"):
        lab.create_experiment("mine", None, [])


def test_many_who_want_one_name_get_it_once(lab: Lab) -> None:
    made: list[int] = []
    refused: list[AlreadyExists] = []

    def create() -> None:
        try:
            made.append(lab.create_experiment("wanted", None, []))
        except AlreadyExists as error:
            refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)


def test_deleting_an_experiment_takes_its_runs_along_and_back(lab: Lab) -> None:
    number = str(lab.create_experiment("e", None, []))
    run = lab.create_run(number, "me", "r", 1, []).info.id
    lab.delete_experiment(number)
    assert lab.run(run).info.deleted
    with pytest.raises(NotFound, match=f"No Experiment with id={number} exists"):
        lab.delete_experiment(number)
    for write in (
        lambda: lab.create_run(number, "me", "", 1, []),
        lambda: lab.set_experiment_tag(number, Tag("a", "b")),
    ):
        with pytest.raises(InvalidParameter, match=f"The experiment {number} must be in the 'active' state"):
            write()
    lab.restore_experiment(number)
    assert not lab.run(run).info.deleted
    with pytest.raises(NotFound):
        lab.restore_experiment(number)


def test_renaming(lab: Lab) -> None:
    number = str(lab.create_experiment("before", None, []))
    lab.rename_experiment(number, "after")
    assert lab.experiment_by_name("after").id == int(number)
    lab.rename_experiment(number, "after")
    with pytest.raises(AlreadyExists):
        lab.rename_experiment(number, "Default")
    lab.delete_experiment(number)
    with pytest.raises(InvalidParameter, match="Cannot rename a non-active experiment"):
        lab.rename_experiment(number, "again")


def test_tags_of_an_experiment(lab: Lab) -> None:
    lab.set_experiment_tag("0", Tag("k", "1"))
    lab.set_experiment_tag("0", Tag("k", "2"))
    assert lab.experiment("0").tags == (Tag("k", "2"),)
    lab.delete_experiment_tag("0", "k")
    with pytest.raises(NotFound, match="No tag with name: k in experiment with id 0"):
        lab.delete_experiment_tag("0", "k")


@pytest.mark.parametrize(
    ("experiment_id", "error", "says"),
    [
        ("77", NotFound, "No Experiment with id=77 exists"),
        ("9" * 30, NotFound, "No Experiment with id="),
        ("x", InvalidParameter, "Invalid experiment ID 'x'. Experiment ID must be a valid integer."),
        ("1_0", InvalidParameter, "Invalid experiment ID"),
    ],
)
def test_an_experiment_that_is_not_there(lab: Lab, experiment_id: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        lab.experiment(experiment_id)


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_run(lab: Lab) -> None:
    info = lab.create_run("", "me", "named", 5, [Tag("t", "1")]).info
    assert (info.experiment_id, info.name, info.user, info.status, info.start, info.end) == (
        0,
        "named",
        "me",
        "RUNNING",
        5,
        None,
    )
    assert len(info.id) == 32
    assert info.artifact_uri == f"mlflow-artifacts:/0/{info.id}/artifacts"
    assert tags(lab, info.id) == {"t": "1", "mlflow.runName": "named"}


def test_the_name_and_its_tag_are_one(lab: Lab) -> None:
    run = new_run(lab, "", Tag("mlflow.runName", "from tag"))
    assert lab.run(run).info.name == "from tag"
    lab.update_run(run, None, None, "by update")
    assert tags(lab, run)["mlflow.runName"] == "by update"
    lab.set_tag(run, Tag("mlflow.runName", "by tag"))
    assert lab.run(run).info.name == "by tag"
    lab.log_batch(run, [], [], [Tag("mlflow.runName", "by batch")])
    assert lab.run(run).info.name == "by batch"
    with pytest.raises(InvalidParameter, match=r"Both 'run_name' argument and 'mlflow\.runName' tag"):
        new_run(lab, "a", Tag("mlflow.runName", "b"))


def test_a_run_without_a_name_gets_one(lab: Lab) -> None:
    adjective, noun, number = lab.run(new_run(lab)).info.name.split("-")
    assert adjective.isalpha()
    assert noun.isalpha()
    assert number.isdecimal()


def test_updating_changes_what_is_given(lab: Lab) -> None:
    run = new_run(lab, "r")
    assert lab.update_run(run, RunStatus.FINISHED, 9, None).status == "FINISHED"
    info = lab.update_run(run, None, None, "")
    assert (info.status, info.end, info.name) == ("FINISHED", 9, "r")


def test_a_deleted_run_takes_nothing_more(lab: Lab) -> None:
    run = new_run(lab)
    lab.delete_run(run)
    lab.delete_run(run)
    for write in (
        lambda: lab.log_metric(run, Metric("m", 1.0, 1)),
        lambda: lab.log_param(run, Param("p", "1")),
        lambda: lab.set_tag(run, Tag("t", "1")),
        lambda: lab.delete_tag(run, "t"),
        lambda: lab.update_run(run, RunStatus.FAILED, 1, None),
        lambda: lab.log_batch(run, [], [], []),
    ):
        with pytest.raises(InvalidParameter, match=f"The run {run} must be in the 'active' state. Current state is"):
            write()
    lab.restore_run(run)
    lab.log_param(run, Param("p", "1"))
    assert params(lab, run) == {"p": "1"}


def test_a_run_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(NotFound, match=r"^Run with id=none not found$"):
        lab.run("none")


def test_params_are_written_once(lab: Lab) -> None:
    run = new_run(lab)
    lab.log_param(run, Param("p", "1"))
    lab.log_param(run, Param("p", "1"))
    with pytest.raises(InvalidParameter) as refused:
        lab.log_param(run, Param("p", "2"))
    assert refused.value.message == (
        "Changing param values is not allowed. Param with key='p' was already logged with value='1' "
        f"for run ID='{run}'. Attempted logging new value '2'."
    )


def test_a_batch_is_logged_whole_or_not_at_all(lab: Lab) -> None:
    run = new_run(lab)
    lab.log_batch(run, [Metric("m", 1.0, 1)], [Param("p", "1")], [Tag("t", "1"), Tag("t", "2")])
    with pytest.raises(InvalidParameter, match=r"Changing param values is not allowed\. Params were already logged="):
        lab.log_batch(run, [Metric("m", 2.0, 2)], [Param("new", "1"), Param("p", "2")], [Tag("t", "3")])
    found = lab.run(run)
    assert found.metrics == (Metric("m", 1.0, 1),)
    assert params(lab, run) == {"p": "1"}
    assert tags(lab, run)["t"] == "2"


def test_deleting_a_tag(lab: Lab) -> None:
    run = new_run(lab, "", Tag("t", "1"))
    lab.delete_tag(run, "t")
    with pytest.raises(NotFound, match=f"No tag with name: t in run with id {run}"):
        lab.delete_tag(run, "t")


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("logged", "latest"),
    [
        ([(1.0, 1, 1), (2.0, 1, 2)], (2.0, 1, 2)),
        ([(2.0, 1, 2), (1.0, 9, 1)], (2.0, 1, 2)),
        ([(1.0, 5, 1), (2.0, 3, 1)], (1.0, 5, 1)),
        ([(1.0, 5, 1), (2.0, 5, 1)], (2.0, 5, 1)),
        ([(2.0, 5, 1), (1.0, 5, 1)], (2.0, 5, 1)),
        ([(3.0, 1, -1)], (3.0, 1, -1)),
    ],
)
def test_the_latest_is_the_greatest_of_step_timestamp_and_value(
    lab: Lab, logged: list[tuple[float, int, int]], latest: tuple[float, int, int]
) -> None:
    points = [Metric("m", *point) for point in logged]
    together, one_by_one = new_run(lab), new_run(lab)
    lab.log_batch(together, points, [], [])
    for point in points:
        lab.log_metric(one_by_one, point)
    for run in (together, one_by_one):
        assert lab.run(run).metrics == (Metric("m", *latest),)


def test_what_no_number_can_say(lab: Lab) -> None:
    run = new_run(lab)
    lab.log_batch(run, [Metric("nan", math.nan, 1), Metric("inf", math.inf, 1), Metric("ninf", -math.inf, 1)], [], [])
    found = {metric.key: metric.value for metric in lab.run(run).metrics}
    assert math.isnan(found["nan"])
    assert (found["inf"], found["ninf"]) == (1.7976931348623157e308, -1.7976931348623157e308)
    assert math.isnan(lab.metrics.history(run, "nan", None, None).items[0].value)


def test_a_history_has_each_point_once_in_order_and_in_pages(lab: Lab) -> None:
    run = new_run(lab)
    points = [Metric("m", value, timestamp, step) for timestamp in (1, 2) for step in (0, 1) for value in (0.0, 0.5)]
    points.append(Metric("m", math.nan, 2, 1))
    lab.log_batch(run, [*reversed(points), *points], [], [])
    lab.log_metric(run, points[0])
    whole = lab.metrics.history(run, "m", None, None)
    assert [(p.timestamp, p.step) for p in whole.items] == sorted((p.timestamp, p.step) for p in points)
    assert whole.token is None
    paged: list[Metric] = []
    token = None
    while True:
        page = lab.metrics.history(run, "m", 2, token)
        paged += page.items
        token = page.token
        if token is None:
            break
    assert [repr(point) for point in paged] == [repr(point) for point in whole.items]
    assert lab.metrics.history(run, "other", None, None).items == []


@pytest.mark.parametrize("limit", [0, -1, 25_001])
def test_a_page_of_history_has_a_size(lab: Lab, limit: int) -> None:
    run = new_run(lab)
    with pytest.raises(InvalidParameter, match=f"Invalid value {limit} for parameter 'max_results' supplied"):
        lab.metrics.history(run, "m", limit, None)
    lab.metrics.history(run, "m", 25_000, None)


def test_writers_of_one_run_lose_nothing(lab: Lab) -> None:
    run = new_run(lab)

    def write(writer: int) -> None:
        for step in range(10):
            lab.log_batch(run, [Metric("m", writer + step / 100, writer, step)], [Param("same", "1")], [])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lab.metrics.history(run, "m", None, None).items) == 60
    assert lab.run(run).metrics == (Metric("m", 5.09, 5, 9),)
