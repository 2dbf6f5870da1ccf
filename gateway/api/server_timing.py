"""`server-timing`: where the time of a call went, as browsers' and clients' own tools read it."""

from __future__ import annotations

from gateway.trace import Marks

_SAID = "auth;dur=%.2f, limit;dur=%.2f, route;dur=%.2f, upstream;dur=%.2f, own;dur=%.2f"


def server_timing(marks: Marks, now: float) -> str:
    """The header's value for an answer whose sending begins `now`, in milliseconds.

    `auth`: the key; `limit`: route, checks and limits; `upstream`: waiting for providers, failed attempts too, for a
    stream until its first chunk; `route`: choosing, translating and resting between them; `own`: all of it that was
    neither an upstream's nor spent waiting for the caller's body. https://www.w3.org/TR/server-timing/
    """
    upstream = marks.upstream
    return _SAID % (
        (marks.authenticated - marks.received) * 1e3,
        (marks.admitted - marks.read) * 1e3,
        (marks.answered - marks.admitted - upstream) * 1e3,
        upstream * 1e3,
        (now - marks.received - upstream - (marks.read - marks.authenticated)) * 1e3,
    )
