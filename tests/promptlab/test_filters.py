"""The search grammar: every form that MLflow's parser reads, and its sentence for what it does not."""

from __future__ import annotations

import pytest

from promptlab.errors import InvalidParameter
from promptlab.filters import (
    MAX_CLAUSES,
    MAX_LIST,
    Clause,
    Entity,
    Order,
    parse_filter,
    parse_order_by,
)
from promptlab.filters_tracking import EXPERIMENTS, RUNS

METRIC, PARAM, TAG, ATTRIBUTE, DATASET, *_, EITHER = Entity


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("metrics.m > 0.5", Clause(METRIC, "m", ">", 0.5)),
        ("metric.m>=-1", Clause(METRIC, "m", ">=", -1.0)),
        ("metrics.m < 1e-3", Clause(METRIC, "m", "<", 0.001)),
        ("metrics.m <= .5", Clause(METRIC, "m", "<=", 0.5)),
        ("metrics.`a b/c` != 1", Clause(METRIC, "a b/c", "!=", 1.0)),
        ('metrics."a.b" = 1', Clause(METRIC, "a.b", "=", 1.0)),
        ("metrics.a.b = 1", Clause(METRIC, "a.b", "=", 1.0)),
        ("params.p = '1'", Clause(PARAM, "p", "=", "1")),
        ('param.p = "1"', Clause(PARAM, "p", "=", "1")),
        ("parameter.p != 'it''s'", Clause(PARAM, "p", "!=", "it's")),
        ("parameters.p LIKE '%x_'", Clause(PARAM, "p", "LIKE", "%x_")),
        ("params.p ilike 'A'", Clause(PARAM, "p", "ILIKE", "A")),
        ("params.p IS NULL", Clause(PARAM, "p", "IS NULL", None)),
        ("tags.t is not null", Clause(TAG, "t", "IS NOT NULL", None)),
        ("tag.t = 'a and b'", Clause(TAG, "t", "=", "a and b")),
        ("tags.mlflow.runName = 'x'", Clause(TAG, "mlflow.runName", "=", "x")),
        ("tags.`mlflow.source.name` = ''", Clause(TAG, "mlflow.source.name", "=", "")),
        ("`tags`.t = 'x'", Clause(TAG, "t", "=", "x")),
        ("status = 'RUNNING'", Clause(ATTRIBUTE, "status", "=", "RUNNING")),
        ("attributes.run_id = 'r'", Clause(ATTRIBUTE, "run_id", "=", "r")),
        ("attr.user_id LIKE 'r%'", Clause(ATTRIBUTE, "user_id", "LIKE", "r%")),
        ("run.artifact_uri ILIKE 's3%'", Clause(ATTRIBUTE, "artifact_uri", "ILIKE", "s3%")),
        ("run_id IN ('a', \"b\")", Clause(ATTRIBUTE, "run_id", "IN", ("a", "b"))),
        ("run_id not in ('a',)", Clause(ATTRIBUTE, "run_id", "NOT IN", ("a",))),
        ("start_time >= 1700000000000", Clause(ATTRIBUTE, "start_time", ">=", 1700000000000)),
        ("end_time < 1.5", Clause(ATTRIBUTE, "end_time", "<", 1.5)),
        ("created > 5", Clause(ATTRIBUTE, "start_time", ">", 5)),
        ("attributes.`Run name` = 'n'", Clause(ATTRIBUTE, "run_name", "=", "n")),
        ("start_time < 99999999999999999999", Clause(ATTRIBUTE, "start_time", "<", 1e20)),
        ("dataset.name = 'd'", Clause(DATASET, "name", "=", "d")),
        ("datasets.context IN ('train')", Clause(DATASET, "context", "IN", ("train",))),
    ],
)
def test_a_clause_about_runs(text: str, clause: Clause) -> None:
    assert parse_filter(text, RUNS) == [clause]


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("name = 'e'", Clause(ATTRIBUTE, "name", "=", "e")),
        ("attribute.name ILIKE '%E%'", Clause(ATTRIBUTE, "name", "ILIKE", "%E%")),
        ("experiment_id IN ('1', '2')", Clause(ATTRIBUTE, "experiment_id", "IN", ("1", "2"))),
        ("creation_time > 1", Clause(ATTRIBUTE, "creation_time", ">", 1)),
        ("last_update_time <= 1", Clause(ATTRIBUTE, "last_update_time", "<=", 1)),
        ("tags.`a b` IS NOT NULL", Clause(TAG, "a b", "IS NOT NULL", None)),
    ],
)
def test_a_clause_about_experiments(text: str, clause: Clause) -> None:
    assert parse_filter(text, EXPERIMENTS) == [clause]


