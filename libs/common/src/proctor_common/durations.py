"""Durations as people write them: ``90`` (seconds), ``1.5h``, ``200ms``. Pure."""

import re

MAX_SECONDS = 30 * 86_400.0
"""Seconds: the longest time limit or delay that a test, a step or a retry may ask for."""

_TEXT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?\Z")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def read_duration(text: str) -> float | None:
    """Seconds, from 0 to less than 10**12 days; None if the text is no duration.

    A duration is a number of at most 12 digits, with at most 6 decimals, and a unit (ms, s, m, h or d; default s). The
    caller checks the maximum.
    """
    found = _TEXT.match(text)
    return float(found[1]) * _UNIT[found[2]] if found else None
