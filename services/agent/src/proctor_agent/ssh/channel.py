"""One remote command's SSH channel: bytes in order of arrival, bounded, and how it ended."""

import asyncio

import asyncssh

from proctor_common.states import Source

HIGH_WATER = 512 * 1024
"""Bytes that wait to be taken before reading stops. asyncssh then holds up to WINDOW more, and the target waits."""
WINDOW = 2 * 1024 * 1024
MAX_PACKET = 256 * 1024

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
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._waiting: list[tuple[Source, bytes]] = []
        self._size = 0
        self._paused = False
        self._wake: asyncio.Future[None] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.opened = True
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._waiting.append((Source.STDERR if datatype == _STDERR else Source.STDOUT, data))
        self._size += len(data)
        if self._size >= HIGH_WATER and not self._paused and self._channel is not None and not self.closed:
            self._paused = True
            self._channel.pause_reading()
        self._notify()

    def exit_status_received(self, status: int) -> None:
        self.exit_code = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_signal = signal

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.fault = exc
        if self._paused and self._channel is not None:
            # What asyncssh had read before the end is still with it; it hands it over when reading resumes.
            self._paused = False
            self._channel.resume_reading()
        self._notify()

    @property
    def told_its_end(self) -> bool:
        """Whether the target has said how the command ended."""
        return self.exit_code is not None or self.exit_signal is not None

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

    async def take(self) -> list[tuple[Source, bytes]]:
        """All that has arrived, in order, neighbours of one source joined; empty only at the end."""
        while not self._waiting and not self.closed:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        taken, self._waiting, self._size = self._waiting, [], 0
        if self._paused and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()
        return _joined(taken)


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
