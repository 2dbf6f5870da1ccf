"""Sessions of the lab: who is in, for how long, and whose page is whose."""

from __future__ import annotations

from promptlab.workbench.sessions import IDLE, Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_after_twelve_idle_hours_and_using_it_keeps_it() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    opened = sessions.open("sk-py-1", "Ada")
    for _ in range(3):
        clock.now += IDLE
        assert sessions.get(opened) is not None
    clock.now += IDLE + 1
    assert sessions.get(opened) is None
    clock.now = 0
    assert sessions.get(opened) is None


def test_the_longest_unused_session_makes_room() -> None:
    sessions = Sessions(limit=2)
    first, second = sessions.open("1", "a"), sessions.open("2", "b")
    sessions.get(first)
    third = sessions.open("3", "c")
    assert [sessions.get(one) is not None for one in (first, second, third)] == [True, False, True]


def test_a_closed_session_is_gone_and_a_key_does_not_print() -> None:
    sessions = Sessions()
    opened = sessions.open("sk-py-secret", "Ada")
    assert "sk-py-secret" not in repr(sessions.get(opened))
    sessions.close(opened)
    sessions.close(opened)
    sessions.close(None)
    assert sessions.get(opened) is None
    assert sessions.get(None) is None


def test_a_loaded_page_belongs_to_whom_it_came_to_first() -> None:
    sessions = Sessions()
    assert sessions.owns("ada", "page")
    assert not sessions.owns("bob", "page")
    assert sessions.owns("ada", "page")
    assert sessions.owns("bob", "other page")
