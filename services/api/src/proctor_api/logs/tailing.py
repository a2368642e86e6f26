"""Finds the position from which the last N lines of a log follow, without reading all of it."""

from dataclasses import dataclass

from proctor_api.logs.cursor import Cursor
from proctor_api.logs.feeds import BATCH, BATCH_BYTES, Feed
from proctor_api.logs.record import RunRecord, matches_step
from proctor_common import subjects
from proctor_common.bus import Bus
from proctor_common.messages.base import BadMessage
from proctor_common.messages.log import Chunk, decode_chunk

FIRST_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin, and how many lines to skip from there."""

    cursor: Cursor
    skip_lines: int


@dataclass(slots=True)
class _Piece:
    line: int
    newlines: int
    partial: bool


async def start_of_tail(feed: Feed, bus: Bus, step: str | None, lines: int) -> Start:
    """Read back from the end in growing windows until one has ``lines`` lines. Raises BusError, ProctorError."""
    subject = subjects.log_of_run(feed.run)
    newest = await bus.last_stored(subjects.LOG_STREAM, subject)
    record = await feed.record_since(0.0)
    if newest is None:
        return Start(Cursor(), 0)
    window = FIRST_WINDOW
    while True:
        begin = max(1, newest.seq - window + 1)
        found: dict[tuple[int, int], _Piece] = {}
        pos = begin
        while True:
            batch = await bus.direct_get(
                subjects.LOG_STREAM, start_seq=pos, subject_filter=subject, batch=BATCH, max_bytes=BATCH_BYTES
            )
            for stored in batch:
                _note(found, record, step, stored.subject, stored.data)
            if not batch or batch[-1].num_pending == 0:
                break
            pos = batch[-1].seq + 1
        total = _lines(found)
        if total >= lines or begin == 1:
            return _start(record, found, begin, total - lines)
        window *= 4


def _note(found: dict[tuple[int, int], _Piece], record: RunRecord, step: str | None, subject: str, data: bytes) -> None:
    origin = subjects.parse_log(subject)
    number = record.number_of(origin.agent, origin.step, origin.attempt) if origin is not None else None
    if number is None or not matches_step(record.attempts[number], step):
        return
    try:
        chunk: Chunk = decode_chunk(data)
    except BadMessage:
        return
    partial = bool(chunk.data) and not chunk.data.endswith(b"\n")
    found[number, chunk.seq] = _Piece(chunk.first_line, chunk.data.count(b"\n"), partial)


def _lines(found: dict[tuple[int, int], _Piece]) -> int:
    """The number of lines in the window, with unfinished ones."""
    last: dict[int, int] = {}
    for number, seq in found:
        last[number] = max(last.get(number, 0), seq)
    open_ends = sum(found[number, seq].partial for number, seq in last.items())
    return sum(piece.newlines for piece in found.values()) + open_ends


def _start(record: RunRecord, found: dict[tuple[int, int], _Piece], begin: int, too_many: int) -> Start:
    if begin == 1:
        return Start(Cursor(), max(0, too_many))
    first: dict[int, int] = {}
    for number, seq in found:
        first[number] = min(first.get(number, seq), seq)
    places = {number: (seq, found[number, seq].line) for number, seq in first.items()}
    return Start(Cursor(begin, 0, record.last, places), max(0, too_many))
