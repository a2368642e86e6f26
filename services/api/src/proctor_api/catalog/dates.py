"""Dates as clients write them, and as they are shown. No I/O."""

import re
from datetime import UTC, datetime, tzinfo

NEVER = datetime.min.replace(tzinfo=UTC)
"""Stands for a date that is absent or cannot be read; ``-infinity`` in the database."""

_LONGEST = 64
_DAY = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?\Z", re.DOTALL)
_LOST_PLUS = re.compile(r"(:[0-9]{2}(?:\.[0-9]+)?) ([0-9]{2}:?[0-9]{2})\Z")


def read_date(text: str | None, zone: tzinfo) -> datetime | None:
    """The moment that a text means, in UTC; None where it means none.

    ``YYYY-MM-DD``, with a time behind a blank or ``T``, with a fraction, with ``Z`` or an offset. Without one of
    these two the date is read in ``zone``. Only the years 1900 to 9998 are dates.
    """
    if text is None or len(text) > _LONGEST:
        return None
    text = text.strip()
    if not _DAY.match(text):
        return None
    try:
        # A plus that nobody quoted in a URL has become a blank.
        found = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
    except ValueError:
        return None
    if not 1900 <= found.year <= 9998:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(UTC)


def creation_date(now: datetime, zone: tzinfo) -> str:
    """``YYYY-MM-DD HH:MM:SS.ffffff`` in the server's zone."""
    return now.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")
