"""What a decision reads (a slice of a run) and what it results in (rows to write, effects to perform). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.runs.events import Event
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.step import AttemptEnd, Edge, Node, Step

BATCH = 100
"""A decision touches at most so many steps of a run; more come as follow-ups."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of a run that one event is about, at most BATCH steps of it."""

    run: Run
    steps: tuple[Step, ...] = ()
    """The step of the event, or those that ``reach`` gives."""
    nodes: tuple[Node, ...] = ()
    """Those of ``steps``, and that of a NodeDecided."""
    edges: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    """Edges out of these nodes, by the source's name. Several may lead to one node."""
    more: bool = False
    """There are more steps within reach of the event."""
    scope: Mapping[str, Any] | None = None
    """What expressions of these steps may read; None if there are none to evaluate."""
    ending: bool = False
    """Whether ``scope`` has everything that the run's outputs read."""
    undone: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a rollback step undoes, by the rollback step's id."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Times and counts for decisions. Names that end in ``_s`` are seconds."""

    order_valid_s: float = 60.0
    resend_s: float = 5.0
    cancel_confirm_s: float = 60.0
    lost_grace_s: float = 600.0
    """How long an attempt of a lost agent may still be reported."""
    timeout_margin_s: float = 30.0
    """Time beyond a step's own timeout, which its agent enforces, until the controller stops it."""
    ready_due_s: float = 10.0
    requery_s: float = 15.0
    child_due_s: float = 15.0
    short_wait_s: float = 10.0
    """Waits before a retry up to this length are timed by the engine, longer ones by the watchdog."""
    allocate_s: float = 5.0
    max_refusals: int = 5
    """After so many agents refused it, the step ends in error."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One recorded state change. ``seq`` counts within the run without holes."""

    seq: int
    kind: str
    old: str | None
    new: str
    step: str | None = None
    step_name: str | None = None
    attempt: int | None = None
    host: str | None = None
    result: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt's row to be saved."""

    step: str
    attempt: int
    agent: str
    token: str
    state: StepState
    index: int | None = None
    """Its number in the run, in order of dispatch; set when the row is new."""
    result: StepResult | None = None
    reason: str = ""
    end: AttemptEnd | None = None
    """Set once it has ended."""
    reported: bool = False
    """Whether the end is one that its agent reported."""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class AttemptChanges(TypedDict, total=False):
    """Columns of an attempt's row that differ from its step's."""

    state: StepState
    index: int | None
    result: StepResult | None
    reason: str
    end: AttemptEnd | None
    reported: bool
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecordRow:
    """What a step's plan asks to store of its end for the Test API: one for each attempt, even if saved twice."""

    step: str
    attempt: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SlotHeld:
    """Claim a free slot of the agent for this attempt; if there is none, nothing is saved."""

    agent: str
    token: str
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SlotReleased:
    """The slot with this token is free again."""

    agent: str
    token: str


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Send the start order. ``sends``: how often it has been sent, this time included."""

    step: str
    attempt: int
    token: str
    agent: str
    sends: int
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Ask the agent to stop the attempt."""

    step: str
    attempt: int
    token: str
    agent: str
    cause: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class QueryAttempt:
    """Ask the agent what became of the attempt."""

    step: str
    attempt: int
    token: str
    agent: str


@dataclass(frozen=True, slots=True)
class PlaceStep:
    """Find an agent with a free slot for the step."""

    step: str


@dataclass(frozen=True, slots=True)
class LookLater:
    """Feed StepDue after this many seconds; the watchdog does so too, but only about once a second."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ServeQueue:
    """A slot of this agent is free: give it to the step that has waited longest for one like it."""

    agent: str


@dataclass(frozen=True, slots=True)
class StartChild:
    """Create the nested plan's run; if it exists, pause or resume it as its parent, or feed its end if it has ended."""

    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopChild:
    """Cancel the nested plan's run; if there is none yet, prevent its creation."""

    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Allocate:
    """Check whether the run may begin: its concurrency slot, its hosts, its volumes."""


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    """Release what the run has held, and offer it to others."""


@dataclass(frozen=True, slots=True)
class PlaceReady:
    """The run goes on: find agents for its steps that became ready meanwhile."""


@dataclass(frozen=True, slots=True)
class NotifyParent:
    """Notify the parent step that this run has begun, rests, goes on or has ended."""


@dataclass(frozen=True, slots=True)
class NotifyChildren:
    """The run rests or goes on: make the runs of its nested plans do the same."""


@dataclass(frozen=True, slots=True)
class RecordsWaiting:
    """There are records for the Test API to fetch."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Decide about this event next."""

    event: Event


Effect = (
    StartAttempt
    | CancelAttempt
    | QueryAttempt
    | PlaceStep
    | LookLater
    | ServeQueue
    | StartChild
    | StopChild
    | Allocate
    | ReleaseRun
    | PlaceReady
    | NotifyParent
    | NotifyChildren
    | RecordsWaiting
    | FollowUp
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows to save (each changed one as a whole), and effects to begin after the commit."""

    before: int
    """The run's version that the decision was made on; it is saved only if the row still has it."""
    run: Run
    steps: tuple[Step, ...] = ()
    nodes: tuple[Node, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    held: tuple[SlotHeld, ...] = ()
    released: tuple[SlotReleased, ...] = ()
    records: tuple[RecordRow, ...] = ()
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Stale:
    """The event changes nothing: it came twice, too late, or from an agent that does not hold the attempt."""

    why: str
    is_slot_gone: bool = False
    """Somebody else took the slot that the event offers; another one may be free."""
