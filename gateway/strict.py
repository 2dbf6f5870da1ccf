"""Strict data models for what people write by hand, and pydantic's complaints in our words, each with its fix."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

_KINDS = {dict: "a mapping", list: "a list", bool: "true or false", str: "text", type(None): "nothing"}
Path = tuple[str | int, ...]


class Strict(BaseModel):
    """Base of what a file may hold: unknown keys, a number in quotes or an infinity are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def refusal(message: str) -> PydanticCustomError:
    """The error a validator raises so that `message` (rule and fix) is shown as it stands."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'chat'?` where one of `known` is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def shown(value: object) -> str:
    """`value` as a person wrote it, short enough for one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return repr(text)
    return str(value) if isinstance(value, int | float) else kind_of(value)


def kind_of(value: object) -> str:
    """What sort of value this is, without showing it."""
    return _KINDS.get(type(value), "a number")


def dotted(path: Path) -> str:
    """`path` as `routes.fast.deployments[1].provider`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_one_line(part)}"
    return text.removeprefix(".")


def _one_line(key: str) -> str:
    """A key as one short line, whatever was written as one."""
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."


def complaints(
    error: ValidationError, model: type[BaseModel], data: object, show: Callable[[Path, object], str]
) -> list[tuple[Path, str]]:
    """What `error` says, as pairs of path and message.

    `data` is what was validated. `show` prints a value; it is the one place to hide a secret.
    """
    found: list[tuple[Path, str]] = []
    for detail in error.errors(include_url=False):
        place = _locate(model, data, detail["loc"])
        path, message = _explain(detail, place, show)
        found.append((path, message))
    return found


class _Place(NamedTuple):
    """Where an error stands: the data's own path, the model that holds the key, and the key's field.

    `types` are the type words of a tagged union that stands there.
    """

    path: Path
    holder: type[BaseModel] | None
    field: FieldInfo | None
    types: tuple[str, ...]


def _models(annotation: object) -> list[type[BaseModel]]:
    """The models an annotation may be (several in a tagged union)."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return [model for arm in get_args(annotation) for model in _models(arm)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _item(annotation: object) -> object:
    """The annotation of an item of a list or mapping, also where it may be None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return next((_item(arm) for arm in get_args(annotation) if arm is not type(None)), None)
    arguments = get_args(annotation)
    return arguments[-1] if arguments else None


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(map(str, get_args(model.model_fields["type"].annotation)))


def _locate(model: type[BaseModel], data: object, loc: Path) -> _Place:
    """Follow pydantic's `loc` through models and data, leaving out the parts that are pydantic's own."""
    annotation: object = model
    path: Path = ()
    holder, field = None, None
    for part in loc:
        if part == "[key]":
            break
        models = _models(annotation)
        if len(models) > 1 and isinstance(data, Mapping) and data.get("type") == part:
            annotation = next(one for one in models if part in _tags(one))
            continue
        path = (*path, part)
        holder, field = (models[0], models[0].model_fields.get(str(part))) if models else (None, None)
        annotation = (field.annotation if field else None) if models else _item(annotation)
        data = _inside(data, part)
    arms = _models(annotation)
    return _Place(path, holder, field, tuple(tag for arm in arms for tag in _tags(arm)) if len(arms) > 1 else ())


def _inside(data: object, part: str | int) -> object:
    if isinstance(data, Mapping):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


_RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
}


_SHAPES = ("list_type", "dict_type", "model_type", "model_attributes_type")


def _explain(detail: ErrorDetails, place: _Place, show: Callable[[Path, object], str]) -> tuple[Path, str]:
    """Path and message of one of pydantic's errors."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    path = place.path
    example = f" For example: {place.field.examples[0]}" if place.field and place.field.examples else ""
    if kind == "extra_forbidden":
        known = list(place.holder.model_fields) if place.holder else []
        fix = nearest(str(path[-1]), known) or f" Known here: {', '.join(known)}."
        return path, f"unknown key.{fix}"
    if kind == "missing":
        return path, f"is missing.{example}"
    if kind == "union_tag_not_found":
        return (*path, "type"), f"is missing. It is one of {', '.join(place.types)}."
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        fix = nearest(tag, place.types) or f" Known: {', '.join(place.types)}."
        return (*path, "type"), f"{shown(tag)} is not a type of provider.{fix}"
    if kind in ("too_short", "string_too_short"):
        return path, f"must not be empty.{example}"
    if kind in _RULES:
        # What stands where a mapping or list belongs may be a secret: name its kind only.
        what = kind_of(value) if kind in _SHAPES else show(path, value)
        hint = ""
        if kind == "string_type" and isinstance(value, int | float):
            hint = " Put it in quotes."
        elif kind == "literal_error" and isinstance(value, str):
            hint = nearest(value, _choices(place.field))
        return path, f"{_RULES[kind].format(**context)}, not {what}.{hint or example}"
    return path, detail["msg"]


def _choices(field: FieldInfo | None) -> list[str]:
    annotation = field.annotation if field else None
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []
