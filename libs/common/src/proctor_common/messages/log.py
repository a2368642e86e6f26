"""Log chunks: one line of JSON, a newline, then the raw bytes, without any encoding.

The subject names agent, run, step and attempt; the message id is ``<step>.<attempt>:<seq>`` (JetStream removes
duplicates by id over the whole stream, whatever the subject).
"""

import json
from dataclasses import dataclass

from proctor_common.messages.base import BadMessage
from proctor_common.states import GapReason, Source

MAX_DATA = 64 * 1024
"""At most so many bytes of log in one chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an attempt's log."""

    seq: int
    """1, 2, 3 … without holes within the attempt."""
    first_line: int
    """The line of the first byte, from 1."""
    time: float
    """Seconds since the epoch at which the agent read it."""
    source: Source
    data: bytes
    """At most MAX_DATA bytes, never cut inside a UTF-8 sequence; empty in a gap."""
    gap: GapReason | None = None
    """Why bytes are missing here; None if the chunk has data."""
    dropped: int = 0
    """Number of bytes missing in a gap."""

    def encode(self) -> bytes:
        """The message's payload."""
        head: dict[str, object] = {
            "q": self.seq,
            "l": self.first_line,
            "t": self.time,
            "s": self.source.value,
        }
        if self.gap is not None:
            head["g"] = self.gap.value
            head["n"] = self.dropped
        return b"%s\n%s" % (json.dumps(head, separators=(",", ":")).encode(), self.data)


def decode_chunk(payload: bytes) -> Chunk:
    """The chunk in a payload. Raises BadMessage."""
    head, sep, data = payload.partition(b"\n")
    try:
        if not sep or len(head) > 512:
            raise ValueError("no head")
        fields = json.loads(head)
        gap = fields.get("g")
        chunk = Chunk(
            seq=int(fields["q"]),
            first_line=int(fields["l"]),
            time=float(fields["t"]),
            source=Source(fields["s"]),
            data=data,
            gap=None if gap is None else GapReason(gap),
            dropped=int(fields.get("n", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as fault:
        raise BadMessage(f"not a log chunk: {type(fault).__name__}") from None
    if chunk.seq < 1 or chunk.first_line < 1 or len(data) > MAX_DATA:
        raise BadMessage("not a log chunk: numbers out of range")
    return chunk


def message_id(step: str, attempt: int, seq: int) -> str:
    """JetStream's id against duplicates; unique in the whole stream."""
    return f"{step}.{attempt}:{seq}"
