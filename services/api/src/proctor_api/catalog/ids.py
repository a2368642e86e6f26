"""What the Test API gives a record itself: its ``_id`` and its ``creation_date``."""

import secrets
import threading
from datetime import datetime, tzinfo
from itertools import count

_LENGTH = 24
_process = secrets.token_hex(5)
_counter = count(secrets.randbelow(1 << 23))
_lock = threading.Lock()


def new_record_id(now: datetime) -> str:
    """24 hex digits: seconds, this process, a counter. Later ones of one process sort after earlier ones."""
    with _lock:
        number = next(_counter) & 0xFFFFFF
    return f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{_process}{number:06x}"


def is_record_id(text: str) -> bool:
    """Whether a text has the shape of an ``_id``."""
    return len(text) == _LENGTH and all(character in "0123456789abcdef" for character in text)


def creation_date(now: datetime, zone: tzinfo) -> str:
    """``YYYY-MM-DD HH:MM:SS.ffffff`` in the server's zone."""
    return now.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")
