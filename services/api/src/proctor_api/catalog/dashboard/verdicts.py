"""What a result's criteria and dates say. No I/O."""

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
