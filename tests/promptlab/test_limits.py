"""Each limit at its edge, where it holds still, and one past it, where it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from promptlab import limits
from promptlab.entities import Metric, Param, Tag
from promptlab.errors import InvalidParameter


def metrics(count: int) -> list[Metric]:
    return [Metric(f"m{i}", 1.0, 1) for i in range(count)]


def params(count: int) -> list[Param]:
    return [Param(f"p{i}", "1") for i in range(count)]


def tags(count: int) -> list[Tag]:
    return [Tag(f"t{i}", "1") for i in range(count)]


@pytest.mark.parametrize(
    ("check", "edge", "says"),
    [
        (lambda n: limits.check_param(Param("p", "x" * n)), 6000, "'Param value' exceeds the maximum length of 6000"),
        (lambda n: limits.check_param(Param("p" * n, "")), 250, "'Param key' exceeds the maximum length of 250"),
        (lambda n: limits.check_tag(Tag("t", "x" * n)), 8000, "'value' exceeds the maximum length of 8000"),
        (lambda n: limits.check_tag(Tag("t" * n, "")), 250, "'key' exceeds the maximum length of 250"),
        (
            lambda n: limits.check_tag(Tag("t", "x" * n), limit=limits.MAX_EXPERIMENT_TAG_VALUE),
            20_000,
            "'value' exceeds the maximum length of 20000",
        ),
        (
            lambda n: limits.check_metric(Metric("m" * n, 1.0, 1)),
            250,
            "'Metric name' exceeds the maximum length of 250",
        ),
        (lambda n: limits.check_experiment_name("e" * n), 500, "'name' exceeds the maximum length of 500"),
        (lambda n: limits.check_artifact_location("s3://" + "x" * (n - 5)), 2048, "'artifact_location' exceeds"),
        (lambda n: limits.check_run_id("r" * n), 256, "Invalid value"),
        (lambda n: limits.check_batch(metrics(n), [], []), 1000, "at most 1000 metrics. Got 1001 metrics."),
        (lambda n: limits.check_batch([], params(n), []), 100, "at most 100 params. Got 101 params."),
        (lambda n: limits.check_batch([], [], tags(n)), 100, "at most 100 tags. Got 101 tags."),
        (
            lambda n: limits.check_batch(metrics(n - 150), params(100), tags(50)),
            1000,
            "at most 1000 metrics, params, and tags. Got 1001 metrics, params, and tags.",
        ),
    ],
)
def test_at_the_edge_and_one_past_it(check: Callable[[int], None], edge: int, says: str) -> None:
    check(edge)
    with pytest.raises(InvalidParameter) as refused:
        check(edge + 1)
    assert says in refused.value.message


@pytest.mark.parametrize("key", ["a", "a/b", "a.b", "a-b", "a b", "a:b", "a_b", "é", "0", "a..b", "...a"])
def test_keys_that_are_allowed(key: str) -> None:
    if key == "...a":
        with pytest.raises(InvalidParameter):
            limits.check_key(key, "key")
    else:
        limits.check_key(key, "key")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("a?b", "Names may only contain alphanumerics"),
        ("a\n", "Names may only contain alphanumerics"),
        ("../a", "This name would resolve to '../a'"),
        ("a/../b", "This name would resolve to 'b'"),
        ("/a", "This name would resolve to '/a'"),
        ("a//b", "This name would resolve to 'a/b'"),
        ("a/", "This name would resolve to 'a'"),
        ("", "This name would resolve to '.'"),
        (".", "This name would resolve to '.'"),
    ],
)
def test_keys_that_are_not(key: str, says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        limits.check_key(key, "metrics[0].name")
    assert refused.value.message.startswith("Invalid value")
    assert "for parameter 'metrics[0].name' supplied" in refused.value.message
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("location", "fine"),
    [
        ("s3://bucket/path", True),
        ("mlflow-artifacts:/5", True),
        ("file:///x", True),
        ("/absolute", True),
        ("relative", False),
        ("s3://b/x#y", False),
        ("s3://b/x;y", False),
        ("mlflow-artifacts:/../x", False),
        ("", False),
    ],
)
def test_where_artifacts_may_be_kept(location: str, fine: bool) -> None:
    if fine:
        limits.check_artifact_location(location)
    else:
        with pytest.raises(InvalidParameter, match="artifact_location"):
            limits.check_artifact_location(location)


def test_what_else_a_batch_may_not_hold() -> None:
    with pytest.raises(InvalidParameter, match="Duplicate parameter keys have been submitted: \\['p'\\]"):
        limits.check_batch([], [Param("p", "1"), Param("p", "1")], [])
    with pytest.raises(InvalidParameter, match="Timestamp must be a nonnegative long"):
        limits.check_batch([Metric("m", 1.0, -1)], [], [])
    with pytest.raises(InvalidParameter, match=r"parameter 'params\[1\]\.key'"):
        limits.check_batch([], [Param("p", "1"), Param("?", "1")], [])
