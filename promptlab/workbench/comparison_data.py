"""What chosen runs read and made, as rows of a table: datasets with what they were read for, and logged models."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_CONTEXT = "mlflow.data.context"
_NOTHING = '<span class="muted">–</span>'


def read_and_made(runs: Sequence[dict[str, Any]]) -> str:
    """A row for each dataset that one of the runs read, and for the models they read and made; empty for none."""
    datasets = [_datasets(run) for run in runs]
    known = list(dict.fromkeys(key for read in datasets for key in read))
    rows = "".join(
        _row(
            f'{escape(name)} <small title="Its digest">{escape(digest)}</small>',
            [_read(read.get((name, digest))) for read in datasets],
        )
        for name, digest in known
    )
    for title, place, kind in (("Models read", "inputs", "model_inputs"), ("Models made", "outputs", "model_outputs")):
        ids = [[str(one["model_id"]) for one in run.get(place, {}).get(kind, ())] for run in runs]
        if any(ids):
            rows += _row(title, [_models(one) for one in ids])
    return rows


def _datasets(run: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What each dataset of a run was read for, by its name and digest."""
    return {
        (str(one["dataset"]["name"]), str(one["dataset"]["digest"])): next(
            (str(tag["value"]) for tag in one.get("tags", ()) if tag["key"] == _CONTEXT), "read"
        )
        for one in run.get("inputs", {}).get("dataset_inputs", ())
    }


def _read(context: str | None) -> str:
    return _NOTHING if context is None else escape(context)


def _models(ids: Sequence[str]) -> str:
    return "".join(f"<div><code>models:/{escape(one)}</code></div>" for one in ids) or _NOTHING


def _row(head: str, cells: Sequence[str]) -> str:
    differs = "differs" if len(set(cells)) > 1 else ""
    shown = "".join(f'<td><div class="long">{cell}</div></td>' for cell in cells)
    return f'<tr class="{differs}"><th scope="row">{head}</th>{shown}</tr>'