@pytest.mark.parametrize("text", ["", "   "])
def test_no_filter_is_no_clause(text: str) -> None:
    assert parse_filter(text, RUNS) == []


def test_clauses_are_joined_by_and_in_any_case_and_across_lines() -> None:
    clauses = parse_filter("metrics.m > 1 and\n params.p = '1' AND status='FINISHED';", RUNS)
    assert [clause.key for clause in clauses] == ["m", "p", "status"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "foo.bar = 1",
            "Invalid entity type 'foo'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
        ),
        ("metrics.m = 'x'", "Expected numeric value type for metric. Found 'x'"),
        ("start_time = 'x'", "Expected numeric value type for numeric attribute: start_time. Found 'x'"),
        ("params.p = 1", "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 1"),
        ("tags.t = 1", "Expected a quoted string value for tag (e.g. 'my-value'). Got value 1"),
        ("tags.t = x", "Parameter value is either not quoted or unidentified quote types used for string value x."),
        ("status = 1", "Expected a quoted string value for attributes. Got value 1"),
        ("dataset.name = 1", "Expected a quoted string value for dataset attributes. Got value 1"),
        ("dataset.size = 'x'", "Invalid dataset key 'size' specified."),
        ("nothing = 'x'", "Invalid attribute key 'nothing' specified."),
        ("metrics.m LIKE 1", "Invalid comparator 'LIKE' not one of"),
        ("params.p > '1'", "Invalid comparator '>' not one of"),
        ("params.p RLIKE '1'", "Invalid comparator 'RLIKE' not one of"),
        ("tags.t NOT LIKE 'x'", "Invalid comparator 'NOT LIKE' not one of"),
        ("status == 'x'", "Invalid comparator '==' not one of"),
        ("metrics.m IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params, not for 'metric' 'm'"),
        ("status IN ('x')", "Only ['run_id'] attributes support comparison with a list of quoted string values."),
        ("run_id IN 'x'", "Comparator 'IN' does not go with the value given"),
        ("run_id = ('x')", "Comparator '=' does not go with the value given"),
        ("run_id IN ()", "expected a non-empty list of string values, but got ill-formed list"),
        ("run_id IN ('a' 'b')", "expected a non-empty list of string values, but got ill-formed list"),
        ("run_id IN (1)", "expected a non-empty list of string values, but got ill-formed list"),
        ("run_id IN ('a'", "expected a non-empty list of string values, but got ill-formed list"),
        ("tags.t IN ('a')", "Expected a quoted string value for tag"),
        ("metrics.m = 1 OR metrics.n = 2", "Invalid clause(s) in filter string: 'OR'"),
        ("metrics.m", "Invalid clause(s) in filter string: 'metrics.m'"),
        ("(metrics.m = 1)", "Invalid clause(s) in filter string: '('"),
        ("metrics.m = 1 AND", "Invalid clause(s) in filter string: 'the end'"),
        ("metrics.m = 1 params.p = '1'", "Invalid clause(s) in filter string: 'params.p'"),
        ("metrics.m =", "Expected 3 tokens found 2"),
        ("tags.t IS 'x'", "Expected comparison found 'IS'"),
        ("metrics.m = 1; metrics.n = 2", "Search filter contained multiple expression"),
        ("tags.a-b = 'x'", "Invalid clause(s) in filter string: 'tags.a'"),
        ("tags.t = 'x", "Expected a quoted string value for tag (e.g. 'my-value'). Got value '"),
        ("\x01\x02", "Invalid clause(s) in filter string"),
        (" AND ".join(["a = 'x'"] * 2), "Invalid attribute key 'a' specified."),
        (" AND ".join(["tags.a = 'x'"] * (MAX_CLAUSES + 1)), f"more than {MAX_CLAUSES} clauses"),
        (f"run_id IN ({','.join(['0'.join(chr(39) * 2)] * (MAX_LIST + 1))})", f"more than {MAX_LIST} values"),
        (f"tags.t LIKE '{'%' * 10_001}'", "is longer than 10000 characters"),
    ],
)
def test_what_is_no_filter_of_runs(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_filter(text, RUNS)
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metrics.m = 1", "Invalid entity type 'metrics'. Valid entity types are ('attribute', 'tag', 'tags')"),
        ("run_id = 'x'", "Invalid attribute key 'run_id' specified."),
        ("experiment_id LIKE '1'", "Invalid comparator 'LIKE' not one of"),
        ("name IN ('a')", "Only ['experiment_id'] attributes support comparison"),
        ("name IS NULL", "IS NULL / IS NOT NULL is only supported for tags, not for"),
        ("creation_time = 'x'", "Expected numeric value type"),
    ],
)
def test_what_is_no_filter_of_experiments(text: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_filter(text, EXPERIMENTS)
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("metrics.m DESC", Order(METRIC, "m", ascending=False)),
        ("metrics.`a b` asc", Order(METRIC, "a b")),
        ("params.p", Order(PARAM, "p")),
        ("tags.`mlflow.runName` desc", Order(TAG, "mlflow.runName", ascending=False)),
        ("start_time DESC", Order(ATTRIBUTE, "start_time", ascending=False)),
        ("attribute.Created ASC", Order(ATTRIBUTE, "start_time")),
    ],
)
def test_an_order_of_runs(text: str, order: Order) -> None:
    assert parse_order_by([text], RUNS) == [order]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (["start_time SIDEWAYS"], "Invalid ordering key in order_by clause 'start_time SIDEWAYS'."),
        (["start_time DESC NULLS"], "Invalid order_by clause 'start_time DESC NULLS'. Could not be parsed."),
        ([""], "Invalid order_by clause ''. Could not be parsed."),
        (["'x'"], "Invalid order_by clause ''x''. Could not be parsed."),
        (["dataset.name"], "Invalid order_by entity: dataset"),
        (["nothing"], "Invalid attribute key 'nothing' specified."),
        (["metrics.m", "metric.m DESC"], "`order_by` contains duplicate fields: ['metrics.m', 'metric.m DESC']"),
        ([f"metrics.m{i}" for i in range(21)], "more than 20 fields"),
    ],
)
def test_what_is_no_order_of_runs(items: list[str], says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_order_by(items, RUNS)
    assert says in refused.value.message


def test_experiments_are_not_ordered_by_tags() -> None:
    with pytest.raises(InvalidParameter, match="Invalid order_by entity: tag"):
        parse_order_by(["tags.t"], EXPERIMENTS)


# ── ours: WHERE … ────────────────────────────────────────────────────────────────────────────────


def either(*options: tuple[Clause, ...]) -> Clause:
    return Clause(EITHER, "", "OR", None, options)


A, B, C = (Clause(METRIC, name, "=", 1.0) for name in "abc")


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("WHERE metrics.a = 1", [A]),
        ("where metrics.a = 1 and metrics.b = 1", [A, B]),
        ("WHERE (metrics.a = 1)", [A]),
        ("WHERE ((metrics.a = 1 AND (metrics.b = 1)))", [A, B]),
        ("WHERE metrics.a = 1 OR metrics.b = 1", [either((A,), (B,))]),
        ("WHERE metrics.a = 1 or metrics.b = 1 AND metrics.c = 1", [either((A,), (B, C))]),
        ("WHERE (metrics.a = 1 OR metrics.b = 1) AND metrics.c = 1", [either((A,), (B,)), C]),
        ("WHERE metrics.c = 1 AND (metrics.a = 1 OR (metrics.b = 1))", [C, either((A,), (B,))]),
        ("WHERE tags.t RLIKE '^a(b|c)'", [Clause(TAG, "t", "RLIKE", "^a(b|c)")]),
        ("WHERE run_name rlike 'x' OR run_id IN ('a')",
         [either((Clause(ATTRIBUTE, "run_name", "RLIKE", "x"),), (Clause(ATTRIBUTE, "run_id", "IN", ("a",)),))]),
    ],
)  # fmt: skip
def test_what_begins_with_where_may_say_more(text: str, clauses: list[Clause]) -> None:
    assert parse_filter(text, RUNS) == clauses


@pytest.mark.parametrize(
    "text",
    [
        *("metrics.a = 1 OR metrics.b = 1", "(metrics.a = 1)", "tags.t RLIKE 'x'", "WHERE", "WHERE (metrics.a = 1"),
        *("WHERE metrics.a = 1)", "WHERE ()", "WHERE OR metrics.a = 1", "WHERE metrics.a = 1 OR", "where where a = 1"),
        *("WHERE metrics.a RLIKE 1", "WHERE start_time RLIKE '1'", "WHERE NOT metrics.a = 1", "WHERE metrics.a = 1;"),
        "WHERE " + "(" * 30 + "metrics.a = 1" + ")" * 30,
        "WHERE " + " OR ".join(["metrics.a = 1"] * (MAX_CLAUSES + 1)),
        "WHERE tags.t RLIKE '" + "x" * 10_001 + "'",
    ],
)
def test_what_where_does_not_understand(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_filter(text, RUNS)
