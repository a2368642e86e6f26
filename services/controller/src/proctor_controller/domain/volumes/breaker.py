"""The breaker: three failures in a row stop creation, except for one probe a minute. Pure.

There is one for the backend as a whole (down, no answer: scope ``""``) and one for each type (its volumes end in error,
the type is refused), so that one bad type does not stop the others.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

FAILURES = 3
PROBE_EVERY = timedelta(seconds=60)
BACKEND = ""


@dataclass(frozen=True, slots=True)
class Breaker:
    """``failures`` in a row; ``opened_at``: None while closed; ``probe_at``: when the next try may be made."""

    scope: str = BACKEND
    failures: int = 0
    opened_at: datetime | None = None
    probe_at: datetime | None = None
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether creation is stopped."""
        return self.opened_at is not None


def lets_pass(breaker: Breaker, now: datetime) -> bool:
    """Whether a creation may be tried now."""
    return breaker.probe_at is None or breaker.probe_at <= now


def after_start(breaker: Breaker, now: datetime) -> Breaker:
    """A creation is tried: if the breaker is open, it is the probe, and the next one has to wait."""
    return replace(breaker, probe_at=now + PROBE_EVERY) if breaker.open else breaker


def after_failure(breaker: Breaker, now: datetime, reason: str) -> Breaker:
    """One more failure in a row."""
    failures = breaker.failures + 1
    if failures < FAILURES:
        return replace(breaker, failures=failures, reason=reason)
    probe_at = breaker.probe_at if breaker.probe_at is not None and breaker.probe_at > now else now + PROBE_EVERY
    return replace(breaker, failures=failures, opened_at=breaker.opened_at or now, probe_at=probe_at, reason=reason)


def after_success(breaker: Breaker) -> Breaker:
    """Closed, with the count reset."""
    return Breaker(scope=breaker.scope)
