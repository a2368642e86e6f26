"""What a result's criteria and dates say, and how far a test case's verdict can be trusted. No I/O."""

import math
from dataclasses import dataclass

LAST = 50
"""Results that are looked back on. Older ones tell of software that is gone."""
Z = 1.96
"""Standard deviations of a confidence of 95 %."""
PASSED = frozenset({"pass", "passed"})
FAILED = frozenset({"fail", "failed"})


def passed_of(criteria: str | None) -> bool | None:
    """Whether it passed; None where the criteria say neither, or nothing."""
    word = (criteria or "").strip().lower()
    return True if word in PASSED else False if word in FAILED else None


def _any_of(words: frozenset[str]) -> str:
    return f"lower(btrim(criteria)) IN ({', '.join(repr(word) for word in sorted(words))})"


SQL_PASSED = _any_of(PASSED)
SQL_FAILED = _any_of(FAILED)
"""The same as :func:`passed_of`, as conditions; null where there are no criteria."""
SQL_SECONDS = (
    "CASE WHEN stop_at >= start_at AND start_at > '-infinity' AND stop_at < 'infinity'"
    " THEN extract(epoch FROM stop_at - start_at)::double precision END"
)
"""From start to stop; null where a date cannot be read, or the stop is before the start."""


@dataclass(frozen=True, slots=True)
class Trust:
    """``value`` 0..1: with a confidence of 95 %, at least this share of such runs passes."""

    value: float
    passed: int
    known: int


def trust_of(passed: int, known: int) -> Trust | None:
    """The lower bound of Wilson's score interval of ``passed`` among ``known`` verdicts; None without a verdict.

    A bare share would call one pass in one run certain; the bound says 0.21, and 0.93 after 50 passes in 50.
    """
    if known <= 0:
        return None
    share = passed / known
    spread = Z * math.sqrt(share * (1 - share) / known + Z * Z / (4 * known * known))
    bound = (share + Z * Z / (2 * known) - spread) / (1 + Z * Z / known)
    return Trust(round(min(1.0, max(0.0, bound)), 4), passed, known)
