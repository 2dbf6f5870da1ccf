"""What a name, key or value may be: MLflow's limits and its texts, checked before anything is stored.

Over-long values are refused, never shortened: a shortened param is a different param.
Source: https://github.com/mlflow/mlflow/blob/master/mlflow/utils/validation.py
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence

from promptlab.entities import Metric, Param, Tag
from promptlab.errors import InvalidParameter

MAX_BATCH_METRICS = 1000
MAX_BATCH_PARAMS = 100
MAX_BATCH_TAGS = 100
MAX_BATCH = 1000
MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_EXPERIMENT_NAME = 500
MAX_ARTIFACT_LOCATION = 2048

_KEY = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_LOCATION = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|/")


def invalid_value(path: str, value: object, why: str = "") -> str:
    """MLflow's sentence for a value that is not allowed at `path`."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return f"Invalid value {shown} for parameter '{path}' supplied{': ' + why if why else '.'}"


def check_key(key: str, path: str) -> None:
    """Raise unless `key` can name a metric, param or tag."""
    if not _KEY.fullmatch(key):
        raise InvalidParameter(
            invalid_value(
                path,
                key,
                "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), "
                "colon(:) and slashes (/).",
            )
        )
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        raise InvalidParameter(
            invalid_value(
                path,
                key,
                "Names may be treated as files in certain cases, and must not resolve to other names when "
                f"treated as such. This name would resolve to '{normal}'",
            )
        )


def check_length(what: str, limit: int, value: str) -> None:
    """Raise for a value of more than `limit` characters."""
    if len(value) > limit:
        raise InvalidParameter(f"'{what}' exceeds the maximum length of {limit} characters")


def check_metric(metric: Metric, path: str = "") -> None:
    """Raise unless `metric` may be logged; `path` is where it stood in a batch, such as `metrics[3]`."""
    check_key(metric.key, _join(path, "name"))
    if metric.timestamp < 0:
        raise InvalidParameter(
            invalid_value(
                _join(path, "timestamp"),
                metric.timestamp,
                f"metric '{metric.key}' (value={metric.value}). Timestamp must be a nonnegative long (64-bit integer) ",
            )
        )
    check_length("Metric name", MAX_KEY, metric.key)


def check_param(param: Param, path: str = "") -> None:
    """Raise unless `param` may be logged."""
    check_key(param.key, _join(path, "key"))
    check_length("Param key", MAX_KEY, param.key)
    check_length("Param value", MAX_PARAM_VALUE, param.value)


def check_tag(tag: Tag, path: str = "", limit: int = MAX_TAG_VALUE) -> None:
    """Raise unless `tag` may be set; `limit` is the longest value."""
    check_key(tag.key, _join(path, "key"))
    check_length(_join(path, "key"), MAX_KEY, tag.key)
    check_length(_join(path, "value"), limit, tag.value)


def check_batch(metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[Tag]) -> None:
    """Raise unless the three may be logged together."""
    for index, metric in enumerate(metrics):
        check_metric(metric, f"metrics[{index}]")
    for index, param in enumerate(params):
        check_param(param, f"params[{index}]")
    for index, tag in enumerate(tags):
        check_tag(tag, f"tags[{index}]")
    _check_count("metrics", MAX_BATCH_METRICS, len(metrics))
    _check_count("params", MAX_BATCH_PARAMS, len(params))
    _check_count("tags", MAX_BATCH_TAGS, len(tags))
    _check_count("metrics, params, and tags", MAX_BATCH, len(metrics) + len(params) + len(tags))
    keys = [param.key for param in params]
    twice = [key for index, key in enumerate(keys) if key in keys[:index]]
    if twice:
        raise InvalidParameter(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure "
            "the request contains only one param value per param key."
        )


def _check_count(what: str, limit: int, count: int) -> None:
    if count > limit:
        raise InvalidParameter(
            f"A batch logging request can contain at most {limit} {what}. "
            f"Got {count} {what}. Please split up {what} across multiple requests and try again."
        )


def check_experiment_name(name: str) -> None:
    """Raise unless `name` can name an experiment."""
    if not name:
        raise InvalidParameter(f"Invalid experiment name: '{name}'")
    check_length("name", MAX_EXPERIMENT_NAME, name)


def check_artifact_location(location: str) -> None:
    """Raise unless `location` is an address a client could write artifacts to."""
    check_length("artifact_location", MAX_ARTIFACT_LOCATION, location)
    if not _LOCATION.match(location) or "#" in location or ";" in location or ".." in location.split("/"):
        raise InvalidParameter(
            invalid_value(
                "artifact_location",
                location,
                "give a URI with a scheme or an absolute path, without fragments, params or '..'",
            )
        )


def check_run_id(run_id: str) -> None:
    """Raise unless `run_id` could be a run's."""
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidParameter(invalid_value("run_id", run_id))


def parse_experiment_id(experiment_id: str) -> int:
    """The number of an experiment, from its string on the wire."""
    # int() also reads "1_0", " 1" and digits of other scripts, which no client sends.
    if not re.fullmatch(r"[+-]?[0-9]+", experiment_id):
        raise InvalidParameter(f"Invalid experiment ID '{experiment_id}'. Experiment ID must be a valid integer.")
    return int(experiment_id[:40])


def experiment_number(experiment_id: str) -> int:
    """The same for a search, where one that cannot be is found nowhere."""
    # What is beyond 64 bits is no experiment's id; the largest that fits is none either.
    return max(-(2**63), min(2**63 - 1, parse_experiment_id(experiment_id)))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
