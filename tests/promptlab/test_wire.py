"""Decoding what the Python, R and Java clients send, and refusing what nobody should."""

from __future__ import annotations

import math
from typing import Any

import pytest

from promptlab.api.wire import Field, Fields, ListOf, decode, double, integer, message, number, one_of, required, string
from promptlab.entities import RunStatus, ViewType
from promptlab.errors import InvalidParameter

FIELDS: Fields = {
    "run_id": required(string, also="run_uuid"),
    "max_results": Field(integer, default=7),
    "value": Field(double),
    "status": Field(one_of(RunStatus)),
    "view_type": Field(one_of(ViewType), default=ViewType.ACTIVE_ONLY),
    "tags": Field(ListOf(message({"key": required(string), "value": Field(string, default="")})), default=()),
}


def decoded(**raw: Any) -> dict[str, Any]:
    return decode({"run_id": "r", **raw}, FIELDS)


@pytest.mark.parametrize(
    ("raw", "name", "value"),
    [
        ({}, "max_results", 7),
        ({"max_results": None}, "max_results", 7),
        ({"max_results": 5}, "max_results", 5),
        ({"max_results": "5"}, "max_results", 5),
        ({"max_results": 5.0}, "max_results", 5),
        ({"max_results": "1e+05"}, "max_results", 100_000),
        ({"max_results": "1.8e+12"}, "max_results", 1_800_000_000_000),
        ({"maxResults": 5}, "max_results", 5),
        ({"max_results": 2**63 - 1}, "max_results", 2**63 - 1),
        ({"max_results": "-9223372036854775808"}, "max_results", -(2**63)),
        ({"value": 1}, "value", 1.0),
        ({"value": "1.5"}, "value", 1.5),
        ({"value": "-Infinity"}, "value", -math.inf),
        ({"value": 1e308}, "value", 1e308),
        ({"status": "FINISHED"}, "status", RunStatus.FINISHED),
        ({"status": 4}, "status", RunStatus.FAILED),
        ({"status": "5"}, "status", RunStatus.KILLED),
        ({"viewType": "ALL"}, "view_type", ViewType.ALL),
        ({"tags": []}, "tags", []),
        ({"tags": [{"key": "k"}]}, "tags", [{"key": "k", "value": ""}]),
        ({"tags": [{"key": "k", "value": "v", "more": 1}]}, "tags", [{"key": "k", "value": "v"}]),
        ({"unknown": object()}, "run_id", "r"),
    ],
)
def test_what_is_understood(raw: dict[str, Any], name: str, value: object) -> None:
    found = decoded(**raw)[name]
    assert found == value
    assert type(found) is type(value)


def test_nan_travels_as_a_string_both_ways() -> None:
    assert math.isnan(decoded(value="NaN")["value"])
    assert [number(value) for value in (math.nan, math.inf, -math.inf, 0.5)] == ["NaN", "Infinity", "-Infinity", 0.5]


@pytest.mark.parametrize("raw", [{"run_id": "r"}, {"run_uuid": "r"}, {"runId": "r"}, {"run_id": "", "run_uuid": "r"}])
def test_a_run_has_two_names_for_its_id(raw: dict[str, Any]) -> None:
    assert decode(raw, FIELDS)["run_id"] == "r"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"run_id": None}, "Missing value for required parameter 'run_id'. See the API docs for more information"),
        ({"run_id": ""}, "Missing value for required parameter 'run_id'."),
        ({"run_id": 5}, "Invalid value 5 for parameter 'run_id' supplied:  Hint: Value was of type 'int'. See the API"),
        ({"run_id": "a\0b"}, "Invalid value \"a\\u0000b\" for parameter 'run_id' supplied"),
        (
            {"max_results": "x"},
            "Invalid value \"x\" for parameter 'max_results' supplied:  Hint: Value was of type 'str'.",
        ),
        ({"max_results": "1.5"}, "Invalid value \"1.5\" for parameter 'max_results'"),
        ({"max_results": "inf"}, "Invalid value \"inf\" for parameter 'max_results'"),
        ({"max_results": "1e400"}, "Invalid value \"1e400\" for parameter 'max_results'"),
        ({"max_results": "9" * 5000}, "for parameter 'max_results'"),
        ({"max_results": "1_0"}, "Invalid value \"1_0\" for parameter 'max_results'"),
        ({"max_results": 1.5}, "Invalid value 1.5 for parameter 'max_results'"),
        ({"max_results": True}, "Invalid value true for parameter 'max_results'"),
        ({"max_results": 2**63}, "Invalid value 9223372036854775808 for parameter 'max_results'"),
        ({"max_results": [1]}, "Value was of type 'list'"),
        (
            {"max_results": 1, "maxResults": 1},
            "Request specifies both 'max_results' and 'maxResults'; provide only one",
        ),
        ({"value": "x"}, "Invalid value \"x\" for parameter 'value'"),
        ({"value": True}, "Invalid value true for parameter 'value'"),
        ({"value": 10**400}, "for parameter 'value'"),
        ({"status": "DONE"}, "Invalid value \"DONE\" for parameter 'status'"),
        ({"status": 9}, "Invalid value 9 for parameter 'status'"),
        ({"tags": {}}, "Invalid value {} for parameter 'tags' supplied:  Hint: Value was of type 'dict'."),
        ({"tags": [1]}, "Invalid value 1 for parameter 'tags[0]'"),
        ({"tags": [{"key": "k"}, {"value": "v"}]}, "Missing value for required parameter 'tags[1].key'."),
        ({"tags": [{"key": "k", "value": 1}]}, "Invalid value 1 for parameter 'tags[0].value'"),
    ],
)
def test_what_is_refused(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        decoded(**raw)
    assert says in refused.value.message
