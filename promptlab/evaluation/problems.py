"""What is wrong with what somebody asked to be evaluated."""

from __future__ import annotations

from collections.abc import Sequence

#: Where in a plan: `("scorers", 1, "type")`.
Place = tuple[str | int, ...]


class PlanInvalid(ValueError):
    """A plan that cannot be carried out. `problems` are pairs of a place in the plan and what to do there."""

    def __init__(self, problems: Sequence[tuple[Place, str]]) -> None:
        super().__init__("\n".join(f"{dotted(place)}: {message}" if place else message for place, message in problems))
        self.problems = tuple(problems)

    @classmethod
    def at(cls, place: Place, message: str) -> PlanInvalid:
        """One problem."""
        return cls([(place, message)])


class Stopped(Exception):
    """An evaluation that ended before its end: too dear, refused, interrupted. Its answers are kept."""


def dotted(place: Place) -> str:
    """A place as people write it: `scorers[1].type`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
