"""Verdict and duration of a result, and the trust in a test case's verdict. No I/O."""

import math
from dataclasses import dataclass

LAST = 50
"""Last results that trust is computed from. Older ones are about software that has changed."""
Z = 1.96
"""Standard deviations for a confidence of 95 %."""
PASSED = frozenset({"pass", "passed"})
FAILED = frozenset({"fail", "failed"})


def passed_of(criteria: str | None) -> bool | None:
    """Whether a result with these criteria passed; None if they are neither pass nor fail, or absent."""
    word = (criteria or "").strip().lower()
    return True if word in PASSED else False if word in FAILED else None


def _any_of(words: frozenset[str]) -> str:
    return f"lower(btrim(criteria)) IN ({', '.join(repr(word) for word in sorted(words))})"


SQL_PASSED = _any_of(PASSED)
SQL_FAILED = _any_of(FAILED)
""":func:`passed_of` as SQL conditions; null without criteria."""
SQL_SECONDS = (
    "CASE WHEN stop_at >= start_at AND start_at > '-infinity' AND stop_at < 'infinity'"
    " THEN extract(epoch FROM stop_at - start_at)::double precision END"
)
"""Seconds from start to stop; null if a date is missing or unreadable, or the stop is before the start."""


@dataclass(frozen=True, slots=True)
class Trust:
    """``value`` 0 to 1: with a confidence of 95 %, at least this share of such runs passes."""

    value: float
    passed: int
    known: int


def trust_of(passed: int, known: int) -> Trust | None:
    """The lower bound of Wilson's score interval of ``passed`` among ``known`` verdicts; None without a verdict.

    The plain share would be 1 after a single pass; the bound is 0.21, and 0.93 after 50 of 50.
    """
    if known <= 0:
        return None
    share = passed / known
    spread = Z * math.sqrt(share * (1 - share) / known + Z * Z / (4 * known * known))
    bound = (share + Z * Z / (2 * known) - spread) / (1 + Z * Z / known)
    return Trust(round(min(1.0, max(0.0, bound)), 4), passed, known)
