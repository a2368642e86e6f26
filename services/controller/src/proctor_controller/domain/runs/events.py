"""What the engine decides about: facts about one run, one node or one step. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proctor_common.states import RunResult
from proctor_controller.domain.runs.step import AttemptEnd


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent that seems to have a free slot. The slot is claimed under the lease ``token`` by the same statement
    that saves the decision: where another one was quicker, nothing is saved.
    """

    agent: str
    host: str
    token: str


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A run was asked for. ``run``, here as in every event: its id."""

    run: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody asks for the end of the run."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Somebody asks the run to rest: no further attempt starts, live ones go on to their end."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Somebody asks a run that rests, or is about to, to go on."""

    run: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class HostsHeld:
    """The run has all that it waits for: it begins."""

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
    """No agent can take the step now; ``why`` says what it waits for. ``never``: none ever will."""

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
    """An event of one attempt, which counts only while the step holds the lease ``token``."""

    run: str
    step: str
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class OrderAnswered(OfAttempt):
    """An agent answered a start order. ``sends``: how often it had been sent as far as the asker knows; ``ago``: for
    how many seconds the answer has been there already.
    """

    answer: OrderAnswer
    sends: int = 1
    reason: str = ""
    ago: float = 0.0


@dataclass(frozen=True, slots=True)
class OrderUndelivered(OfAttempt):
    """Nobody listened: this copy of the order reached no one."""

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
    """The agent has said that it never started the attempt and never will (a tombstone is in its journal)."""


@dataclass(frozen=True, slots=True)
class StillRunning(OfAttempt):
    """The agent has said that the attempt is alive (or is being stopped)."""


@dataclass(frozen=True, slots=True)
class Forgotten(OfAttempt):
    """The agent has said that the end was confirmed to it already, but this controller has no such end."""


@dataclass(frozen=True, slots=True)
class RenderFailed(OfAttempt):
    """The order could not be put together: an expression failed, or what came out is not what the method takes."""

    reason: str
    sends: int = 1


@dataclass(frozen=True, slots=True)
class GateDecided:
    """Somebody whose role the gate asks for has approved or refused it."""

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
    """The step's agent has not been heard of for too long."""

    run: str
    step: str
    agent: str


@dataclass(frozen=True, slots=True)
class AgentReturned:
    """The step's agent is heard of again."""

    run: str
    step: str
    agent: str


@dataclass(frozen=True, slots=True)
class StepDue:
    """The watchdog looks at a step: deadlines, and effects that a crash left unperformed."""

    run: str
    step: str


OfStep = LeasesHeld | NoSlot | OfAttempt | GateDecided | ChildEnded | ChildRests | AgentLost | AgentReturned | StepDue
OfRun = RunCreated | CancelAsked | PauseAsked | ResumeAsked | HostsHeld | MustWait | CannotBegin | RunDue | NodeDecided
Event = OfRun | OfStep
