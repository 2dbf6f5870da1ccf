"""Cases: what the variables of prompts are filled with, from CSV, JSON, JSON Lines, Parquet, or as they are given."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.evaluation.problems import PlanInvalid

#: The longest field of a CSV file, in characters; Python's own bound is 131,072.
_LONGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One set of values by name. `id` is what its file calls it (`id`), else its number, from 1."""

    id: str
    values: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """The values as a prompt shows them: what is no text, as JSON."""
        return {name: text_of(value) for name, value in self.values.items()}


def text_of(value: Any) -> str:
    """A value as text: JSON where it is none."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def read(source: str | Path | Sequence[Mapping[str, Any]], folder: Path) -> list[Case]:
    """The cases of a file (its path is relative to `folder`), or those given. Raises `PlanInvalid`."""
    if isinstance(source, str | Path):
        rows: Iterable[Any] = _rows(folder / source)
    else:
        rows = source
    cases: list[Case] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not row:
            raise PlanInvalid.at(("cases",), f"case {number} is not a mapping of names to values.")
        name = text_of(row.get("id")) or str(number)
        if name in seen:
            raise PlanInvalid.at(("cases",), f"two cases have the id '{name[:80]}'. Give each another.")
        seen.add(name)
        cases.append(Case(name, {str(key): value for key, value in row.items()}))
    if not cases:
        raise PlanInvalid.at(("cases",), "there are none. Add at least one.")
    return cases


def digest(cases: Sequence[Case]) -> str:
    """What the cases are, in 16 letters: other values, another digest."""
    said = json.dumps([[case.id, case.values] for case in cases], sort_keys=True, default=str)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _rows(path: Path) -> Iterable[Any]:
    readers = {".csv": _csv, ".jsonl": _lines, ".ndjson": _lines, ".json": _json, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PlanInvalid.at(("cases",), f"'{path.name}' is none of {', '.join(readers)}.")
    try:
        return reader(path)
    except OSError as error:
        raise PlanInvalid.at(("cases",), f"'{path}' cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PlanInvalid.at(("cases",), f"'{path}' is not UTF-8. Save it as UTF-8.") from None


def _csv(path: Path) -> list[Any]:
    csv.field_size_limit(_LONGEST)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise PlanInvalid.at(
                        ("cases",),
                        f"{path.name}:{reader.line_num}: more or fewer fields than the {len(reader.fieldnames or ())} "
                        "of the first line. Put fields with commas in quotes.",
                    )
                rows.append(row)
        except csv.Error as error:
            raise PlanInvalid.at(("cases",), f"{path.name}:{reader.line_num}: is not CSV: {error}.") from None
    return rows


def _lines(path: Path) -> list[Any]:
    rows = []
    # Split at line feeds only: JSON may hold U+2028 raw.
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            rows.append(_parsed(line, f"{path.name}:{number}"))
    return rows


def _json(path: Path) -> list[Any]:
    rows = _parsed(path.read_text("utf-8-sig"), path.name)
    if not isinstance(rows, list):
        raise PlanInvalid.at(("cases",), f"{path.name}: is not a list of mappings.")
    return rows


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "too deep"
        raise PlanInvalid.at(("cases",), f"{where}: is not JSON: {why}.") from None


def _parquet(path: Path) -> list[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PlanInvalid.at(("cases",), "Parquet needs the package pyarrow: pip install pyarrow.") from None
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid:
        raise PlanInvalid.at(("cases",), f"'{path.name}' is not Parquet.") from None
    return rows
