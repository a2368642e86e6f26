"""An attempt's log from the first byte read to the stream: masked, cut, spooled, sent.

ship = LogShip(...)
async with ship:                          # owns the sending task
    await ship.write(Source.STDOUT, data) # waits while the stream is reachable and has enough to do
    totals = await ship.finish()          # everything cut and spooled
    await ship.stored()                   # everything in the stream
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from proctor_agent.log.chunker import Chunker, Piece
from proctor_agent.log.publisher import Window
from proctor_agent.log.redact import RedactedStream, Redactor
from proctor_agent.log.spool import AttemptSpool, SpoolFullError, SpoolRemains
from proctor_common import subjects
from proctor_common.bus import Bus
from proctor_common.messages.log import Chunk
from proctor_common.states import GapReason, Source

log = structlog.get_logger(__name__)

TICK = 0.02
"""Seconds for which bytes are gathered; the first bytes after a pause are sent at once."""
OWN_VOICE = 1024 * 1024
"""Bytes of source ``system`` that are kept beyond the log limit."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sizes of a whole log."""

    chunks: int
    lines: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LogOf:
    """Which attempt a log belongs to."""

    agent: str
    run: str
    step: str
    attempt: int


@dataclass(slots=True)
class _Gap:
    reason: GapReason
    first_line: int
    dropped: int


class LogShip:
    """The log of one attempt. Used from one event loop."""

    def __init__(
        self,
        bus: Bus,
        of: LogOf,
        spool: AttemptSpool,
        redactor: Redactor,
        *,
        limit: int,
        found: SpoolRemains | None = None,
    ) -> None:
        """``limit``: bytes of log to keep. ``found``: what a former process left; the log continues after it."""
        subject = subjects.log(of.agent, of.run, of.step, of.attempt)
        self._of = of
        self._spool = spool
        self._window = Window(bus, subject, of.step, of.attempt, spool)
        self._redactor = redactor
        self._streams: dict[Source, RedactedStream] = {}
        self._limit = limit
        self._seq = 0
        self._kept = 0
        self._ends_with_line = True
        self._gap: _Gap | None = None
        self._over_limit = False
        self._last_cut = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None
        self._finished = False
        self._chunker = Chunker()
        if found is not None:
            self._resume(found)

    def _resume(self, found: SpoolRemains) -> None:
        """Continue where a former process of the agent was killed."""
        self._seq, self._kept = found.last_seq, found.bytes
        self._chunker = Chunker(found.line)
        self._ends_with_line = found.ends_with_line
        if found.unsent is not None:
            self._window.resume(found.unsent, found.unsent_seq, found.last_seq)

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._window.run(), name=f"log {self._of.step}.{self._of.attempt}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait({self._sender})

    async def write(self, source: Source, data: bytes) -> None:
        """Take bytes of any length. Waits while the stream is reachable and enough bytes are queued. What comes after
        ``finish`` is dropped: it is from a method that did not stop when asked.
        """
        self._write(source, data)
        if self._window.must_wait:
            await self._window.room()

    def say(self, text: str) -> None:
        """A line from Proctor itself; never waits for room."""
        self._write(Source.SYSTEM, f"{text}\n".encode("utf-8", "backslashreplace"))

    def _write(self, source: Source, data: bytes) -> None:
        if self._finished:
            return
        if data:
            data = self._stream(source).feed(data)
        if data:
            self._take(self._chunker.add(source, data))
            self._schedule()

    async def finish(self, *, lost: bool = False) -> Totals:
        """Cut and spool everything; ``lost``: say that what came after the last chunk is unknown. If there is no room
        even for the last words (full disk, stream out of reach), waits for it.
        """
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for source, stream in self._streams.items():
            rest = stream.flush()
            if rest:
                self._take(self._chunker.add(source, rest))
        self._take(self._chunker.cut_all())
        if lost and self._gap is None:
            self._gap = _Gap(GapReason.LOST, self._chunker.line, 0)
        while not self._close_gap(last_words=True):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._window.progress()
        self._spool.ended = True
        lines = self._chunker.line - (1 if self._ends_with_line else 0)
        return Totals(chunks=self._seq, lines=lines, bytes=self._kept)

    async def stored(self) -> None:
        """After ``finish``: return when every chunk is in the stream."""
        await self._window.all_stored()
        self._spool.seal()

    def _stream(self, source: Source) -> RedactedStream:
        stream = self._streams.get(source)
        if stream is None:
            stream = self._streams[source] = self._redactor.stream()
        return stream

    # -- when to cut ----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None or not self._chunker.holds:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._last_cut >= TICK:
            # Idle: complete lines go at once; an unfinished line gets one tick to end.
            self._take(self._chunker.cut_lines())
        if self._chunker.holds:
            self._timer = loop.call_later(TICK, self._on_tick)

    def _on_tick(self) -> None:
        self._timer = None
        self._take(self._chunker.tick())
        if self._chunker.holds:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._on_tick)

    # -- from pieces to chunks ------------------------------------------------------------------------------------

    def _take(self, pieces: list[Piece]) -> None:
        if not pieces:
            return
        self._last_cut = asyncio.get_running_loop().time()
        for piece in pieces:
            self._ends_with_line = piece.data.endswith(b"\n")
            if self._is_over_limit(piece):
                self._drop(piece, GapReason.LIMIT)
            elif not (self._close_gap() and self._put(piece)):
                self._drop(piece, GapReason.SPOOL_FULL)

    def _is_over_limit(self, piece: Piece) -> bool:
        limit = self._limit + OWN_VOICE if piece.source is Source.SYSTEM else self._limit
        over = self._kept + len(piece.data) > limit
        self._over_limit = self._over_limit or over
        return over or (self._over_limit and piece.source is not Source.SYSTEM)

    def _put(self, piece: Piece) -> bool:
        """Number a piece and pass it on; False if there is no room."""
        chunk = Chunk(self._seq + 1, piece.first_line, time.time(), piece.source, piece.data)
        if not self._send(chunk):
            return False
        self._kept += len(piece.data)
        return True

    def _send(self, chunk: Chunk, *, last_words: bool = False) -> bool:
        payload = chunk.encode()
        try:
            place = self._spool.append(chunk.seq, payload, self._kept, last_words=last_words)
        except SpoolFullError as fault:
            # Without room on disk a chunk may still go through memory, as long as the stream takes it.
            if not self._window.has_room:
                if self._gap is None:
                    log.warning("spool_full", step=self._of.step, attempt=self._of.attempt, error=str(fault))
                return False
            place = None
        self._seq = chunk.seq
        self._window.offer(chunk.seq, payload, place)
        return True

    def _drop(self, piece: Piece, reason: GapReason) -> None:
        if self._gap is None:
            self._gap = _Gap(reason, piece.first_line, 0)
        self._gap.dropped += len(piece.data)

    def _close_gap(self, *, last_words: bool = False) -> bool:
        """Announce what was dropped so far, if anything; False if there is no room even for that."""
        gap = self._gap
        if gap is None:
            return True
        chunk = Chunk(self._seq + 1, gap.first_line, time.time(), Source.SYSTEM, b"", gap.reason, gap.dropped)
        if not self._send(chunk, last_words=last_words):
            return False
        self._gap = None
        return True
