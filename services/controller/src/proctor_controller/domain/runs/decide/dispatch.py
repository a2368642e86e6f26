"""The core of the engine: a pure function from a slice of a run and an event to a decision."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from proctor_common.states import RunState
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.completion import settle_run
from proctor_controller.domain.runs.decide import child, gate, node, run, step
from proctor_controller.domain.runs.decision import Decision, Policy, Slice, Stale
from proctor_controller.domain.runs.decision_builder import Draft

POLICY = Policy()
Decider = Callable[[Draft, Any], Stale | None]

_OF_RUN: dict[type, Decider] = {
    events.CancelAsked: run.decide_cancel,
    events.PauseAsked: run.decide_pause,
    events.ResumeAsked: run.decide_resume,
    events.MustWait: run.decide_must_wait,
    events.CannotBegin: run.decide_cannot_begin,
}
_WITH_MORE: dict[type, Callable[[Draft, Any, bool], Stale | None]] = {
    events.RunCreated: run.decide_created,
    events.HostsHeld: run.decide_held,
    events.RunDue: run.decide_due,
    events.NodeDecided: node.decide_node,
}
_OF_STEP: dict[type, Decider] = {
    events.LeasesHeld: step.decide_leases_held,
    events.NoSlot: step.decide_no_slot,
    events.OrderAnswered: step.decide_answer,
    events.OrderUndelivered: step.decide_undelivered,
    events.OrderUnknown: step.decide_unknown,
    events.StepEnded: step.decide_ended,
    events.NeverStarted: step.decide_never_started,
    events.StillRunning: step.decide_still_running,
    events.Forgotten: step.decide_forgotten,
    events.RenderFailed: step.decide_render_failed,
    events.GateDecided: gate.decide_gate,
    events.ChildEnded: child.decide_child_ended,
    events.ChildRests: child.decide_child_rests,
    events.AgentLost: step.decide_agent_lost,
    events.AgentReturned: step.decide_agent_returned,
    events.StepDue: step.decide_due,
}


def decide(part: Slice, event: events.Event, now: datetime, policy: Policy = POLICY) -> Decision | Stale:
    """What follows from ``event`` for the rows of ``part``.

    Stale: it changes nothing. The cost depends on the slice only, never on the size of the run.
    """
    if part.run.state is RunState.FINISHED:
        return Stale("the run has finished")
    draft = Draft(part, now, policy)
    kind = type(event)
    if kind in _WITH_MORE:
        stale = _WITH_MORE[kind](draft, event, part.more)
    elif kind in _OF_RUN:
        stale = _OF_RUN[kind](draft, event)
    else:
        stale = _OF_STEP[kind](draft, event) if part.steps else Stale("no such step")
    if stale is not None:
        return stale
    settle_run(draft)
    return draft.decision()
