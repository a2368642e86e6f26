"""One viewer of a run's log: from a cursor through what is stored, and on with what follows, to the end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

import structlog

from proctor_api.logs import frames
from proctor_api.logs.cursor import BadCursor, Cursor, binding, decode, encode
from proctor_api.logs.feeds import ENDS, Feed, heed
from proctor_api.logs.order import LogPiece, Order, Shown
from proctor_api.logs.record import RunRecord, matches_step
from proctor_common import subjects
from proctor_common.bus import Bus, BusError
from proctor_common.errors import ProctorError
from proctor_common.messages.log import Chunk
from proctor_common.messages.views import EventView

log = structlog.get_logger(__name__)

HOLE_TICKS = 5
"""Ticks that a gap in a running attempt may stay before the beginning of the stream is checked."""

NEWS_PATIENCE = 0.05
"""Seconds that the log waits for the controllers, so that a step's start is shown before its output."""
MOST_QUEUED = 1000


class Kind(StrEnum):
    """The type of a frame; ``idle`` is not sent."""

    CHUNK = "chunk"
    GAP = "gap"
    STEP = "step"
    END = "end"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class LogFrame:
    """One frame."""

    kind: Kind
    text: str
    """JSON; "" for idle."""
    piece: LogPiece | None = None
    """The chunk; None for other frames."""
    shown: Shown | None = None
    """The chunk or gap; None for other frames."""


IDLE = LogFrame(Kind.IDLE, "")


