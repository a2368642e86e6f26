"""A viewer's position in a run's log, as opaque text of ``[A-Za-z0-9_-]``, at most 4 KiB. No I/O."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = 1
MAX_TEXT = 4096
OPEN_LIMIT = 210
"""Open attempts that a cursor can hold: 210 of at most 13 bytes stay below 4 KiB of base64."""
MAX_SEQ = 2**35 - 1
MAX_LINE = 2**42 - 1
_BINDING = 6


class BadCursor(ValueError):
    """The text is not a cursor, or is one of another run or view."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: behind everything that was shown."""

    base: int = 1
    """Stream sequence; everything below it is shown."""
    event: int = 0
    """``seq`` of the last state change that was shown; 0 if none was."""
    mark: int = 0
    """Attempts with a number up to this have begun. Those that are not in ``open`` are shown to their end."""
    open: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By attempt number: ``seq`` and line of the next chunk to show."""


def binding(run: str, step: str | None) -> bytes:
    """A hash that ties a cursor to its run and to the step that the view shows (None: all)."""
    return hashlib.sha256(f"{run}\n{step or ''}".encode("utf-8", "surrogatepass")).digest()[:_BINDING]


def encode(cursor: Cursor, bound: bytes) -> str:
    """The cursor as text."""
    out = bytearray([VERSION])
    out += bound
    for number in (cursor.base, cursor.event, cursor.mark):
        _put(out, number)
    last = 0
    for number in sorted(cursor.open):
        seq, line = cursor.open[number]
        _put(out, number - last)
        _put(out, seq)
        _put(out, line)
        last = number
    return base64.urlsafe_b64encode(out).rstrip(b"=").decode()


def decode(text: str, bound: bytes) -> Cursor:
    """The cursor in a text. Raises BadCursor."""
    if len(text) > MAX_TEXT:
        raise BadCursor("the cursor is too long")
    if not text:
        raise BadCursor("not a cursor")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadCursor("not a cursor") from None
    if len(data) < 1 + _BINDING or data[0] != VERSION:
        raise BadCursor("not a cursor")
    if data[1 : 1 + _BINDING] != bound:
        raise BadCursor("a cursor of another run, or of another step's view")
    numbers = _take_all(data[1 + _BINDING :])
    if len(numbers) < 3 or len(numbers) % 3:
        raise BadCursor("not a cursor")
    base, event, mark, *rest = numbers
    open_: dict[int, tuple[int, int]] = {}
    number = 0
    for i in range(0, len(rest), 3):
        step, seq, line = rest[i : i + 3]
        number += step
        if step < 1 or number > mark or not 1 <= seq <= MAX_SEQ or not 1 <= line <= MAX_LINE:
            raise BadCursor("not a cursor")
        open_[number] = (seq, line)
    if base < 1 or base >= 2**63 or event >= 2**53 or mark >= 2**31 or len(open_) > OPEN_LIMIT:
        raise BadCursor("not a cursor")
    return Cursor(base, event, mark, open_)


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take_all(data: bytes) -> list[int]:
    numbers = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 63:
                raise BadCursor("not a cursor")
        else:
            numbers.append(value)
            value = shift = 0
    if shift:
        raise BadCursor("not a cursor")
    return numbers
