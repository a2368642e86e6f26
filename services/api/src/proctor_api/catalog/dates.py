"""Reading and writing dates in the formats of the Test API. No I/O."""

import re
from datetime import UTC, datetime, tzinfo

NEVER = datetime.min.replace(tzinfo=UTC)
"""The value for a date that is absent or cannot be read; ``-infinity`` in the database."""

_LONGEST = 64
_DAY = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?\Z", re.DOTALL)
_LOST_PLUS = re.compile(r"(:[0-9]{2}(?:\.[0-9]+)?) ([0-9]{2}:?[0-9]{2})\Z")


def read_date(text: str | None, zone: tzinfo) -> datetime | None:
    """The time in a text, in UTC; None if it is not a date.

    Reads ``YYYY-MM-DD``, optionally a time after a blank or ``T``, a fraction, and ``Z`` or an offset; without the
    latter, the date is in ``zone``. Years outside 1900 to 9998 are no dates.
    """
    if text is None or len(text) > _LONGEST:
        return None
    text = text.strip()
    if not _DAY.match(text):
        return None
    try:
        # An unescaped plus in a URL arrives as a blank.
        found = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
    except ValueError:
        return None
    if not 1900 <= found.year <= 9998:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(UTC)


def creation_date(now: datetime, zone: tzinfo) -> str:
    """``now`` as ``YYYY-MM-DD HH:MM:SS.ffffff`` in ``zone``."""
    return now.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")
