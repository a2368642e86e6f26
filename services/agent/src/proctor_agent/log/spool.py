"""The agent's log bytes on disk: what a command prints is written here before it is sent.

An attempt's spool is a series of segment files ``<step>.<attempt>.<n>.spool``: a head of three numbers (offset up to
which the segment is acknowledged, ``seq`` of its first chunk, log bytes before it), then frames of a length and a
chunk's payload. Appended without fsync: the spool survives the process, not a power cut.
"""

import contextlib
import os
import re
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proctor_common.messages.base import BadMessage
from proctor_common.messages.log import MAX_DATA, Chunk, decode_chunk

SEGMENT_BYTES = 8 * 1024 * 1024
LAST_WORDS = 64 * 1024
"""Bytes above both limits for what must be said at the end of a log."""
LONGEST_FRAME = MAX_DATA + 1024
CLOSED = -1
_HEAD = struct.Struct(">QQQ")
_ACKED = struct.Struct(">Q")
_LENGTH = struct.Struct(">I")
_NAME = re.compile(r"^(?P<step>[A-Za-z0-9-]{1,64})\.(?P<attempt>\d{1,9})\.(?P<number>\d{1,9})\.spool\Z")


class SpoolFullError(Exception):
    """There is no room: the limit of the attempt or the agent is reached, or the disk is full."""


@dataclass(frozen=True, slots=True)
class FramePosition:
    """Where a frame begins."""

    segment: int
    offset: int


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    file: int
    size: int
    acked: int
    """Offset up to which all frames are acknowledged."""


@dataclass(frozen=True, slots=True)
class SpoolRemains:
    """What a former process left of an attempt's log."""

    last_seq: int
    line: int
    """The line of the next byte."""
    ends_with_line: bool
    """Whether the line before that byte has an end."""
    bytes: int
    """Bytes of log so far."""
    unsent: FramePosition | None
    """Where the first unacknowledged frame begins, whose chunk is ``unsent_seq``; None: all are acknowledged."""
    unsent_seq: int


class Spool:
    """All attempts' spools in one folder (created with mode 0700). Limits in bytes."""

    def __init__(self, folder: Path, *, limit: int, attempt_limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.attempt_limit = attempt_limit
        self.used = 0
        self._open: dict[tuple[str, int], AttemptSpool] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, step: str, attempt: int) -> "AttemptSpool":
        """The spool of an attempt that begins now; nothing is on disk before the first append."""
        spool = self.attempt(step, attempt)
        spool.complete = True
        return spool

    def attempt(self, step: str, attempt: int) -> "AttemptSpool":
        """The spool of one attempt. ``recover`` opens what a former process left of it."""
        key = (step, attempt)
        if key not in self._open:
            self._open[key] = AttemptSpool(self, step, attempt)
        return self._open[key]

    def left(self) -> set[tuple[str, int]]:
        """The attempts (step, attempt) that have files."""
        names = (_NAME.match(entry.name) for entry in self.folder.iterdir())
        return {(name["step"], int(name["attempt"])) for name in names if name}

    def forget(self, step: str, attempt: int) -> None:
        """Remove an attempt's files."""
        spool = self._open.pop((step, attempt), None)
        spool = spool or AttemptSpool(self, step, attempt)
        spool.remove()
        if not spool.complete:
            spool.remove_left()

    def reserve(self, spool: "AttemptSpool", size: int) -> None:
        """Make room for ``size`` bytes: remove acknowledged segments, the attempt's own first, then the oldest of all.
        Raises SpoolFullError.
        """
        while spool.used + size > self.attempt_limit:
            if not spool.drop_acknowledged():
                raise SpoolFullError("the attempt's spool is full")
        while self.used + size > self.limit:
            if not any(other.drop_acknowledged() for other in self._open.values()):
                raise SpoolFullError("the agent's spool is full")

    def close(self) -> None:
        """Close the files; their content stays."""
        for spool in self._open.values():
            spool.close()
        self._open.clear()


