"""One feed per run, shared by all its viewers in this process: the newest 4 MiB of chunks, the record, the events.

The feed reads from the stream only when a viewer at its end asks for more, and once for all that ask. A viewer behind
the cached part reads for itself until it has caught up. Notifications and a timer only wake the viewers.
"""

import asyncio
import contextlib
import math
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from proctor_api.controller_client import SELF, ControllerClient
from proctor_api.events import EventRing
from proctor_api.logs.index import load_index
from proctor_api.logs.order import LogPiece
from proctor_api.logs.record import RunRecord
from proctor_api.watch import Watch
from proctor_common import subjects
from proctor_common.bus import Bus, BusError, Stored
from proctor_common.messages.base import BadMessage
from proctor_common.messages.calls.runs import LIST_EVENTS, EventList
from proctor_common.messages.log import decode_chunk
from proctor_common.messages.pages import EventsPage
from proctor_common.messages.views import EventView, RunChanged

log = structlog.get_logger(__name__)

KEPT_BYTES = 4 * 1024 * 1024
PIECE_COST = 512
"""Bytes that a cached chunk counts in addition to its data."""
BATCH = 64
BATCH_BYTES = 2 * 1024 * 1024
STRANGER_PAUSE = 0.2
"""Seconds at least between two requests for the record because of chunks of unknown attempts."""
ENDS = frozenset({"finished", "retry_wait", "lost"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look for news without having been notified; seconds."""

    tick: float
    """Between two looks into the stream."""
    record: float
    """Between two requests for the record."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks in the order of the stream."""

    pieces: list[LogPiece]
    upto: int
    """Stream sequence up to which (exclusive) the stream was read."""
    at_end: bool
    """Whether the stream had nothing more."""


class Feed:
    """The shared reader of one run."""

    def __init__(self, run: str, bus: Bus, controllers: ControllerClient, pace: Pace) -> None:
        self.run = run
        self.viewers = 0
        self.wakes = 0
        self.strangers = 0
        self.events = EventRing(self._fetch_events)
        self._bus = bus
        self._controllers = controllers
        self.pace = pace
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._record: RunRecord | None = None
        self._record_stale = True
        self._asking: asyncio.Task[RunRecord] | None = None
        self._pulling: asyncio.Task[None] | None = None
        self._pulled_wake = -1
        self._kept: list[LogPiece] = []
        self._kept_bytes = 0
        self._start = self._end = 1
        self._stranger_check = 0.0
        self._filter = subjects.log_of_run(run)

    # -- being woken ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Wake every viewer, because something may be new."""
        self.wakes += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    def on_change(self, change: RunChanged) -> None:
        """Take a notification: cache its events, and ask for the record again if an attempt may have ended."""
        self.events.add(change.events)
        if any(event.new in ENDS for event in change.events) or not change.events:
            self._record_stale = True
        self.wake()

    async def wait(self, seen: int, timeout: float) -> None:
        """Return when ``wakes`` is above ``seen``, or after ``timeout`` seconds."""
        if self.wakes > seen:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()

    async def tick(self) -> None:
        """Wake the viewers every ``pace.tick`` seconds, in case a notification was lost; runs until cancelled."""
        while True:
            await asyncio.sleep(self.pace.tick)
            self.wake()

    # -- the record -----------------------------------------------------------------------------------------------

    async def record(self) -> RunRecord:
        """The record; asked for again if ``needs_record``. Raises ProctorError."""
        known = self._record
        if known is None:
            return await self.record_since(0.0)
        if self.needs_record:
            return await self.record_since(math.nextafter(known.asked, math.inf))
        return known

    @property
    def known_record(self) -> RunRecord | None:
        """The record as it was last read; None if it never was."""
        return self._record

    @property
    def needs_record(self) -> bool:
        """Whether the run has changed since the record was read, or that was more than ``pace.record`` seconds ago."""
        known = self._record
        if known is None:
            return True
        if known.finished:
            return False
        return self._record_stale or self._loop.time() - known.asked >= self.pace.record

    async def news(self, seq: int) -> list[EventView]:
        """Bring the record up to date; returns the state changes after ``seq``. Raises ProctorError."""
        await self.record()
        found = await self.events.after(seq)
        self.wake()
        return found

    async def record_since(self, moment: float) -> RunRecord:
        """A record that was requested at ``moment`` (the loop's clock) or later. Raises ProctorError."""
        while self._record is None or self._record.asked < moment:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(), name=f"record of {self.run}")
                self._asking.add_done_callback(heed)
            task = self._asking
            try:
                await asyncio.shield(task)
            finally:
                if task.done() and self._asking is task:
                    self._asking = None
        return self._record

    async def _ask(self) -> RunRecord:
        asked = self._loop.time()
        self._record_stale = False
        try:
            index = await load_index(self._controllers, SELF, self.run)
        except BaseException:
            self._record_stale = True
            raise
        self._record = RunRecord(index, asked)
        return self._record

    async def _fetch_events(self, after: int) -> EventsPage:
        return await self._controllers.ask(LIST_EVENTS, SELF, EventList(run=self.run, after=after))

    # -- chunks ---------------------------------------------------------------------------------------------------

    async def read(self, pos: int) -> Batch:
        """Chunks from stream sequence ``pos`` on. Raises BusError, ProctorError."""
        if pos < self._start:
            return await self._read_behind(pos)
        if pos > self._end:
            # This viewer is ahead of the cached part: start it anew here. The others read for themselves.
            self._forget(pos)
        if pos == self._end and self._pulled_wake < self.wakes:
            await self._pull()
        if pos < self._start:
            return await self._read_behind(pos)
        first = bisect_left(self._kept, pos, key=_place)
        pieces = self._kept[first : first + BATCH]
        if first + len(pieces) < len(self._kept):
            return Batch(pieces, pieces[-1].at + 1, False)
        return Batch(pieces, max(pos, self._end), self._pulled_wake >= self.wakes)

    async def _pull(self) -> None:
        """Read at the end of the cached part, once for all viewers that wait for it."""
        if self._pulling is None:
            self._pulling = asyncio.create_task(self._pull_once(), name=f"log of {self.run}")
            self._pulling.add_done_callback(heed)
        task = self._pulling
        try:
            await asyncio.shield(task)
        finally:
            if task.done() and self._pulling is task:
                self._pulling = None

    async def _pull_once(self) -> None:
        wakes, start = self.wakes, self._end
        batch = await self._read_stream(start)
        if start != self._end:
            return
        self._kept.extend(batch.pieces)
        self._kept_bytes += sum(_cost(piece) for piece in batch.pieces)
        self._end = batch.upto
        if batch.at_end:
            self._pulled_wake = wakes
        self._trim()

    async def _read_behind(self, pos: int) -> Batch:
        """Chunks before the cached part, without those in it, so that the viewer goes on with the cache."""
        batch = await self._read_stream(pos)
        if batch.upto < self._start and not batch.at_end:
            return batch
        return Batch([piece for piece in batch.pieces if piece.at < self._start], max(pos, self._start), False)

    async def _read_stream(self, pos: int) -> Batch:
        found = await self._bus.direct_get(
            subjects.LOG_STREAM,
            start_seq=pos,
            subject_filter=self._filter,
            batch=BATCH,
            max_bytes=BATCH_BYTES,
        )
        if not found:
            return Batch([], pos, True)
        return Batch(await self._attribute(found), found[-1].seq + 1, found[-1].num_pending == 0)

    async def _attribute(self, found: list[Stored]) -> list[LogPiece]:
        """The chunks that belong to attempts of the run. Others are dropped and counted in ``strangers``.

        Before a chunk is dropped, the record is read again if it is older than the chunk: the attempt may be new.
        """
        read_at = self._loop.time()
        record = await self.record_since(0.0)
        pieces = []
        for stored in found:
            origin = subjects.parse_log(stored.subject)
            if origin is None:
                continue
            number = record.number_of(origin.agent, origin.step, origin.attempt)
            if number is None and record.asked < read_at:
                pause = self._stranger_check + STRANGER_PAUSE - self._loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                record = await self.record_since(read_at)
                number = record.number_of(origin.agent, origin.step, origin.attempt)
                if number is None:
                    self._stranger_check = self._loop.time()
            if number is None:
                self.strangers += 1
                continue
            try:
                pieces.append(LogPiece(stored.seq, number, decode_chunk(stored.data)))
            except BadMessage as fault:
                self.strangers += 1
                log.warning("bad_chunk", run=self.run, agent=origin.agent, error=str(fault))
        return pieces

    def _trim(self) -> None:
        drop = 0
        while self._kept_bytes > KEPT_BYTES and drop < len(self._kept) - 1:
            self._kept_bytes -= _cost(self._kept[drop])
            drop += 1
        if drop:
            self._start = self._kept[drop - 1].at + 1
            del self._kept[:drop]

    def _forget(self, pos: int) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._start = self._end = pos
        self._pulled_wake = -1

    def close(self) -> None:
        """Cancel running requests."""
        for task in (self._asking, self._pulling):
            if task is not None:
                task.cancel()


def heed(task: "asyncio.Task[Any]") -> None:
    """Retrieve a task's exception, so that asyncio does not warn about it if nobody waits for the task any more."""
    if not task.cancelled():
        task.exception()


def _place(piece: LogPiece) -> int:
    return piece.at


def _cost(piece: LogPiece) -> int:
    return len(piece.chunk.data) + PIECE_COST


class Feeds:
    """The feeds of all runs that have viewers."""

    def __init__(self, bus: Bus, controllers: ControllerClient, watch: Watch, pace: Pace) -> None:
        self._bus = bus
        self._controllers = controllers
        self._watch = watch
        self._pace = pace
        self._open: dict[str, tuple[Feed, Callable[[], Awaitable[None]]]] = {}
        self._opening = asyncio.Lock()

    @property
    def count(self) -> int:
        """The number of runs that have viewers."""
        return len(self._open)

    @contextlib.asynccontextmanager
    async def open(self, run: str) -> AsyncIterator[Feed]:
        """The feed of the run with this id, made for its first viewer and closed after its last. Raises BusError."""
        async with self._opening:
            if run not in self._open:
                self._open[run] = await self._start(run)
            feed, close = self._open[run]
            feed.viewers += 1
        try:
            yield feed
        finally:
            feed.viewers -= 1
            if feed.viewers == 0 and self._open.get(run, (None,))[0] is feed:
                del self._open[run]
                await close()

    async def _start(self, run: str) -> tuple[Feed, Callable[[], Awaitable[None]]]:
        feed = Feed(run, self._bus, self._controllers, self._pace)
        # Subscribe before reading, so that no change in between is missed.
        self._watch.add(run, feed.on_change)
        try:
            live = await self._bus.subscribe(subjects.live_of_run(run), lambda _: feed.wake())
        except BusError:
            self._watch.remove(run, feed.on_change)
            raise
        ticking = asyncio.create_task(feed.tick(), name=f"tick of {run}")

        async def close() -> None:
            ticking.cancel()
            self._watch.remove(run, feed.on_change)
            feed.close()
            with contextlib.suppress(BusError):
                await live.close()

        return feed, close
