"""Orders of a controller to an agent (core request/reply) and their answers.

``start`` is committed to the agent's journal before it is answered; a known attempt gets its stored answer. An order
without an answer is repeated to the same agent with the same attempt and token. A cancel or query of an attempt that
the agent never started writes a tombstone: it will never start.
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
    """Lease token: every report on the attempt has it, so that reports of former leases are refused."""
    not_after: datetime
    """The order may be accepted until then."""
    plugin: str
    method: str
    parameters: JsonObject = {}
    secrets: list[str] = []
    """Values that must never be shown: the agent masks them in everything it sends."""
    env: dict[str, str] = {}
    target: str | None = None
    """Name of one of the agent's SSH endpoints; None: its default."""
    artefacts: list[str] = []
    """Patterns of files on the target; the output lists matching files as ``artefacts``."""
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    log_limit: int = 2 * 1024**3
    """Bytes of log to keep of this attempt; the rest is only counted and announced."""


class StartAnswer(StrEnum):
    """An agent's answer to a start order. Only ``accepted`` means that it runs or has run."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    """No slot, no journal room, or draining: try later or elsewhere. The agent does not store this."""
    EXPIRED = "expired"
    """After ``not_after``; a tombstone is written."""
    TOMBSTONED = "tombstoned"
    """Cancelled or queried before it arrived: never started and never will be."""
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
    """cancelled | timed_out: the result at the attempt's end."""
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
    """Take no new work (or take it again); running attempts continue."""

    v: int = VERSION
    draining: bool


class DrainReply(WireMessage):
    """An agent's answer to a drain order: whether it is draining now."""

    v: int = VERSION
    draining: bool


MAX_PIECE = 512 * 1024
"""Bytes of a file in one answer, where they are base64."""


class ReadOrder(WireMessage):
    """Read a part of a file on a target; a step's end has named the file as an artefact."""

    v: int = VERSION
    target: str | None = None
    path: str
    offset: int = Field(ge=0)
    length: int = Field(ge=0, le=MAX_PIECE)


class ReadOutcome(StrEnum):
    """The outcome of a read."""

    READ = "read"
    GONE = "gone"
    """There is no such file (any more)."""
    UNREACHABLE = "unreachable"
    """The target cannot be asked: ``reason`` says why."""


class ReadReply(WireMessage):
    """A part of a file."""

    v: int = VERSION
    outcome: ReadOutcome
    reason: str = ""
    size: int = 0
    """Current size of the whole file in bytes."""
    data: str = ""
    """The part, as base64; shorter than requested at the file's end."""
