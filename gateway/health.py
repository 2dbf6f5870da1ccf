"""How each deployment is doing in this process: how busy, how quick, at rest after failures, and who waits for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable

from gateway.errors import Overloaded
from gateway.routes import Cooldown, Deployment
from gateway.timing import Within

#: Seconds over which an old first-token time loses two thirds of its weight.
_FADING = 10.0
#: What a failure counts as, in seconds to a first token: quick failures must not look like quick answers.
_FAILED = 5.0


class Condition:
    """One deployment's condition. All times are of `clock`, in seconds."""

    __slots__ = ("_clock", "_failures", "_most", "_observed", "_peak", "_probing", "_until", "_waiting", "running")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: Calls at once, as the configuration of the newest call says.
        self._most: int | None = None
        self._failures = 0
        self._until = 0.0
        self._probing = False
        self._peak = 0.0
        self._observed = 0.0

    def rests(self) -> float:
        """Seconds until it may be asked again; 0 where it may now. After a rest one call at a time tries it."""
        left = self._until - self._clock()
        if left > 0:
            return left
        return 1.0 if self._probing else 0.0

    @property
    def latency(self) -> float:
        """Seconds to a first token: the highest of late, fading; 0 where nobody has asked yet.

        Peak EWMA, as in Twitter's Finagle: a slow answer counts at once, quick ones bring it down by and by.
        """
        return self._peak * math.exp((self._observed - self._clock()) / _FADING) if self._peak else 0.0

    def entered(self, deployment: Deployment) -> bool:
        """Whether a deployment without a bound of its own, for which nobody waits, was entered at once (`enter`)."""
        if deployment.concurrency is not None or self._waiting or self._until:
            return False
        self._most = None
        self.running += 1
        return True

    async def enter(self, deployment: Deployment) -> None:
        """Return once there is room for one more call; it has it until `leave`.

        Raises `Overloaded` where too many wait already, or this one has waited too long.
        """
        self._most = most = deployment.concurrency
        if self._waiting:
            self._admit()  # a reload may have raised it
        if most is not None and (self.running >= most or self._waiting):
            await self._wait(deployment)
        else:
            self.running += 1
        if self._until:
            self._probing = True

    def leave(self) -> None:
        """One call has ended: its room goes to whoever has waited longest, unless a reload has taken it away."""
        self.running -= 1
        if self._waiting:
            self._admit()

    def answered(self, seconds: float) -> None:
        """It gave an answer; its first token took so long."""
        self._failures, self._until, self._probing = 0, 0.0, False
        self._observe(seconds)

    def failed(self, cooldown: Cooldown | None, retry_after: float | None) -> None:
        """It failed. It rests after `cooldown.failures` in a row, at once where it said itself when to come back."""
        self._observe(_FAILED)
        again, self._probing = self._probing, False
        if cooldown is None:
            return
        self._failures += 1
        if retry_after is not None or again or self._failures >= cooldown.failures:
            self._until = self._clock() + (cooldown.seconds if retry_after is None else retry_after)

    def forsaken(self) -> None:
        """A call ended before it could tell: a probe tells nothing, and the next may be one."""
        self._probing = False

    def _observe(self, seconds: float) -> None:
        now = self._clock()
        fading = math.exp((self._observed - now) / _FADING) if self._peak else 0.0
        faded = self._peak * fading
        self._peak = seconds if seconds > faded else faded + (1 - fading) * seconds
        self._observed = now

    def _admit(self) -> None:
        while self._waiting and (self._most is None or self.running < self._most):
            next_one = self._waiting.popleft()
            if not next_one.done():
                self.running += 1
                next_one.set_result(None)

    async def _wait(self, deployment: Deployment) -> None:
        if len(self._waiting) >= deployment.queue.size:
            raise _full(deployment, f"{len(self._waiting)} calls wait for it already")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            with Within(deployment.queue.timeout):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # it was given room at the very moment it went
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                raise _full(deployment, f"it had no room within {deployment.queue.timeout:g} s") from None
            raise


class Health:
    """The condition of every deployment, by its id; it outlives a configuration."""

    def __init__(self) -> None:
        self._known: dict[str, Condition] = {}

    def of(self, deployment: Deployment) -> Condition:
        """How `deployment` is doing."""
        found = self._known.get(deployment.id)
        if found is None:
            found = self._known[deployment.id] = Condition()
        return found

    def keep(self, ids: Collection[str]) -> None:
        """Forget every deployment that is none of `ids`."""
        self._known = {one: condition for one, condition in self._known.items() if one in ids}

    def forget(self, ids: Iterable[str]) -> None:
        """Begin anew with these. Calls under way at them leave the place they have."""
        for one in ids:
            self._known.pop(one, None)


def _full(deployment: Deployment, why: str) -> Overloaded:
    return Overloaded(f"Deployment '{deployment.id}' is busy: {why}.", code="deployment_busy", retry_after=1)
