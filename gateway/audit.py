"""The audit: who did what to keys, teams and the configuration. Whoever changes a line breaks every seal after it."""

from __future__ import annotations

from typing import NamedTuple

from gateway.store.audit import START, AuditStore


class Verdict(NamedTuple):
    """How many lines there are, the last one's seal, and the first line (its id) that is not what was written, if any.

    Lines cut off at the end leave no trace in what is left: whoever keeps the last seal elsewhere can tell.
    """

    lines: int
    last: str
    broken: int | None


def verify(store: AuditStore) -> Verdict:
    """Seal every line anew."""
    seal, count = START, 0
    for line in store.lines():
        if line.sealed(seal) != line.seal:
            return Verdict(count, seal, line.id)
        seal, count = line.seal, count + 1
    return Verdict(count, seal, None)


def holds(store: AuditStore, seal: str) -> bool:
    """Whether a seal that was kept is still there: nothing up to it was cut off."""
    return seal == START or any(line.seal == seal for line in store.lines())
