"""One remote command's SSH channel: bytes in order of arrival, bounded, and how it ended."""

import asyncio
import time
from collections.abc import Callable

import asyncssh

from proctor_common.states import Source

HIGH_WATER = 512 * 1024
"""Bytes that wait to be taken before reading stops. asyncssh then holds up to WINDOW more, and the target waits."""
WINDOW = 2 * 1024 * 1024
MAX_PACKET = 256 * 1024

QUIET_S = 0.5
"""A command has ended and its output stays open: nothing has come for so long."""
TAIL_S = 2.0
"""And it is read no longer than that, while bytes go on coming."""
TAIL_BYTES = 4 * 1024 * 1024
"""But so much may have been on its way when the command ended: it is read whatever time the log takes for it."""

_STDERR = asyncssh.EXTENDED_DATA_STDERR


class CommandSession(asyncssh.SSHClientSession[bytes]):
    """Collects what arrives until it is taken. Not asyncssh's streams: those copy each packet once more and wake
    their reader once a packet.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.exit_signal: str | None = None
        self.closed = False
        self.fault: Exception | None = None
        self.opened = False
        self.ended_at: float | None = None
        """``time.monotonic`` when the target said how the command ended."""
        self.held = False
        """Whether something else holds the output of a command that has ended."""
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._waiting: list[tuple[Source, bytes]] = []
        self._size = 0
        self._paused = False
        self._wake: asyncio.Future[None] | None = None
        self._tail = 0
        self._tail_waited = 0.0
        self._on_closed: Callable[[], None] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.opened = True
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._on_closed is not None:
            return
        self._waiting.append((Source.STDERR if datatype == _STDERR else Source.STDOUT, data))
        self._size += len(data)
        if self._size >= HIGH_WATER and not self._paused and self._channel is not None and not self.closed:
            self._paused = True
            self._channel.pause_reading()
        self._notify()

    def exit_status_received(self, status: int) -> None:
        self.exit_code = status
        self._told()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_signal = signal
        self._told()

    def _told(self) -> None:
        self.ended_at = time.monotonic()
        self._notify()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.fault = exc
        # What asyncssh had read before the end is still with it; it hands it over when reading resumes.
        self._resume()
        self._notify()
        if self._on_closed is not None:
            self._on_closed()

    def abort(self) -> None:
        """Close the channel. A command that has not printed its marker line yet never starts: it cannot print it."""
        if self._channel is not None and not self.closed:
            self._channel.abort()

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Give the command bytes on standard input; ``end``: no more come."""
        assert self._channel is not None, "the channel is not open"
        if data:
            self._channel.write(data)
        if end:
            self._channel.write_eof()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def discard(self, on_closed: Callable[[], None]) -> None:
        """Throw away what comes from here on; ``on_closed`` is called when the channel is closed."""
        self._on_closed = on_closed
        self._waiting, self._size = [], 0
        self._resume()

    async def take(self) -> list[tuple[Source, bytes]]:
        """All that has arrived, in order, neighbours of one source joined. Empty only at the end: the channel is
        closed, or the command has ended and something else holds its output (``held``).
        """
        while not self._waiting and not self.closed:
            self._wake = asyncio.get_running_loop().create_future()
            began = time.monotonic()
            try:
                async with asyncio.timeout(None if self.ended_at is None else QUIET_S):
                    await self._wake
            except TimeoutError:
                self.held = True
                return []
            finally:
                self._wake = None
                if self.ended_at is not None:
                    self._tail_waited += time.monotonic() - max(began, self.ended_at)
        if self.ended_at is not None and not self.closed and self._tail_is_over(self.ended_at):
            self.held = True
            return []
        taken, self._waiting, self._size = self._waiting, [], 0
        self._resume()
        if self.ended_at is not None:
            self._tail += sum(len(data) for _, data in taken)
        return _joined(taken)

    def _tail_is_over(self, ended_at: float) -> bool:
        late = time.monotonic() - ended_at > TAIL_S
        return late and (self._tail_waited > TAIL_S or self._tail > TAIL_BYTES)

    def _resume(self) -> None:
        if self._paused and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()


def _joined(pieces: list[tuple[Source, bytes]]) -> list[tuple[Source, bytes]]:
    if len(pieces) < 2:
        return pieces
    joined: list[tuple[Source, bytes]] = []
    run: list[bytes] = []
    source = pieces[0][0]
    for piece_source, data in pieces:
        if piece_source is not source:
            joined.append((source, b"".join(run)))
            source, run = piece_source, []
        run.append(data)
    joined.append((source, b"".join(run)))
    return joined
