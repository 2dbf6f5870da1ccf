"""The least a JSON Schema takes: what a fake answers with, or calls a tool with, where a form is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Levels below which a schema that refers to itself is given up.
_DEPTH = 32
_MOST_ITEMS = 16
_PLAIN = {"string": "text", "boolean": False, "null": None}


def least(schema: Any) -> Any:
    """A value that `schema` takes, the same each time: what it fixes, else the smallest. Patterns are not obeyed."""
    return _value(schema, schema, _DEPTH)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or not depth:
        return None
    if "const" in schema:
        return schema["const"]
    if isinstance(enum := schema.get("enum"), list) and enum:
        return enum[0]
    if "$ref" in schema:
        return _value(_referred(schema["$ref"], root), root, depth - 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(name), list) and options:
            return _value(options[0], root, depth - 1)
    return _typed(schema, root, depth)


def _typed(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kinds = schema.get("type")
    match kinds[0] if isinstance(kinds, list) and kinds else kinds:
        case "array":
            least_items = schema.get("minItems")
            items = min(least_items, _MOST_ITEMS) if isinstance(least_items, int) else 0
            return [_value(schema.get("items"), root, depth - 1) for _ in range(items)]
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "string" | "boolean" | "null" as plain:
            return _PLAIN[plain]
        case _:
            return _object(schema, root, depth)


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    required, properties = schema.get("required"), schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    names = required if isinstance(required, list) else []
    return {name: _value(known.get(name), root, depth - 1) for name in names if isinstance(name, str)}


def _referred(path: Any, root: Any) -> Any:
    """What a reference within the schema means: `#/$defs/city`."""
    found = root
    for part in str(path).removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
