"""Orders of a controller to an agent (core request/reply) and their answers.

``start`` is committed to the agent's journal before it is answered; a known attempt gets its stored answer. An
order without an answer is repeated to the same agent with the same attempt and token. A cancel or query of an
attempt that the agent never started writes a tombstone: it never will.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from proctor_common.messages.base import VERSION, JsonObject, WireMessage
from proctor_common.messages.events import StepFinished


class StartOrder(WireMessage):
    """Run one method once. Times by the controller's clock (the agent knows its offset); durations in seconds."""

    v: int = VERSION
    run: str
    run_number: int
    step: str
    step_name: str
    attempt: int = Field(ge=1)
    token: str
    """Lease token: the fence. Every report about the attempt carries it."""
    not_after: datetime
    """The order may be accepted until then."""
    plugin: str
    method: str
    parameters: JsonObject = {}
    secrets: list[str] = []
    """Values that must never be shown: the agent masks them in everything it sends."""
    env: dict[str, str] = {}
    target: str | None = None
    """Name of one of the agent's SSH endpoints; None = its default."""
    artefacts: list[str] = []
    """Patterns of files on the target; what they match stands in the output as ``artefacts``."""
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    log_limit: int = 2 * 1024**3
    """Bytes of log that are kept of this attempt; the rest is counted and announced."""


class StartAnswer(StrEnum):
    """What an agent says to a start order. Only ``accepted`` means that it runs or has run."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    """No slot, no journal room, or draining: try later or elsewhere; the agent has not stored it."""
    EXPIRED = "expired"
    """After ``not_after``; a tombstone is written."""
    TOMBSTONED = "tombstoned"
    """Cancelled or asked for before it arrived: never started, never will."""
    STALE = "stale"
    """The same step and attempt is known under another token."""
    REFUSED = "refused"
    """No such plugin, method or target, or the parameters break the schema: ``reason`` says which; tombstoned."""


class StartReply(WireMessage):
    """An agent's answer to a start order."""

    v: int = VERSION
    answer: StartAnswer
    reason: str = ""


class CancelOrder(WireMessage):
    """Stop an attempt: SIGTERM to its process group, ``grace_s`` seconds, SIGKILL, look again, report."""

    v: int = VERSION
    run: str
    step: str
    attempt: int
    token: str
    cause: str = "cancelled"
    """cancelled | timed_out: the result that the attempt's end will carry."""
    grace_s: float = 10.0


class QueryOrder(WireMessage):
    """Ask what became of an attempt."""

    v: int = VERSION
    run: str
    step: str
    attempt: int
    token: str


class AttemptStanding(StrEnum):
    """What an agent knows of an attempt."""

    NEVER = "never"
    """Never started, never will: a tombstone is in the journal."""
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    CONFIRMED = "confirmed"
    """Finished, and the controller had confirmed the end already."""


class StandingReply(WireMessage):
    """Answer to cancel and query; ``end`` is there when the standing is finished."""

    v: int = VERSION
    standing: AttemptStanding
    end: StepFinished | None = None


class DrainOrder(WireMessage):
    """Take no new work (or take it again); running attempts go on."""

    v: int = VERSION
    draining: bool


class DrainReply(WireMessage):
    """An agent's answer to a drain order: whether it drains now."""

    v: int = VERSION
    draining: bool


MAX_PIECE = 512 * 1024
"""Bytes of a file in one answer: it is on the bus as base64."""


class ReadOrder(WireMessage):
    """Read a piece of a file on a target; the file is one that a step's end named as an artefact."""

    v: int = VERSION
    target: str | None = None
    path: str
    offset: int = Field(ge=0)
    length: int = Field(ge=0, le=MAX_PIECE)


class ReadOutcome(StrEnum):
    """What became of a read."""

    READ = "read"
    GONE = "gone"
    """There is no such file (any more)."""
    UNREACHABLE = "unreachable"
    """The target cannot be asked: ``reason`` says why."""


class ReadReply(WireMessage):
    """A piece of a file."""

    v: int = VERSION
    outcome: ReadOutcome
    reason: str = ""
    size: int = 0
    """Bytes of the whole file now."""
    data: str = ""
    """The piece, as base64; shorter than asked for at the file's end."""
