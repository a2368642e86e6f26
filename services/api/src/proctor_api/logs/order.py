"""Orders the chunks of each attempt by ``seq``, shows each once, and announces gaps. Pure: no I/O, no clock.

In the stream, a chunk may occur twice or late. What is shown depends only on record, cursor and chunks, so that every
viewer sees the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from proctor_api.logs.cursor import MAX_LINE, MAX_SEQ, OPEN_LIMIT, Cursor
from proctor_api.logs.record import RunRecord, matches_step
from proctor_common.messages.log import Chunk
from proctor_common.states import GapReason, StepResult

WINDOW = 128
"""Chunks of an attempt that are held while an earlier one is missing. An agent has fewer in flight, so if more come
first, the missing one was stored and has expired.
"""


class LogPiece:
    """A chunk with its stream sequence and attempt number; ``body`` caches its frame for other viewers."""

    __slots__ = ("at", "body", "chunk", "number")

    def __init__(self, at: int, number: int, chunk: Chunk) -> None:
        self.at = at
        self.number = number
        self.chunk = chunk
        self.body: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines ``first`` to ``last`` that cannot be shown, of ``size`` bytes. None means unknown."""

    number: int
    first: int
    last: int | None
    size: int | None
    reason: GapReason


Shown = LogPiece | Gap


class _Open:
    """An attempt that is being shown: the next ``seq`` and line, and chunks that came too early."""

    __slots__ = ("held", "line", "seq")

    def __init__(self, seq: int = 1, line: int = 1) -> None:
        self.seq = seq
        self.line = line
        self.held: dict[int, LogPiece] = {}


