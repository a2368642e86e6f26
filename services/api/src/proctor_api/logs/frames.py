"""The JSON frames of the websockets. No I/O."""

from datetime import UTC, datetime
from typing import Any

import orjson

from proctor_api.logs.order import Gap, LogPiece
from proctor_common.messages.views import AttemptLog, EventView

HEARTBEAT = '{"type":"heartbeat"}'


def instant(seconds: float) -> str:
    """Seconds since the epoch as ``2026-11-21T01:02:03.456789Z``; the epoch if they are out of range."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def chunk_body(piece: LogPiece, entry: AttemptLog) -> str:
    """The part of a chunk's frame that is the same for every viewer: everything after the cursor."""
    chunk = piece.chunk
    return (
        f'"step":{_text(entry.step)},"attempt":{entry.attempt},"time":"{instant(chunk.time)}",'
        f'"source":"{chunk.source.value}","first_line":{chunk.first_line},'
        # Invalid UTF-8 is shown as U+FFFD. The agent never splits a valid sequence between chunks.
        f'"text":{_text(chunk.data.decode("utf-8", "replace"))}}}'
    )


def chunk_frame(cursor: str, body: str) -> str:
    """The frame of a chunk; ``body`` is from :func:`chunk_body`."""
    return f'{{"type":"chunk","cursor":"{cursor}",{body}'


def gap_frame(cursor: str, gap: Gap, entry: AttemptLog) -> str:
    """The frame for lines that cannot be shown."""
    return _frame(
        "gap",
        cursor,
        {
            "step": entry.step,
            "attempt": entry.attempt,
            "from": gap.first,
            "to": gap.last,
            "bytes": gap.size,
            "reason": gap.reason.value,
        },
    )


def event_frame(cursor: str, event: EventView) -> str:
    """The frame of a state change; its type is ``run`` or ``step``."""
    # The event's own cursor is a number for controllers; viewers get the opaque one.
    rest = event.model_dump_json(exclude={"cursor"})[1:]
    return f'{{"type":{_text(event.kind)},"cursor":"{cursor}","state":{_text(event.new)},{rest}'


def end_frame(result: str | None) -> str:
    """The last frame; ``result`` is the run's."""
    return orjson.dumps({"type": "end", "result": result}).decode()


def _frame(kind: str, cursor: str, fields: dict[str, Any]) -> str:
    return orjson.dumps({"type": kind, "cursor": cursor, **fields}).decode()


def _text(value: str) -> str:
    return orjson.dumps(value).decode()
