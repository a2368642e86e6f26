"""The marker line, with which a command says that it starts: found in what its channel brings, taken out. No I/O."""

from dataclasses import dataclass

from proctor_common.states import Source


@dataclass(frozen=True, slots=True)
class Started:
    """What a marker line says: the process, its group, its start time in clock ticks (0: unknown), and the boot of the
    target that it belongs to ("": unknown).
    """

    pid: int
    pgid: int
    started: int
    boot: str = ""


class MarkerFilter:
    """Takes the marker line out of the first bytes of standard output, wherever a login shell's start-up files put
    their own output. What precedes the line is ``noise``.
    """

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._held = b""
        self.found = False
        self.started: Started | None = None
        self.no_directory = False
        self.refused_name = ""
        """The environment variable for which the command was not started."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Noise and the program's own bytes, as far as they can be told apart yet."""
        if self.found:
            return b"", data
        held = self._held + data
        at = held.find(self._tag)
        if at < 0:
            keep = min(len(held), len(self._tag) - 1)
            self._held = held[len(held) - keep :]
            return held[: len(held) - keep], b""
        end = held.find(b"\n", at)
        if end < 0:
            self._held = held[at:]
            return held[:at], b""
        self._held, self.found = b"", True
        self._read(held[at + len(self._tag) : end])
        return held[:at], held[end + 1 :]

    def rest(self) -> bytes:
        """What was held back when the stream ended: noise."""
        held, self._held = self._held, b""
        return held

    def _read(self, line: bytes) -> None:
        if line == b"cwd":
            self.no_directory = True
            return
        fields = line.decode("ascii", "replace").split()
        if fields[:1] == ["env"]:
            self.refused_name = fields[1] if len(fields) > 1 else "?"
        elif len(fields) > 2 and fields[0].isdigit() and fields[1].isdigit():
            # Fields 6 and up of /proc/<pid>/stat follow the group and the boot; field 22 is the start time.
            started = int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else 0
            self.started = Started(int(fields[0]), int(fields[1]), started, fields[2] if fields[2] != "0" else "")
        elif fields and fields[0].isdigit():
            self.started = Started(int(fields[0]), int(fields[0]), 0)


class Start:
    """Looks for the marker line on both streams: start-up files may have sent the one to where the other goes."""

    def __init__(self, tag: bytes) -> None:
        self._filters = {Source.STDOUT: MarkerFilter(tag), Source.STDERR: MarkerFilter(tag)}
        self.line: MarkerFilter | None = None
        """The filter that has found it."""

    def feed(self, source: Source, data: bytes) -> list[tuple[Source, bytes]]:
        """What is for the log: before the line, what standard output brings is nobody's, or rather the system's."""
        mine = self._filters[source]
        noise, own = mine.feed(data)
        found: list[tuple[Source, bytes]] = []
        if noise:
            found.append((_before(source), noise))
        if mine.found:
            self.line = mine
            found.extend(self.rest())
        if own:
            found.append((source, own))
        return found

    def rest(self) -> list[tuple[Source, bytes]]:
        """What was held back when the line was found, or the streams ended."""
        held = [(_before(source), each.rest()) for source, each in self._filters.items()]
        return [(source, data) for source, data in held if data]


def _before(source: Source) -> Source:
    return Source.SYSTEM if source is Source.STDOUT else source
