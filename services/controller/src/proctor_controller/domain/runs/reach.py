"""Which steps of a run an event is about. The database code answers by SQL, the property tests by lists. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import BATCH
from proctor_controller.domain.runs.run import UNSTARTED, Run, is_over
from proctor_controller.domain.runs.step import Node, Phase


class Reached(Enum):
    """A kind of steps."""

    NONE = auto()
    NOTIFIABLE = auto()
    """Pending ones of a phase, of nodes whose edges are decided."""
    UNFINISHED = auto()
    """Those of a phase that have not finished and are not being cancelled."""
    PENDING_OF_NODE = auto()
    UNFINISHED_OF_NODE = auto()
    """Those of a node that have not finished and are not being cancelled."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The first ``limit`` of the steps, in the order of the document."""

    steps: Reached
    of: str = ""
    """The phase, or the node's name."""
    limit: int = BATCH


def reach(event: events.OfRun, run: Run, node: Node | None, now: datetime) -> Reach:
    """What a decision about ``event`` may read and change besides the run. ``node``: that of a NodeDecided."""
    if node is not None:
        if node.is_stopping:
            return Reach(Reached.UNFINISHED_OF_NODE, node.name)
        limit = BATCH if node.dead else max(0, min(BATCH, node.room))
        return Reach(Reached.PENDING_OF_NODE, node.name, limit)
    match event:
        case events.PauseAsked() | events.ResumeAsked() | events.MustWait():
            return Reach(Reached.NONE)
        case events.CancelAsked() | events.CannotBegin():
            return Reach(Reached.UNFINISHED, Phase.MAIN)
    if is_over(run, run.phase, now):
        return Reach(Reached.UNFINISHED, run.phase)
    if run.state in UNSTARTED and not run.wants.is_plain and not isinstance(event, events.HostsHeld):
        return Reach(Reached.NONE)
    return Reach(Reached.NOTIFIABLE, run.phase)
