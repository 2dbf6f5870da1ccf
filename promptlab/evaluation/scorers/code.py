"""A Python function as a scorer: `python: checks.py:polite`, or one that is handed over."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlab.evaluation.scorers.scorer import Kind, Mark, Misused, Scorer, Seen, Unscorable

Function = Callable[..., Any]


@dataclass(frozen=True)
class Python(Scorer):
    """What a function says of an answer: `function(output, case)` gives true or false, a share, or `(share, why)`.

    `output` is the answer's text, `case` a dict of the case's values. A function that takes three arguments is
    given the whole answer too: its tokens, cost, tool calls.
    """

    type = "python"
    kind = Kind.SHARE
    value = None
    threshold = 0.5
    function: Function

    def mark(self, seen: Seen) -> Mark:
        """As `Scorer.mark`."""
        arguments = (seen.answer.text, dict(seen.case.values), seen.answer)
        wanted = getattr(getattr(self.function, "__code__", None), "co_argcount", 2)
        try:
            said = self.function(*arguments[: min(max(wanted, 1), 3)])
        except Exception as error:
            raise Unscorable(f"{type(error).__name__}: {error}"[:500]) from error
        value, why = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
        value = value.item() if hasattr(value, "item") else value  # numpy's
        if isinstance(value, bool | int | float) and 0 <= value <= 1:
            return Mark(float(value), str(why))
        raise Unscorable(f"The function gave {value!r:.80}: it must give true or false, or a number from 0 to 1.")


def load(name: str, folder: Path) -> Function:
    """The function `file.py:name` (the file relative to `folder`) or `module:name`. Raises `ValueError`."""
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise Misused(f"'{name[:100]}' must be file.py:function or module:function.")
    try:
        module = _from_file(folder / where) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise Misused(f"'{where}' cannot be imported: {type(error).__name__}: {error}"[:500]) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise Misused(f"'{where}' has no function '{attribute}'.")
    loaded: Function = function
    return loaded


def _from_file(path: Path) -> Any:
    name = f"_scorers_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module
