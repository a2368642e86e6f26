"""The beginning and the end of a text, and of each stream of one attempt's log, as a terminal would have shown them."""

import codecs

from proctor_common import subjects
from proctor_common.bus import Bus, BusError
from proctor_common.messages.base import BadMessage
from proctor_common.messages.log import decode_chunk
from proctor_common.states import Source
from proctor_common.terminal_text import TerminalText

HEAD = 4 * 1024
"""Characters that are kept of the beginning; of the end TAIL."""
TAIL = 12 * 1024
MOST_READ = 32 * 1024 * 1024
"""Bytes of a log that are read from its beginning; of a longer one the newest chunks are read besides."""
NEWEST = 512
"""Messages of the stream, of whatever run."""
BATCH = 64
BATCH_BYTES = 1024 * 1024


class Ends:
    """Takes a text in pieces, keeps HEAD characters of its beginning and TAIL of its end."""

    def __init__(self) -> None:
        self._terminal = TerminalText()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = self._tail = ""
        self._cut = 0
        self._skipped = False

    def add_bytes(self, data: bytes) -> None:
        """More of it; what is no UTF-8 is shown as U+FFFD."""
        self.add(self._decoder.decode(data))

    def add(self, text: str) -> None:
        """More of it."""
        self._keep(self._terminal.feed(text))

    def skip(self) -> None:
        """A part of it is not read."""
        self._skipped = True

    def _keep(self, shown: str) -> None:
        room = HEAD - len(self._head)
        self._head += shown[:room]
        self._tail += shown[room:]
        if len(self._tail) > 2 * TAIL:
            self._cut += len(self._tail) - TAIL
            self._tail = self._tail[-TAIL:]

    def close(self) -> str:
        """What is to be shown."""
        self._keep(self._terminal.feed(self._decoder.decode(b"", final=True)) + self._terminal.close())
        if len(self._tail) > TAIL:
            self._cut += len(self._tail) - TAIL
            self._tail = self._tail[-TAIL:]
        if self._skipped:
            return f"{self._head}\n(cut) …{self._tail}"
        return f"{self._head}\n({self._cut} characters cut) …{self._tail}" if self._cut else self._head + self._tail


def ends_of(text: str) -> str:
    """Beginning and end of a whole text."""
    ends = Ends()
    ends.add(text)
    return ends.close()


async def ends_of_log(bus: Bus, agent: str, run: str, step: str, attempt: int) -> dict[Source, str]:
    """Beginning and end of what the attempt wrote, by stream; nothing where the log is gone or cannot be read."""
    subject = subjects.log(agent, run, step, attempt)
    streams: dict[Source, Ends] = {}
    try:
        newest = await bus.last_stored(subjects.LOG_STREAM, subject)
        at, size, jumped = 1, 0, False
        while newest is not None and at <= newest.seq:
            found = await bus.direct_get(
                subjects.LOG_STREAM, start_seq=at, subject_filter=subject, batch=BATCH, max_bytes=BATCH_BYTES
            )
            if not found:
                break
            for stored in found:
                size += len(stored.data)
                try:
                    chunk = decode_chunk(stored.data)
                except BadMessage:
                    continue
                streams.setdefault(chunk.source, Ends()).add_bytes(chunk.data)
            at = found[-1].seq + 1
            if size > MOST_READ and not jumped:
                jumped = True
                if newest.seq - NEWEST > at:
                    at = newest.seq - NEWEST
                    for ends in streams.values():
                        ends.skip()
    except BusError:
        return {}
    return {source: ends.close() for source, ends in streams.items()}
