"""Durations as people write them: ``90`` (seconds), ``1.5h``, ``200ms``. Pure."""

import re

MAX_SECONDS = 30 * 86_400.0
"""Seconds: the longest time limit or delay that a test, a step or a retry may ask for."""

_TEXT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?\Z")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def read_duration(text: str) -> float | None:
    """Seconds, 0 or more and under 10**12 days; None where the text is no duration.

    One is written as a number of at most 12 digits, with at most 6 behind a point, and a unit (ms, s, m, h or d);
    without a unit it is in seconds. How long it may be is for the caller to say.
    """
    found = _TEXT.match(text)
    return float(found[1]) * _UNIT[found[2]] if found else None
