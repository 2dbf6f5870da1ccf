"""Money under any interleaving of claims, settlements, kills and replays: never below zero, never above a limit, and
every line in the books once."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.counters import MemoryCounters
from gateway.database import open_database
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.store import migrations
from gateway.store.usage import UsageStore
from gateway.types import Claim, Grant, Refusal, Rule, Unknown, UsageFilter, UsageRecord

SOAK = bool(os.environ.get("PROMPTYARD_TEST_SOAK"))
LIMIT = 100
WHOSE = ("key:a", "key:b")
SCOPES = tuple(f"{whose}@0" for whose in WHOSE)


class Running(NamedTuple):
    """An attempt under way: whose it is, what it may cost at most, and the counters' notes of that."""

    request_id: str
    key_id: str
    most: int
    money: tuple[object, ...]


class Books(RuleBasedStateMachine):
    """A process with counters in memory and a ledger, killed and started again as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.database = open_database(f"sqlite:///{self.folder / 'usage.db'}")
        migrations.migrate(self.database)
        self.running: list[Running] = []
        self.calls = 0
        #: What each key must have cost, by all that was settled and all that a kill cut short.
        self.cost = dict.fromkeys(WHOSE, 0)
        self._start()

    def _start(self) -> None:
        self.counters = MemoryCounters()
        self.ledger = Ledger(Journal(self.folder / "journal"), UsageStore(self.database))

    def _do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self.loop.run_until_complete(work())

    async def _taken(self, claims: list[Claim]) -> Grant | Refusal:
        taken = await self.counters.take(claims)
        while isinstance(taken, Unknown):
            whose = taken.claim.scope.partition("@")[0]
            await self.counters.open(taken.claim, await self.ledger.used(Rule.BUDGET, whose, 0.0, None))
            taken = await self.counters.take(claims)
        return taken

    @rule(whose=st.sampled_from(WHOSE), most=st.integers(1, LIMIT // 2), least=st.integers(1, LIMIT // 2))
    def begin(self, whose: str, most: int, least: int) -> None:
        """An attempt claims, and asks an upstream where it may."""
        claim = Claim(f"{whose}@0", Rule.BUDGET, LIMIT, most, min(most, least))
        taken = self._do(lambda: self._taken([claim]))
        if isinstance(taken, Refusal):
            assert taken.used + claim.least > LIMIT
            return
        self.calls += 1
        running = Running(f"req_{self.calls}", whose.partition(":")[2], most, tuple(taken.money))
        self.ledger.begin(
            (running.request_id, 1, 1000.0, running.key_id, "k", "r", "d", "t", False, 0, most, None, "", "", "")
        )
        self.running.append(running)

    @precondition(lambda self: self.running)
    @rule(which=st.randoms(use_true_random=False), share=st.integers(0, 100), journalled=st.booleans())
    def settle(self, which: Any, share: int, journalled: bool) -> None:
        """One ends, at what it cost: the line first. Killed between the two, only the line is there."""
        one = self.running.pop(which.randrange(len(self.running)))
        held = sum(note[1] for note in one.money if isinstance(note, tuple))
        cost = held * share // 100
        self.ledger.add(UsageRecord(one.request_id, 1000.0, one.key_id, "k", "r", "d", "t", 200, cost=cost, attempt=1))
        self.cost[f"key:{one.key_id}"] += cost
        if not journalled:
            self.kill()
            return
        self.counters.spend(one.money, cost)
        self.counters.spend((), cost)

    @rule()
    def fill(self) -> None:
        """SQL catches up."""
        self._do(self.ledger.flush)

    @rule()
    def kill(self) -> None:
        """The process ends as it is, and another begins: what ran is settled at the most it may have cost."""
        self.ledger._journal.close()
        self.ledger._tending.shutdown()
        for one in self.running:
            self.cost[f"key:{one.key_id}"] += one.most
        orphans = len(self.running)
        self.running.clear()
        self._start()
        assert self.ledger.recover() == orphans
        self.again()

    def again(self) -> None:
        """A replay of what was replayed finds nothing."""
        if self.running:
            return
        assert self.ledger.recover() == 0

    @invariant()
    def nothing_is_above_its_limit_or_below_zero(self) -> None:
        """Counters hold what the books and the running attempts come to, and no more than there is."""
        for scope, whose in zip(SCOPES, WHOSE, strict=True):
            window = self.counters._windows.get((scope, Rule.BUDGET))
            if window is None:
                continue
            held = sum(
                note[1]
                for one in self.running
                if f"key:{one.key_id}" == whose
                for note in one.money
                if isinstance(note, tuple)
            )
            assert window.held == held  # type: ignore[attr-defined]  # a budget's window
            assert window.used == self.cost[whose] + held
            assert window.used >= 0
            assert window.used <= max(LIMIT, self.cost[whose])

    def teardown(self) -> None:
        """In the end, SQL has every line once, and all adds up."""
        self._do(self.ledger.flush)
        store = UsageStore(self.database)
        assert store.check() == []
        sums = {f"key:{row.group['key_id']}": row.cost for row in store.sums(["key_id"], UsageFilter())}
        assert {whose: sums.get(whose, 0) for whose in WHOSE} == self.cost
        self._do(self.ledger.close)
        self.database.close()
        self.loop.close()
        shutil.rmtree(self.folder)


Books.TestCase.settings = settings(
    max_examples=400 if SOAK else 25,
    stateful_step_count=40,
    deadline=None,
    derandomize=not SOAK,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
TestBooks = pytest.mark.soak(Books.TestCase)
