"""Cuts an attempt's log into pieces: at a line end where it can, never inside a UTF-8 sequence. Pure.

The bytes of all sources form one stream, in the order in which their pieces are cut; lines are counted over that
stream. Nothing here looks at single lines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proctor_common.messages.log import MAX_DATA
from proctor_common.states import Source

PATIENCE = 25
"""Ticks to wait for the rest of a UTF-8 sequence."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one source, at most MAX_DATA. ``first_line``: number (from 1) of the line in which its first byte is."""

    source: Source
    first_line: int
    data: bytes


class Chunker:
    """Holds what has not been cut yet: less than MAX_DATA bytes of each source."""

    def __init__(self, first_line: int = 1) -> None:
        """``first_line``: the line of the first byte."""
        self._held: dict[Source, list[bytes]] = {}
        self._size: dict[Source, int] = {}
        self._patience: dict[Source, int] = {}
        self._line = first_line

    @property
    def line(self) -> int:
        """Number of the line of the next byte that is cut."""
        return self._line

    def add(self, source: Source, data: bytes) -> list[Piece]:
        """Take bytes and return the pieces that are full now: of MAX_DATA, or up to the last line end below it."""
        if not data:
            return []
        held = self._held.setdefault(source, [])
        held.append(data)
        size = self._size.get(source, 0) + len(data)
        if size < MAX_DATA:
            self._size[source] = size
            return []
        rest = memoryview(b"".join(held))
        pieces = []
        while len(rest) >= MAX_DATA:
            block = bytes(rest[:MAX_DATA])
            end = block.rfind(b"\n") + 1 or len(block) - incomplete_tail(block)
            pieces.append(self._piece(source, block[:end]))
            rest = rest[end:]
        self._keep(source, bytes(rest))
        return pieces

    def cut_lines(self) -> list[Piece]:
        """What is held up to the last line end of each source; unfinished lines stay held."""
        return list(self._cut(lambda _, data: data.rfind(b"\n") + 1))

    def tick(self) -> list[Piece]:
        """Called at a steady interval: what is held up to the last line end of each source. An unfinished line is cut
        too if its source holds nothing else, except for an incomplete UTF-8 sequence, which gets PATIENCE ticks.
        """
        return list(self._cut(self._due))

    def cut_all(self) -> list[Piece]:
        """All that is held."""
        return list(self._cut(lambda _, data: len(data)))

    @property
    def holds(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    def _due(self, source: Source, data: bytes) -> int:
        end = data.rfind(b"\n") + 1 or len(data) - incomplete_tail(data)
        if end:
            return end
        self._patience[source] = self._patience.get(source, PATIENCE) - 1
        return 0 if self._patience[source] > 0 else len(data)

    def _cut(self, end_of: Callable[[Source, bytes], int]) -> Iterator[Piece]:
        for source, held in list(self._held.items()):
            data = b"".join(held)
            end = end_of(source, data)
            if end:
                yield self._piece(source, data[:end])
                self._keep(source, data[end:])

    def _piece(self, source: Source, data: bytes) -> Piece:
        piece = Piece(source, self._line, data)
        self._line += data.count(b"\n")
        return piece

    def _keep(self, source: Source, rest: bytes) -> None:
        self._patience.pop(source, None)
        if rest:
            self._held[source] = [rest]
            self._size[source] = len(rest)
        else:
            self._held.pop(source, None)
            self._size.pop(source, None)


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end (0 to 3) begin a UTF-8 sequence that is not complete yet; 0 if they cannot become valid
    UTF-8.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if byte < 0xF5 and back < needed else 0
    return 0
