"""Spend as it is drawn: who is near the end of a budget first, every text escaped, money or else calls."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from promptlab.client import CallFailed
from promptlab.workbench.pages.keys import View, terms
from promptlab.workbench.spend import Period, bars, figures, keys_table, share

TODAY = datetime.now(UTC).date().isoformat()
KEY: dict[str, Any] = {
    "id": "key_1", "name": "k", "team_id": None, "state": "active", "routes": None, "rpm": None, "tpm": None,
    "concurrency": None, "rpd": None, "tpd": None, "max_budget": None, "soft_budget": None, "budget_duration": None,
    "expires_at": None,
}  # fmt: skip


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {**KEY, "id": f"key_{name}", "name": name, **fields}


def used(name: str, cost: float, calls: int = 1) -> dict[str, Any]:
    sums = {"calls": calls, "failed": 0, "input_tokens": 3, "output_tokens": 4, "cost_usd": cost}
    return {"day": TODAY, "key": name, "key_id": f"key_{name}", **sums}


def test_who_is_nearest_to_the_end_of_a_budget_is_first() -> None:
    keys = [
        key("idle"),
        key("spender"),
        key("half", max_budget=2, spent_usd=1.0),
        key("over", soft_budget=1, spent_usd=3.0, budget_duration="1d", budget_resets_at=time.time() + 7200),
        key("blocked", max_budget=1, spent_usd=1.0, state="blocked"),
        key("near", max_budget=1, spent_usd=0.8),
    ]
    assert [share(one) for one in keys] == [-1, -1, 0.5, 3, -1, 0.8]
    drawn = keys_table(keys, [used("spender", 5.0)], manages=True)
    order = [name for _, name in sorted((drawn.index(f">{one['name']}<"), one["name"]) for one in keys)]
    assert order == ["over", "near", "half", "spender", "blocked", "idle"]
    assert 'class="share bad" role="img" aria-label="300% spent"><i style="width:100.0%"' in drawn
    assert "$3.00 of $1.00 in 1d (soft)" in drawn
    assert "anew in 2 h" in drawn or "anew in 1 h 59 min" in drawn
    assert 'class="share warn"' in drawn
    assert drawn.count('data-open="unblock"') == 1


def test_whoever_may_not_manage_has_no_buttons_and_nor_do_keys_that_are_over() -> None:
    assert "<button" not in keys_table([key("a")], [], manages=False)
    over = [key("a", state="revoked"), {**KEY, "id": "file-b", "name": "b"}]
    assert "<button" not in keys_table(over, [], manages=True)


def test_every_text_is_escaped() -> None:
    hostile = '<b>"x"'
    drawn = keys_table([key(hostile, routes=[hostile], team_id=hostile)], [], manages=True)
    drawn += bars([{**used("a", 1.0), "key": hostile}], Period(7, "key"))
    assert "<b>&quot;" not in drawn
    assert hostile not in drawn


def test_bars_are_of_money_where_there_is_some_else_of_calls() -> None:
    rows = [used(f"k{number}", 8.0 - number) for number in range(8)]
    drawn = bars(rows, Period(7, "key"))
    assert drawn.count("<rect") == 6  # five that spent most, and the rest as one
    assert ">3 more<" in drawn
    assert "USD a day" in drawn
    free = bars([used("a", 0.0, 7)], Period(7, "key"))
    assert "Calls a day" in free
    assert "<b>7</b>" in free
    assert "<dd>8</dd>" in figures(rows)


def test_an_address_that_says_nonsense_opens_the_usual_view() -> None:
    assert View.linked([("days", "7"), ("by", "user")]) == View(7, "user")
    assert View.linked([("days", "8"), ("by", "secret")]) == View()


def test_empty_fields_are_no_limits() -> None:
    said = terms({"rpm": "1,000", "tpm": "", "max_budget": "0.5", "budget_duration": "1d", "routes": " a, b ,"})
    assert said == {"rpm": 1000, "tpm": None, "concurrency": None, "max_budget": 0.5, "budget_duration": "1d",
                    "routes": ["a", "b"]}  # fmt: skip
    assert terms({"budget_duration": "1d"}) == {**dict.fromkeys(("rpm", "tpm", "concurrency", "max_budget", "routes"))}
    with pytest.raises(CallFailed, match="tpm is a number, not 'x'"):
        terms({"tpm": "x"})
