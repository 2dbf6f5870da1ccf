"""The two searches, on both databases: what a filter finds, in which order, page by page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import pytest

from promptlab.entities import Metric, Param, RunStatus, Tag, ViewType
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

# name, start, metric m, metric other, param p, tag t, end
RUNS = [
    ("a", 10, 1.0, None, "one", "Red", 100),
    ("b", 20, 2.0, 5.0, "two", None, None),
    ("c", 30, math.nan, 0.0, "One", "red", 300),
    ("d", 40, None, None, None, "blue_1", None),
    ("e", 40, -1.0, math.inf, "x" * 300, r"C:\new%", 50),
]


def fill(lab: Lab) -> Lab:
    """Those runs, in the experiment `Default`."""
    for name, start, m, other, p, t, end in RUNS:
        run = lab.create_run("0", f"user-{name}", name, start, [] if t is None else [Tag("t", t)]).info.id
        values = [Metric(key, value, 1) for key, value in (("m", m), ("other", other)) if value is not None]
        lab.log_batch(run, values, [] if p is None else [Param("p", p)], [])
        if end is not None:
            lab.update_run(run, RunStatus.FINISHED, end, None)
    return lab


@pytest.fixture(scope="module")
def filled(shared_lab: Lab) -> Lab:
    """Those runs, for tests that only read."""
    return fill(shared_lab)


def names(lab: Lab, text: str = "", order_by: Sequence[str] = (), view: ViewType = ViewType.ACTIVE_ONLY) -> str:
    return "".join(run.info.name for run in lab.search_runs(["0"], text, view, order_by, 1000, None).items)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("metrics.m > 0", "ab"),
        ("metrics.m >= 1.0", "ab"),
        ("metrics.m < 0.5", "e"),
        ("metrics.m = 2", "b"),
        ("metrics.m <= 1", "ae"),
        ("metrics.m != 1", "bce"),
        ("metrics.m = 0", ""),
        ("metrics.other = 0", "c"),
        ("metrics.other > 1e300", "e"),
        ("metrics.nothing > 0", ""),
        ("params.p = 'one'", "a"),
        ("params.p != 'one'", "bce"),
        ("params.p LIKE 'o%'", "a"),
        ("params.p ILIKE 'o%'", "ac"),
        ("params.p LIKE '_wo'", "b"),
        (f"params.p = '{'x' * 300}'", "e"),
        (f"params.p = '{'x' * 299}'", ""),
        ("params.p IS NULL", "d"),
        ("params.p IS NOT NULL", "abce"),
        ("tags.t = 'red'", "c"),
        ("tags.t ILIKE 'RED'", "ac"),
        ("tags.t LIKE 'blue_1'", "d"),
        (r"tags.t LIKE 'C:\n%'", "e"),
        (r"tags.t = 'C:\new%'", "e"),
        ("tags.t IS NULL", "b"),
        ("tags.mlflow.runName = 'a'", "a"),
        ("run_name IN ('a')", None),
        ("attributes.run_name LIKE '%'", "abcde"),
        ("run_name != 'a'", "bcde"),
        ("user_id = 'user-b'", "b"),
        ("status = 'FINISHED'", "ace"),
        ("status != 'FINISHED'", "bd"),
        ("status ILIKE 'finish%'", "ace"),
        ("start_time > 20", "cde"),
        ("start_time >= 20.5", "cde"),
        ("start_time < 9999999999999999999999", "abcde"),
        ("end_time > 50", "ac"),
        ("end_time != 50", "ac"),
        ("artifact_uri LIKE 'mlflow-artifacts:/0/%'", "abcde"),
        ("run_id IN ('nobody')", ""),
        ("run_id NOT IN ('nobody')", "abcde"),
        ("dataset.name = 'd'", ""),
        ("metrics.m > 0 AND params.p = 'one' AND status = 'FINISHED' AND tags.t = 'Red'", "a"),
        ("metrics.m > 0 AND metrics.other > 0", "b"),
    ],
)
def test_what_a_filter_finds(filled: Lab, text: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(InvalidParameter):
            names(filled, text)
    else:
        assert "".join(sorted(names(filled, text))) == found


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ([], ("decba", "edcba")),
        (["start_time"], ("abcde", "abced")),
        (["start_time ASC", "run_name DESC"], ("abced",)),
        (["metrics.m"], ("eabcd",)),
        (["metrics.m DESC"], ("baecd",)),
        (["metrics.other DESC"], ("ebcda",)),
        (["params.p"], ("cabed",)),
        (["params.p DESC"], ("ebacd",)),
        (["tags.t", "run_name"], ("eadcb",)),
        (["end_time DESC"], ("caedb", "caebd")),
        (["attributes.status", "run_name DESC"], ("ecadb",)),
    ],
)
def test_in_which_order(filled: Lab, order_by: list[str], found: tuple[str, ...]) -> None:
    whole = names(filled, order_by=order_by)
    assert whole in found
    # Every page size gives the same runs in the same order, each once.
    for size in (1, 2, 3):
        paged, token = "", None
        while True:
            page = filled.search_runs(["0"], "", ViewType.ACTIVE_ONLY, order_by, size, token)
            assert 1 <= len(page.items) <= size
            paged += "".join(run.info.name for run in page.items)
            token = page.token
            if token is None:
                break
        assert paged == whole


def test_a_run_added_meanwhile_moves_nothing(lab: Lab) -> None:
    filled = fill(lab)
    first = filled.search_runs(["0"], "", ViewType.ACTIVE_ONLY, ["run_name"], 2, None)
    filled.create_run("0", "me", "aa", 99, [])
    rest = filled.search_runs(["0"], "", ViewType.ACTIVE_ONLY, ["run_name"], 10, first.token)
    assert "".join(run.info.name for run in rest.items) == "cde"


def test_the_living_the_deleted_and_both(lab: Lab) -> None:
    filled = fill(lab)
    run = filled.search_runs(["0"], "run_name = 'c'", ViewType.ALL, [], 10, None).items[0].info.id
    filled.delete_run(run)
    assert "c" not in names(filled)
    assert names(filled, view=ViewType.DELETED_ONLY) == "c"
    assert sorted(names(filled, view=ViewType.ALL)) == list("abcde")


def test_runs_come_from_the_experiments_asked_for(lab: Lab) -> None:
    filled = fill(lab)
    other = str(filled.create_experiment("other", None, []))
    filled.create_run(other, "me", "z", 1, [])
    found = [
        len(filled.search_runs(ids, "", ViewType.ALL, [], 100, None).items)
        for ids in ([], [other], ["0"], ["0", other], ["77"], ["9" * 40])
    ]
    assert found == [0, 1, 5, 6, 0, 0]
    with pytest.raises(InvalidParameter, match="Invalid experiment ID 'x'"):
        filled.search_runs(["x"], "", ViewType.ALL, [], 100, None)


@pytest.mark.parametrize(
    "token",
    [
        "§",
        "not base64!",
        base64.b64encode(b"not json").decode(),
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b'{"offset": 2}').decode(),
        base64.b64encode(b'{"after": ["x", 1]}').decode(),
        base64.b64encode(b'{"after": [1]}').decode(),
        base64.b64encode(b'{"after": [99999999999999999999, "x"]}').decode(),
        base64.b64encode(b'{"after": [1, "\\u0000"]}').decode(),
    ],
)
def test_a_token_that_we_did_not_give_out(filled: Lab, token: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid page token"):
        filled.search_runs(["0"], "", ViewType.ACTIVE_ONLY, [], 2, token)


@pytest.mark.parametrize(("limit", "fine"), [(0, False), (1, True), (50_000, True), (50_001, False)])
def test_a_page_has_a_size(filled: Lab, limit: int, fine: bool) -> None:
    searches = (
        lambda: filled.search_runs(["0"], "", ViewType.ALL, [], limit, None),
        lambda: filled.search_experiments(ViewType.ALL, "", [], limit, None),
    )
    for search in searches:
        if fine:
            search()
        else:
            with pytest.raises(InvalidParameter, match="Invalid value for request parameter max_results"):
                search()


# ── experiments ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def experiments(shared_lab: Lab) -> dict[str, str]:
    """Experiments `alpha` and `Beta` beside `Default`; `gone` is deleted. Ids by name."""
    ids = {name: str(shared_lab.create_experiment(name, None, [])) for name in ("alpha", "Beta", "gone")}
    shared_lab.set_experiment_tag(ids["alpha"], Tag("team", "x"))
    shared_lab.set_experiment_tag(ids["Beta"], Tag("team", "y"))
    shared_lab.delete_experiment(ids["gone"])
    return ids


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["Beta", "Default", "alpha"]),
        ("name = 'alpha'", ["alpha"]),
        ("name != 'alpha'", ["Beta", "Default"]),
        ("name LIKE '%a'", ["Beta", "alpha"]),
        ("attribute.name ILIKE 'b%'", ["Beta"]),
        ("tags.team = 'x'", ["alpha"]),
        ("tags.team != 'x'", ["Beta"]),
        ("tags.team IS NULL", ["Default"]),
        ("tags.team IS NOT NULL AND name = 'Beta'", ["Beta"]),
        ("experiment_id = '0'", ["Default"]),
        ("experiment_id != '0'", ["Beta", "alpha"]),
        ("experiment_id IN ('0', '77')", ["Default"]),
        ("experiment_id = '99999999999999999999'", []),
        ("creation_time > 0", ["Beta", "Default", "alpha"]),
        ("last_update_time < 5", []),
    ],
)
def test_experiments_that_a_filter_finds(
    shared_lab: Lab, experiments: dict[str, str], text: str, found: list[str]
) -> None:
    page = shared_lab.search_experiments(ViewType.ACTIVE_ONLY, text, [], 100, None)
    assert sorted(experiment.name for experiment in page.items) == found


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        (["name"], ["Beta", "Default", "alpha"]),
        (["name DESC"], ["alpha", "Default", "Beta"]),
        (["experiment_id"], ["Default", "alpha", "Beta"]),
        (["last_update_time", "experiment_id"], ["Default", "alpha", "Beta"]),
    ],
)
def test_experiments_in_order_and_in_pages(
    shared_lab: Lab, experiments: dict[str, str], order_by: list[str], found: list[str]
) -> None:
    paged: list[str] = []
    token = None
    while True:
        page = shared_lab.search_experiments(ViewType.ACTIVE_ONLY, "", order_by, 1, token)
        paged += [experiment.name for experiment in page.items]
        token = page.token
        if token is None:
            break
    assert paged == found


def test_deleted_experiments_are_found_when_asked_for(shared_lab: Lab, experiments: dict[str, str]) -> None:
    found = shared_lab.search_experiments(ViewType.DELETED_ONLY, "", [], 10, None).items
    assert [str(experiment.id) for experiment in found] == [experiments["gone"]]


def test_an_experiment_id_in_a_filter_is_a_number(shared_lab: Lab) -> None:
    with pytest.raises(InvalidParameter, match="Invalid experiment ID 'x'"):
        shared_lab.search_experiments(ViewType.ALL, "experiment_id = 'x'", [], 10, None)