class Order:
    """One viewer's position in a run's log. After each chunk or gap, :meth:`cursor` is the position behind it."""

    def __init__(self, record: RunRecord, cursor: Cursor, step: str | None = None) -> None:
        self.pos = cursor.base
        """The stream sequence to read from."""
        self.record = record
        self._step = step
        self._mark = cursor.mark
        self._open = {number: _Open(seq, line) for number, (seq, line) in cursor.open.items()}
        self._holding: set[int] = set()
        """Attempts with held chunks."""
        self._waiting: dict[int, int] = {}
        """Attempts that do not fit into the cursor, with the stream sequence of their first chunk."""
        self.update(record)

    def update(self, record: RunRecord) -> None:
        """Go on with a newer record."""
        self.record = record
        for number in list(self._open):
            self._close_if_over(number)

    def take(self, piece: LogPiece) -> Iterator[Shown]:
        """Take the next chunk of the stream. If ``pos`` is not ``piece.at + 1`` afterwards, read again from ``pos``."""
        self.pos = piece.at + 1
        attempt = self._find(piece.number, piece.at)
        seq = piece.chunk.seq
        if attempt is None or seq < attempt.seq or seq > MAX_SEQ or piece.chunk.first_line > MAX_LINE:
            return
        if seq > attempt.seq:
            attempt.held[seq] = piece
            self._holding.add(piece.number)
            if len(attempt.held) > WINDOW:
                yield from self._skip(piece.number, attempt, GapReason.EXPIRED)
            return
        yield self._show(piece.number, attempt, piece)
        yield from self._release(piece.number, attempt)

    def _find(self, number: int, at: int) -> _Open | None:
        """The attempt, opened if it is new; None if it has ended, is not part of the view, or must wait for room."""
        if number in self._open:
            return self._open[number]
        if number <= self._mark:
            return None
        while self._mark < number:
            if len(self._open) >= OPEN_LIMIT:
                self._waiting.setdefault(number, at)
                return None
            self._mark += 1
            entry = self.record.attempts.get(self._mark)
            if entry is not None and matches_step(entry, self._step):
                self._open[self._mark] = _Open()
                if self._mark != number:
                    self._close_if_over(self._mark)
        return self._open.get(number)

    def _show(self, number: int, attempt: _Open, piece: LogPiece) -> Shown:
        """Move the position behind the piece; returns what to show."""
        chunk = piece.chunk
        attempt.seq = chunk.seq + 1
        if chunk.gap is not None:
            attempt.line = max(attempt.line, chunk.first_line)
        else:
            attempt.line = min(chunk.first_line + chunk.data.count(b"\n"), MAX_LINE)
        self._close_if_over(number)
        return piece if chunk.gap is None else Gap(number, chunk.first_line, None, chunk.dropped, chunk.gap)

    def _release(self, number: int, attempt: _Open) -> Iterator[Shown]:
        """Show held chunks whose turn has come."""
        while attempt.held:
            piece = attempt.held.pop(attempt.seq, None)
            if piece is None:
                break
            if not attempt.held:
                self._holding.discard(number)
            yield self._show(number, attempt, piece)

    def _skip(self, number: int, attempt: _Open, reason: GapReason) -> Iterator[Shown]:
        """Announce the missing chunks as a gap and go on with the held ones."""
        due = min(attempt.held)
        first = attempt.held[due].chunk.first_line
        gap = Gap(number, attempt.line, max(attempt.line, first - 1), None, reason)
        attempt.seq, attempt.line = due, max(attempt.line, first)
        yield gap
        yield from self._release(number, attempt)

    def _close_if_over(self, number: int) -> None:
        attempt = self._open[number]
        chunks = self.record.chunks(number)
        if chunks is None or attempt.seq <= chunks:
            return
        del self._open[number]
        self._holding.discard(number)
        if self._waiting:
            self.pos = min(self.pos, *self._waiting.values())
            self._waiting.clear()

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether all attempts of the record are shown to their end."""
        return not self.has_missing and not self._waiting

    @property
    def has_missing(self) -> bool:
        """Whether an attempt is over and not shown to its end."""
        return next(self.missing(), None) is not None

    def missing(self) -> Iterator[int]:
        """Attempts that are over by the record, and not shown to their end."""
        yield from (number for number in self._open if self.record.is_over(number))
        for number in range(self._mark + 1, self.record.last + 1):
            entry = self.record.attempts.get(number)
            if entry is None or self.record.chunks(number) == 0 or not matches_step(entry, self._step):
                continue
            if self.record.is_over(number):
                yield number

    def is_shown(self, step: str, attempt: int) -> bool:
        """Whether this attempt is shown to its end, or not part of the view."""
        number = self.record.number_of_attempt(step, attempt)
        if number is None or number <= self._mark:
            return number not in self._open
        entry = self.record.attempts[number]
        return self.record.chunks(number) == 0 or not matches_step(entry, self._step)

    @property
    def has_holes(self) -> bool:
        """Whether chunks are held for an attempt that is not over."""
        return any(not self.record.is_over(number) for number in self._holding)

    def settle(self) -> Iterator[Shown]:
        """Announce what is missing of attempts that are over. Only call it after the stream was read to its end with
        this record: then nothing more can come.
        """
        while True:
            number = next(self.missing(), None)
            if number is None:
                return
            attempt = self._find(number, self.pos)
            if attempt is None:
                return
            chunks = self.record.chunks(number)
            # The agent reported the number of chunks. Of a lost attempt it is unknown.
            reason = GapReason.LOST if chunks is None else GapReason.EXPIRED
            while attempt.held:
                yield from self._skip(number, attempt, reason)
            if number in self._open and (gap := self._last_gap(number, attempt, chunks, reason)) is not None:
                yield gap

    def _last_gap(self, number: int, attempt: _Open, chunks: int | None, reason: GapReason) -> Gap | None:
        """The gap at an attempt's end. None for one without chunks that was not lost: it never ran."""
        entry = self.record.attempts[number]
        last = entry.lines if entry.lines is not None and entry.lines >= attempt.line else None
        size = entry.bytes if attempt.seq == 1 else None
        gap = Gap(number, attempt.line, last, size, reason)
        if chunks is None:
            del self._open[number]
            self._holding.discard(number)
        else:
            attempt.seq = chunks + 1
            self._close_if_over(number)
        never_ran = chunks is None and gap.first == 1 and attempt.seq == 1 and entry.result is not StepResult.LOST
        return None if never_ran else gap

    def settle_holes(self) -> Iterator[Shown]:
        """Announce gaps of attempts that are not over. Only call it if the beginning of the stream has expired."""
        for number in list(self._holding):
            attempt = self._open.get(number)
            while attempt is not None and attempt.held and number in self._open:
                yield from self._skip(number, attempt, GapReason.EXPIRED)

    def cursor(self, event: int) -> Cursor:
        """The position behind everything that was shown; ``event``: ``seq`` of the last state change shown."""
        base = self.pos
        for number in self._holding:
            base = min(base, *(piece.at for piece in self._open[number].held.values()))
        if self._waiting:
            base = min(base, *self._waiting.values())
        return Cursor(base, event, self._mark, {n: (attempt.seq, attempt.line) for n, attempt in self._open.items()})