class Viewer:
    """Serves one websocket or answer. ``follow`` False: end where the log ends now; ``events``: show state changes."""

    def __init__(
        self, feed: Feed, bus: Bus, *, step: str | None = None, follow: bool = True, events: bool = True
    ) -> None:
        self._feed = feed
        self._bus = bus
        self._step = step
        self._follow = follow
        self._with_events = events
        self._bound = binding(feed.run, step)
        self._event = 0
        self._queue: list[EventView] = []
        self._missing_since: float | None = None
        self._hole_since: float | None = None
        self._news: asyncio.Task[list[EventView]] | None = None
        self._at_end = False
        self._over = False
        self._loop = asyncio.get_running_loop()

    async def open(self, after: str | None, cursor: Cursor | None = None) -> None:
        """Begin after the cursor text ``after``, else at ``cursor``, else at the start.

        Raises BadCursor, ProctorError, BusError.
        """
        record = await self._feed.record()
        if after is not None:
            cursor = decode(after, self._bound)
            if cursor.mark > record.last:
                raise BadCursor("a cursor of another run")
            last = await self._bus.last_stored(subjects.LOG_STREAM)
            if cursor.base > (last.seq if last is not None else 0) + 1:
                # The stream was recreated: read all of it. What was shown is known by its ``seq``.
                cursor = Cursor(1, cursor.event, cursor.mark, cursor.open)
        cursor = cursor or Cursor()
        self._event = cursor.event
        self._order = Order(record, cursor, self._step)

    async def frames(self) -> AsyncIterator[LogFrame]:
        """All frames in order. IDLE means that there is nothing right now: the caller may do something else, the next
        frame comes when the feed wakes.
        """
        try:
            async for frame in self._follow_log():
                yield frame
        finally:
            if self._news is not None:
                self._news.cancel()

    async def _follow_log(self) -> AsyncIterator[LogFrame]:
        while True:
            seen = self._feed.wakes
            try:
                async for frame in self._read():
                    yield frame
            except (BusError, ProctorError) as fault:
                # The position stays; the next tick tries again.
                log.debug("tail_interrupted", run=self._feed.run, error=str(fault))
                if not self._follow:
                    raise
                self._at_end = False
            else:
                if not self._at_end:
                    continue
                async for frame in self._look_around():
                    yield frame
                if self._over:
                    return
            yield IDLE
            await self._feed.wait(seen, 1.0)

    async def _read(self) -> AsyncIterator[LogFrame]:
        """New chunks of the stream, with state changes between them. Raises BusError, ProctorError."""
        order = self._order
        self._at_end = False
        await self._load()
        for frame in self._due_events(read_to_end=False):
            yield frame
        batch = await self._feed.read(order.pos)
        # The chunks were attributed with a record that may be newer than this viewer's.
        order.update(await self._feed.record_since(0.0))
        for piece in batch.pieces:
            for shown in order.take(piece):
                yield self._frame(shown)
                if self._queue:
                    for frame in self._due_events(read_to_end=False):
                        yield frame
            if order.pos != piece.at + 1:
                # An attempt ended and made room for one whose chunks are further back.
                return
        order.pos = max(order.pos, batch.upto)
        self._at_end = batch.at_end

    async def _look_around(self) -> AsyncIterator[LogFrame]:
        """At the end of what is stored: show ends of attempts, gaps, and the end frame."""
        for frame in self._due_events(read_to_end=True):
            yield frame
        async for frame in self._settle():
            yield frame
        if self._order.complete and await self._is_over():
            for frame in self._due_events(read_to_end=True):
                yield frame
            if self._order.record.finished:
                yield LogFrame(Kind.END, frames.end_frame(self._order.record.result))
            self._over = True

    def without_lines(self, frame: LogFrame, skip: int) -> tuple[LogFrame | None, int]:
        """The frame without its first ``skip`` lines (None if nothing is left), and the number still to skip."""
        if frame.piece is None:
            return frame, skip
        chunk = frame.piece.chunk
        held = chunk.data.count(b"\n")
        if held < skip:
            return None, skip - held
        rest = chunk.data.split(b"\n", skip)[skip]
        if not rest:
            return None, 0
        cut = Chunk(chunk.seq, chunk.first_line + skip, chunk.time, chunk.source, rest)
        return self._frame(LogPiece(frame.piece.at, frame.piece.number, cut)), 0

    async def _is_over(self) -> bool:
        """Whether nothing more can follow."""
        if not self._order.record.finished:
            return not self._follow and not self._order.has_missing
        if self._with_events and not self._feed.events.ended:
            try:
                while events := await self._feed.events.after(self._last_queued, ask=True):
                    self._queue.extend(events)
            except ProctorError:
                return False
        return True

    # -- state changes --------------------------------------------------------------------------------------------

    @property
    def _last_queued(self) -> int:
        return self._queue[-1].seq if self._queue else self._event

    async def _load(self) -> None:
        """Load record and state changes. Waits NEWS_PATIENCE at most, then goes on with what is known."""
        feed = self._feed
        known = feed.events.known(self._last_queued) if self._with_events and len(self._queue) < MOST_QUEUED else []
        if self._news is None and (known is None or feed.needs_record):
            self._news = asyncio.create_task(feed.news(self._last_queued), name=f"news of {feed.run}")
            self._news.add_done_callback(heed)
        if self._news is not None:
            await asyncio.wait({self._news}, timeout=NEWS_PATIENCE)
            if not self._news.done():
                return
            done, self._news = self._news, None
            try:
                known = done.result()
            except ProctorError as fault:
                # Controllers are unavailable: go on with what is known.
                log.debug("record_not_read", run=feed.run, error=fault.message)
                return
        if feed.known_record is not None:
            self._order.update(feed.known_record)
        if self._with_events:
            self._queue.extend(event for event in known or [] if event.seq > self._last_queued)

    def _due_events(self, *, read_to_end: bool) -> list[LogFrame]:
        """State changes to show now. An attempt's end is shown after its log."""
        due = []
        while self._queue:
            event = self._queue[0]
            number = None
            if event.step_id is not None and event.attempt is not None:
                number = self._order.record.number_of_attempt(event.step_id, event.attempt)
                if event.new in ENDS and not read_to_end and not self._order.is_shown(event.step_id, event.attempt):
                    break
            del self._queue[0]
            self._event = event.seq
            if event.kind == "step" and self._shows(event, number):
                due.append(LogFrame(Kind.STEP, frames.event_frame(self._cursor(), event)))
        return due

    def _shows(self, event: EventView, number: int | None) -> bool:
        if self._step is None:
            return True
        if number is not None:
            return matches_step(self._order.record.attempts[number], self._step)
        return self._step in {event.step, (event.step or "").partition("[")[0], event.step_id}

    # -- what is missing ------------------------------------------------------------------------------------------

    async def _settle(self) -> AsyncIterator[LogFrame]:
        """Announce what will never come. Everything stored before the last read is shown by now."""
        order = self._order
        now = self._loop.time()
        if not order.has_missing:
            self._missing_since = None
        elif self._missing_since is None:
            # Read once more from where something is missing: a replica of the stream may lag behind.
            self._missing_since = now
            order.pos = order.cursor(0).base
        elif now - self._missing_since >= 0.5:
            self._missing_since = None
            for shown in order.settle():
                yield self._frame(shown)
        if not order.has_holes:
            self._hole_since = None
        elif self._hole_since is None:
            self._hole_since = now
        elif now - self._hole_since >= HOLE_TICKS * self._feed.pace.tick and await self._front_is_gone():
            for shown in order.settle_holes():
                yield self._frame(shown)

    async def _front_is_gone(self) -> bool:
        """Whether messages from the time of this run have expired from the stream."""
        try:
            first = await self._bus.direct_get(subjects.LOG_STREAM, start_seq=1, batch=1)
        except BusError:
            return False
        return not first or first[0].time > self._order.record.created_at

    # -- frames ---------------------------------------------------------------------------------------------------

    def _cursor(self) -> str:
        return encode(self._order.cursor(self._event), self._bound)

    def _frame(self, shown: Shown) -> LogFrame:
        record: RunRecord = self._order.record
        entry = record.attempts[shown.number]
        if not isinstance(shown, LogPiece):
            return LogFrame(Kind.GAP, frames.gap_frame(self._cursor(), shown, entry), None, shown)
        body = shown.body
        if body is None:
            body = frames.chunk_body(shown, entry)
            if self._feed.viewers > 1:
                shown.body = body
        return LogFrame(Kind.CHUNK, frames.chunk_frame(self._cursor(), body), shown, shown)