class AttemptSpool:
    """The spool of one attempt."""

    def __init__(self, owner: Spool, step: str, attempt: int) -> None:
        self.used = 0
        self.complete = False
        """Whether all files of the attempt are open here: it began, or was recovered, in this process."""
        self.ended = False
        """Whether nothing more will be appended: then its last segment may be removed too."""
        self._owner = owner
        self._stem = f"{step}.{attempt}"
        self._segments: deque[_Segment] = deque()

    def append(self, seq: int, payload: bytes, log_bytes: int, *, last_words: bool = False) -> FramePosition:
        """Write the payload of chunk ``seq``; ``log_bytes``: bytes of log in the chunks before it. ``last_words`` may
        exceed the limits a little. Raises SpoolFullError; then nothing was written.
        """
        size = _LENGTH.size + len(payload)
        self._owner.reserve(self, size - LAST_WORDS if last_words else size)
        try:
            if not self._segments or self._segments[-1].size >= SEGMENT_BYTES:
                self._begin_segment(seq, log_bytes)
            segment = self._segments[-1]
            self._write(segment, payload)
        except OSError as fault:
            raise SpoolFullError(f"cannot write the spool: {fault.strerror}") from fault
        place = FramePosition(segment.number, segment.size)
        segment.size += size
        self._count(size)
        return place

    def _begin_segment(self, seq: int, log_bytes: int) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._owner.folder / f"{self._stem}.{number}.spool"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if os.write(file, _HEAD.pack(_HEAD.size, seq, log_bytes)) != _HEAD.size:
                raise OSError(28, "no space left")
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._segments.append(_Segment(number, path, file, _HEAD.size, _HEAD.size))
        self._count(_HEAD.size)

    @staticmethod
    def _write(segment: _Segment, payload: bytes) -> None:
        size = _LENGTH.size + len(payload)
        written = os.pwritev(segment.file, [_LENGTH.pack(len(payload)), payload], segment.size)
        if written != size:
            # A frame is there as a whole or not at all.
            os.ftruncate(segment.file, segment.size)
            raise OSError(28, "no space left")

    def _count(self, size: int) -> None:
        self.used += size
        self._owner.used += size

    def read(self, place: FramePosition) -> tuple[bytes, FramePosition]:
        """The payload at a position, and where the next frame is (or will be). Raises LookupError: none there."""
        for segment in self._segments:
            if segment.number == place.segment and place.offset < segment.size:
                (length,) = _LENGTH.unpack(os.pread(segment.file, _LENGTH.size, place.offset))
                payload = os.pread(segment.file, length, place.offset + _LENGTH.size)
                return payload, FramePosition(segment.number, place.offset + _LENGTH.size + length)
            if segment.number == place.segment + 1 and segment.size > _HEAD.size:
                # The position is the end of the segment before.
                return self.read(FramePosition(segment.number, _HEAD.size))
        raise LookupError("no frame there")

    def acknowledge(self, place: FramePosition, length: int) -> None:
        """All frames up to this one (of a payload of ``length`` bytes), itself included, are stored in the stream."""
        for segment in self._segments:
            if segment.number > place.segment:
                return
            end = place.offset + _LENGTH.size + length if segment.number == place.segment else segment.size
            if end > segment.acked:
                segment.acked = end
                # Overwritten in place, so a full disk does not matter. If it fails all the same, the next process sends
                # again what the stream then recognizes by its message id.
                with contextlib.suppress(OSError):
                    os.pwrite(segment.file, _ACKED.pack(end), 0)

    def drop_acknowledged(self) -> bool:
        """Remove the oldest segment if all of it is acknowledged and it is not being written. Whether it was."""
        kept = 0 if self.ended else 1
        if len(self._segments) <= kept or self._segments[0].acked < self._segments[0].size:
            return False
        self._remove(self._segments.popleft())
        return True

    def recover(self) -> SpoolRemains | None:
        """Open what a former process left; None if there is nothing. A torn last frame is cut off."""
        paths = {
            int(name["number"]): path
            for path in self._owner.folder.glob(f"{self._stem}.*.spool")
            if (name := _NAME.match(path.name))
        }
        last: Chunk | None = None
        ends_with_line = True
        unsent: tuple[FramePosition, int] | None = None
        log_bytes = seq = 0
        for number in sorted(paths):
            file = os.open(paths[number], os.O_RDWR)
            head = os.pread(file, _HEAD.size, 0)
            if len(head) < _HEAD.size:
                os.close(file)
                paths[number].unlink()
                break
            acked, seq, log_bytes = _HEAD.unpack(head)
            segment = _Segment(number, paths[number], file, _HEAD.size, acked)
            self._segments.append(segment)
            for chunk, offset in _frames(file):
                last = chunk
                ends_with_line = chunk.data.endswith(b"\n") if chunk.data else ends_with_line
                log_bytes += len(chunk.data)
                if unsent is None and offset >= acked:
                    unsent = (FramePosition(number, offset), chunk.seq)
                segment.size = offset
                segment.size += _frame_size(file, offset)
            os.ftruncate(file, segment.size)
            self._count(segment.size)
        self.complete = True
        if not self._segments:
            return None
        return SpoolRemains(
            last_seq=last.seq if last else seq - 1,
            line=last.first_line + last.data.count(b"\n") if last else 1,
            ends_with_line=ends_with_line,
            bytes=log_bytes,
            unsent=unsent[0] if unsent else None,
            unsent_seq=unsent[1] if unsent else 0,
        )

    def seal(self) -> None:
        """All is acknowledged and nothing more comes: keep the files but close them, as hundreds of ends may wait for
        their confirmation.
        """
        for segment in self._segments:
            _close(segment)

    def remove(self) -> None:
        """Remove the files of this process's segments."""
        while self._segments:
            self._remove(self._segments.popleft())

    def remove_left(self) -> None:
        """Remove the files that a former process left."""
        for path in self._owner.folder.glob(f"{self._stem}.*.spool"):
            path.unlink(missing_ok=True)

    def _remove(self, segment: _Segment) -> None:
        _close(segment)
        segment.path.unlink(missing_ok=True)
        self._count(-segment.size)

    def close(self) -> None:
        """Close the files; their content stays."""
        self.complete = False
        while self._segments:
            segment = self._segments.popleft()
            _close(segment)
            self._count(-segment.size)


def _close(segment: _Segment) -> None:
    if segment.file >= 0:
        os.close(segment.file)
        segment.file = CLOSED


def _frame_size(file: int, offset: int) -> int:
    (length,) = _LENGTH.unpack(os.pread(file, _LENGTH.size, offset))
    return _LENGTH.size + int(length)


def _frames(file: int) -> Iterator[tuple[Chunk, int]]:
    """The complete frames of a segment and their offsets, up to the first that is torn or no chunk."""
    offset = _HEAD.size
    while True:
        head = os.pread(file, _LENGTH.size, offset)
        if len(head) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack(head)
        if length > LONGEST_FRAME:
            return
        payload = os.pread(file, length, offset + _LENGTH.size)
        if len(payload) < length:
            return
        try:
            chunk = decode_chunk(payload)
        except BadMessage:
            return
        yield chunk, offset
        offset += _LENGTH.size + length
