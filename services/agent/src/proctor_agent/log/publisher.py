"""Sends the chunks of one attempt to stream LOG: in order, a bounded number in flight, each until it is stored.

After a fault nothing new is sent until all in flight are settled; then sending continues from the first that is not
stored (go-back), with the same message ids. Chunks for which memory has no room are in the spool only.
"""

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass

import structlog

from proctor_agent.log.spool import AttemptSpool, FramePosition
from proctor_common.bus import Bus, BusError, BusUnavailable, StreamRefused, TooLarge
from proctor_common.messages.base import BadMessage
from proctor_common.messages.log import Chunk, decode_chunk, message_id
from proctor_common.states import GapReason, Source

log = structlog.get_logger(__name__)

IN_FLIGHT = 32
MEMORY_BYTES = 3 * 1024 * 1024
"""Payload bytes of an attempt in memory, sent or not; above it the writer waits, or chunks are in the spool only."""
APPEND_TIMEOUT = 10.0
LONGEST_WAIT = 2.0
REFUSALS = 5
"""A chunk that was refused so often, for another reason than lack of room, is replaced by a gap."""


@dataclass(slots=True)
class _Entry:
    seq: int
    payload: bytes
    place: FramePosition | None
    stored: bool = False
    refused: int = 0


class Window:
    """Brings one attempt's chunks into the stream. ``run`` is the owner's task."""

    def __init__(self, bus: Bus, subject: str, step: str, attempt: int, spool: AttemptSpool) -> None:
        self._bus = bus
        self._subject = subject
        self._step = step
        self._attempt = attempt
        self._spool = spool
        self._waiting: deque[_Entry] = deque()
        self._flying: deque[_Entry] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory = 0
        self._on_disk: FramePosition | None = None
        self._next_on_disk = 0
        self._last = 0
        self._line = 1
        self._fault: BusError | None = None
        self._away = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()

    # -- the writer's side ----------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another chunk would be held in memory now."""
        return self._on_disk is None and self._memory < MEMORY_BYTES

    @property
    def must_wait(self) -> bool:
        """Whether the writer must wait: the stream is reachable and has not stored yet what it was given."""
        return not self._away and not self.has_room

    @property
    def drained(self) -> bool:
        """Whether everything offered is stored."""
        return not self._flying and not self._waiting and self._on_disk is None

    def offer(self, seq: int, payload: bytes, place: FramePosition | None) -> None:
        """Send this chunk after those before it. ``place`` may be None (not in the spool) only if ``has_room``."""
        self._last = seq
        if self.has_room or place is None:
            self._hold(_Entry(seq, payload, place))
        elif self._on_disk is None:
            self._on_disk, self._next_on_disk = place, seq
        self._wake.set()

    def resume(self, place: FramePosition | None, seq: int, last_seq: int) -> None:
        """Send what is in the spool from chunk ``seq`` at ``place`` on (a former process left it)."""
        self._last = last_seq
        self._on_disk, self._next_on_disk = place, seq
        self._wake.set()

    async def progress(self) -> None:
        """Return after the next chunk was stored, or after the stream became reachable or unreachable."""
        self._changed.clear()
        await self._changed.wait()

    async def room(self) -> None:
        """Return when the writer need not wait."""
        while self.must_wait:
            await self.progress()

    async def all_stored(self) -> None:
        """Return when everything offered is stored."""
        while not self.drained:
            await self.progress()

    # -- the stream's side ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled."""
        wait = 0.05
        try:
            while True:
                if self._fault is not None:
                    await self._settle()
                    await self._pause(wait)
                    wait = min(wait * 2, LONGEST_WAIT)
                self._refill()
                while self._waiting and len(self._tasks) < (1 if self._away else IN_FLIGHT) and self._fault is None:
                    self._send(self._waiting.popleft())
                if self._fault is None:
                    await self._wake.wait()
                    self._wake.clear()
                if not self._away:
                    wait = 0.05
        finally:
            for task in self._tasks:
                task.cancel()

    def _hold(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._memory += len(entry.payload)

    def _refill(self) -> None:
        """Load chunks that are in the spool only into memory."""
        while self._on_disk is not None and self._memory < MEMORY_BYTES // 2:
            try:
                payload, after = self._spool.read(self._on_disk)
                chunk = decode_chunk(payload)
            except (LookupError, OSError, BadMessage) as fault:
                log.error("spool_not_readable", step=self._step, attempt=self._attempt, error=str(fault))
                self._say_lost(self._last)
                self._on_disk = None
                return
            # Some chunks of a former process are missing: the disk had no room, or a segment was torn. A hole in the
            # numbers would keep every viewer waiting.
            self._say_lost(chunk.seq - 1)
            # At a segment's end ``after`` is in the next segment; acknowledging needs this frame's own position.
            place = FramePosition(after.segment, after.offset - len(payload) - 4)
            self._hold(_Entry(chunk.seq, payload, place))
            self._line = chunk.first_line
            self._next_on_disk = chunk.seq + 1
            self._on_disk = None if chunk.seq >= self._last else after

    def _say_lost(self, last: int) -> None:
        """Send a gap instead of each chunk from the next one to ``last``."""
        for seq in range(self._next_on_disk, last + 1):
            gap = Chunk(seq, self._line, time.time(), Source.SYSTEM, b"", GapReason.LOST)
            self._hold(_Entry(seq, gap.encode(), None))
        self._next_on_disk = max(self._next_on_disk, last + 1)

    def _send(self, entry: _Entry) -> None:
        self._flying.append(entry)
        task = asyncio.create_task(self._append(entry))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _append(self, entry: _Entry) -> None:
        name = message_id(self._step, self._attempt, entry.seq)
        try:
            await self._bus.append(self._subject, entry.payload, msg_id=name, timeout=APPEND_TIMEOUT)
        except BusError as fault:
            if isinstance(fault, TooLarge) or (isinstance(fault, StreamRefused) and not fault.is_full):
                entry.refused += 1
            self._fault = self._fault or fault
        else:
            entry.stored = True

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fault = self._fault or BusUnavailable(f"not sent: {task.exception()}")
        gone: list[_Entry] = []
        while self._flying and self._flying[0].stored:
            gone.append(self._flying.popleft())
            self._memory -= len(gone[-1].payload)
        if gone:
            self._away = False
            self._changed.set()
            stored = next((entry for entry in reversed(gone) if entry.place is not None), None)
            if stored is not None and stored.place is not None:
                self._spool.acknowledge(stored.place, len(stored.payload))
        self._wake.set()

    async def _settle(self) -> None:
        """Wait for all in flight, then queue again those that are not stored."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)
        for entry in reversed(self._flying):
            if entry.stored:
                self._memory -= len(entry.payload)
            else:
                self._waiting.appendleft(entry)
                self._give_up_if_refused(entry)
        self._flying.clear()
        if not self._away:
            log.warning("log_not_stored", step=self._step, attempt=self._attempt, error=str(self._fault))
        self._away = True
        self._fault = None
        self._changed.set()

    async def _pause(self, wait: float) -> None:
        if not self._bus.connected:
            await self._bus.wait_connected(LONGEST_WAIT)
        await asyncio.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - spreads retries, guards nothing

    def _give_up_if_refused(self, entry: _Entry) -> None:
        if entry.refused < REFUSALS:
            return
        lost = decode_chunk(entry.payload)
        log.error("log_chunk_refused", step=self._step, attempt=self._attempt, seq=entry.seq)
        gap = Chunk(lost.seq, lost.first_line, lost.time, lost.source, b"", GapReason.LOST, len(lost.data))
        self._memory -= len(entry.payload)
        entry.payload, entry.place = gap.encode(), None
        self._memory += len(entry.payload)
        entry.refused = 0
