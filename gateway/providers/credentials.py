"""A provider's credentials, used in turn: one that was refused or rate-limited rests while the others go on."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from gateway.timing import retry_after
from gateway.types import Answer

log = logging.getLogger(__name__)

#: Statuses that are about a credential: unknown, not paid for, not allowed.
REFUSED = (401, 402, 403)
#: Statuses after which the next credential is tried, and seconds the first rest after each takes at least and at most.
_RESTS = {**dict.fromkeys(REFUSED, (60.0, 3600.0)), 429: (1.0, 60.0)}
#: How Google and xAI say under 400 that a key is wrong. Only where nothing of a caller's could stand before it: its own
#: words, quoted by an upstream, must not put our credentials to rest.
_NOT_VALID = re.compile(
    rb'"(?:message|error)"\s*:\s*"(?:API key not valid|API key expired|Incorrect API key provided)'
    rb'|"reason"\s*:\s*"API_KEY_INVALID"'
)
#: Nobody is believed beyond a day.
_LONGEST_REST = 86400.0


@dataclass(slots=True)
class Credential:
    """One credential as the headers that carry it. Logs call it `label`: `#1`, `#2`."""

    label: str
    headers: Mapping[str, str]
    rests_until: float = 0.0
    failures: int = 0


def told_apart(answer: Answer) -> Answer:
    """`answer`, with the status 401 where it is a 400 about the credential and not about the request."""
    if answer.status == 400 and _NOT_VALID.search(answer.body):
        answer.status = 401
    return answer


class Credentials:
    """The credentials of one provider, in this process. Without any there is one that is empty."""

    def __init__(
        self,
        provider: str,
        secrets: Sequence[SecretStr],
        headers: Callable[[SecretStr | None], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._all = [Credential(f"#{number}", headers(secret)) for number, secret in enumerate(secrets or [None], 1)]
        self._clock = clock
        self._next = 0

    def turn(self) -> Sequence[Credential]:
        """Those to try for one attempt, in this order: all that do not rest, or else the one that has rested most."""
        if len(self._all) == 1:
            return self._all
        first = self._next
        self._next = (first + 1) % len(self._all)
        now = self._clock()
        ordered = self._all[first:] + self._all[:first]
        awake = [one for one in ordered if one.rests_until <= now]
        return awake or [min(ordered, key=lambda one: one.rests_until)]

    def refused(self, one: Credential, answer: Answer) -> bool:
        """Whether `answer` is about the credential, so that the next one may do better; it rests then.

        For `Retry-After` where the upstream says so, else longer each time in a row.
        """
        if answer.status not in _RESTS:
            one.failures = 0
            return False
        now = self._clock()
        # One that rests already was asked by another call before it did.
        if len(self._all) > 1 and one.rests_until <= now:
            least, most = _RESTS[answer.status]
            rest = min(most, least * 2.0 ** min(one.failures, 16))
            if answer.status == 429:
                rest = retry_after(answer.headers.get("retry-after"), _LONGEST_REST) or rest
            one.failures += 1
            one.rests_until = now + rest
            log.warning(
                "Provider '%s': its credential %s was answered HTTP %d and rests for %.0f s",
                *(self._provider, one.label, answer.status, rest),
            )
        return True
