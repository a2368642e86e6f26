"""The events that the engine decides about: facts about one run, one node or one step. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proctor_common.states import RunResult
from proctor_controller.domain.runs.step import AttemptEnd


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent that seems to have a free slot. The statement that saves the decision claims the slot under the lease
    ``token``; if another step was faster, nothing is saved.
    """

    agent: str
    host: str
    token: str


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A run was submitted. ``run``, here as in every event: its id."""

    run: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A user asks to cancel the run."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """A user asks to pause the run: no further attempt starts, live ones go on to their end."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """A user asks to resume a run that is paused, or about to be."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class HostsHeld:
    """The run has everything that it waits for: it begins."""

    run: str


@dataclass(frozen=True, slots=True)
class MustWait:
    """The run has to wait; ``why`` says what for. ``admitted``: it has its concurrency slot, and waits for the rest."""

    run: str
    why: str
    admitted: bool = False


@dataclass(frozen=True, slots=True)
class CannotBegin:
    """A requirement of the run can never be met, or there is no concurrency slot (``rejected``)."""

    run: str
    why: str
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class RunDue:
    """The watchdog looks at a run: timeouts, and work that a crash left half done."""

    run: str


@dataclass(frozen=True, slots=True)
class NodeDecided:
    """All edges into a node are decided, or one can no longer hold: its instances go on or end."""

    run: str
    node: str


@dataclass(frozen=True, slots=True)
class LeasesHeld:
    """There is a slot for a step that is ready or waits."""

    run: str
    step: str
    offer: Offer


@dataclass(frozen=True, slots=True)
class NoSlot:
    """No agent can take the step now; ``why`` says what it waits for. ``never``: no agent ever will."""

    run: str
    step: str
    why: str
    never: bool = False


class OrderAnswer(StrEnum):
    """An agent's answer to a start order."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    EXPIRED = "expired"
    TOMBSTONED = "tombstoned"
    STALE = "stale"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class OfAttempt:
    """An event of one attempt, valid only while the step holds the lease ``token``."""

    run: str
    step: str
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class OrderAnswered(OfAttempt):
    """An agent answered a start order. ``sends``: how often it had been sent as far as the sender knows; ``ago``:
    seconds since the answer arrived.
    """

    answer: OrderAnswer
    sends: int = 1
    reason: str = ""
    ago: float = 0.0


@dataclass(frozen=True, slots=True)
class OrderUndelivered(OfAttempt):
    """Nobody listened: this copy of the order reached nobody."""

    sends: int = 1


@dataclass(frozen=True, slots=True)
class OrderUnknown(OfAttempt):
    """No answer: the order may have arrived or not."""


@dataclass(frozen=True, slots=True)
class StepEnded(OfAttempt):
    """An agent reports the end of an attempt."""

    agent: str
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class NeverStarted(OfAttempt):
    """The agent answered that it never started the attempt and never will (its journal has a tombstone)."""


@dataclass(frozen=True, slots=True)
class StillRunning(OfAttempt):
    """The agent answered that the attempt is alive (or is being stopped)."""


@dataclass(frozen=True, slots=True)
class Forgotten(OfAttempt):
    """The agent answered that the end was confirmed to it already, but it is not stored here."""


@dataclass(frozen=True, slots=True)
class RenderFailed(OfAttempt):
    """The order could not be made: an expression failed, or the result does not fit the method."""

    reason: str
    sends: int = 1


@dataclass(frozen=True, slots=True)
class GateDecided:
    """A user whose role the gate asks for has approved or rejected it."""

    run: str
    step: str
    approved: bool
    by: str = ""


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The run of a nested plan has ended, or could not be begun. ``child``: its id."""

    run: str
    step: str
    attempt: int
    child: str
    result: RunResult
    outputs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ChildRests:
    """The run of a nested plan rests: it is paused, or waits to begin while its parent rests. ``why``: what it waits
    for; None: it goes on.
    """

    run: str
    step: str
    attempt: int
    why: str | None


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The step's agent has sent no heartbeat for too long."""

    run: str
    step: str
    agent: str


@dataclass(frozen=True, slots=True)
class AgentReturned:
    """The step's agent sends heartbeats again."""

    run: str
    step: str
    agent: str


@dataclass(frozen=True, slots=True)
class StepDue:
    """The watchdog looks at a step: deadlines, and effects that a crash may have prevented."""

    run: str
    step: str


OfStep = LeasesHeld | NoSlot | OfAttempt | GateDecided | ChildEnded | ChildRests | AgentLost | AgentReturned | StepDue
OfRun = RunCreated | CancelAsked | PauseAsked | ResumeAsked | HostsHeld | MustWait | CannotBegin | RunDue | NodeDecided
Event = OfRun | OfStep
