"""Assessments of traces over HTTP."""

from __future__ import annotations

import re
from typing import Any

from promptlab.api.wire import Arguments, Endpoints, Field, required, string
from promptlab.api.wire_traces import assessment, decode_assessment, shown_assessment
from promptlab.errors import InvalidParameter
from promptlab.lab import Lab

_TRACE = {"trace_id": required(string)}
_ONE = {**_TRACE, "assessment_id": required(string)}
#: What a mask may name, and which of an assessment's fields that changes.
_MASKED = {
    "assessment_name": (("assessment_name", "name"),),
    "feedback": (("kind", "kind"), ("value", "value"), ("error", "error")),
    "expectation": (("kind", "kind"), ("value", "value")),
    "rationale": (("rationale", "rationale"),),
    "metadata": (("metadata", "metadata"),),
    "valid": (("valid", "valid"),),
}

served = Endpoints()


def mask(value: Any, path: str) -> list[str]:
    """The fields that a `FieldMask` names, in either spelling."""
    names = [re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", one) for one in string(value, path).split(",")]
    for name in names:
        if name.strip() not in _MASKED:
            raise InvalidParameter(f"'{path}' names '{name}', which is none of {sorted(_MASKED)}")
    return [name.strip() for name in names]


@served.post("traces/{trace_id}/assessments", {**_TRACE, "assessment": required(decode_assessment)}, version="3.0")
def create(lab: Lab, call: Arguments) -> Any:
    """Keep a new assessment."""
    said = assessment(call["assessment"], call["trace_id"])
    return {"assessment": shown_assessment(lab.assessments.create(said))}


@served.get("traces/{trace_id}/assessments/{assessment_id}", _ONE, version="3.0")
def get(lab: Lab, call: Arguments) -> Any:
    """The assessment."""
    return {"assessment": shown_assessment(lab.assessments.get(call["trace_id"], call["assessment_id"]))}


@served.patch(
    "traces/{trace_id}/assessments/{assessment_id}",
    {**_ONE, "assessment": Field(decode_assessment, required=True), "update_mask": required(mask)},
    version="3.0",
)
def update(lab: Lab, call: Arguments) -> Any:
    """The assessment with the fields changed that a mask names."""
    said = call["assessment"]
    changes: dict[str, Any] = {}
    for name in call["update_mask"]:
        if name in ("feedback", "expectation") and said.get("kind") != name:
            raise InvalidParameter(f"'update_mask' names '{name}', which 'assessment' does not say")
        changes |= {into: said[field] for field, into in _MASKED[name] if said[field] is not None or into == "value"}
    return {"assessment": shown_assessment(lab.assessments.update(call["trace_id"], call["assessment_id"], changes))}


@served.delete("traces/{trace_id}/assessments/{assessment_id}", _ONE, version="3.0")
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove an assessment, if there is one."""
    lab.assessments.delete(call["trace_id"], call["assessment_id"])
    return {}
