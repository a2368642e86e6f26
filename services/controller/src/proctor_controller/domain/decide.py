"""The engine: one pure function from a slice of a run and an event to what has to be written and done."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from proctor_common.states import RunState
from proctor_controller.domain import decide_child, decide_gate, decide_node, decide_run, decide_step, events
from proctor_controller.domain.decision import Decision, Policy, Slice, Stale
from proctor_controller.domain.draft import Draft
from proctor_controller.domain.settling import settle_run
from proctor_controller.domain.step import Edge, Node

POLICY = Policy()
Decider = Callable[[Draft, Any], Stale | None]

_OF_RUN: dict[type, Decider] = {
    events.CancelAsked: decide_run.decide_cancel,
    events.PauseAsked: decide_run.decide_pause,
    events.ResumeAsked: decide_run.decide_resume,
    events.NotYet: decide_run.decide_not_yet,
    events.Never: decide_run.decide_never,
}
_WITH_MORE: dict[type, Callable[[Draft, Any, bool], Stale | None]] = {
    events.RunCreated: decide_run.decide_created,
    events.HostsHeld: decide_run.decide_held,
    events.RunDue: decide_run.decide_due,
    events.NodeDecided: decide_node.decide_node,
}
_OF_STEP: dict[type, Decider] = {
    events.LeasesHeld: decide_step.decide_leases_held,
    events.NoSlot: decide_step.decide_no_slot,
    events.OrderAnswered: decide_step.decide_answer,
    events.OrderUndelivered: decide_step.decide_undelivered,
    events.OrderUnknown: decide_step.decide_unknown,
    events.StepEnded: decide_step.decide_ended,
    events.NeverStarted: decide_step.decide_never_started,
    events.StillRunning: decide_step.decide_still_running,
    events.Forgotten: decide_step.decide_forgotten,
    events.RenderFailed: decide_step.decide_render_failed,
    events.GateDecided: decide_gate.decide_gate,
    events.ChildEnded: decide_child.decide_child_ended,
    events.ChildRests: decide_child.decide_child_rests,
    events.AgentLost: decide_step.decide_agent_lost,
    events.AgentReturned: decide_step.decide_agent_returned,
    events.StepDue: decide_step.decide_due,
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


def apply(part: Slice, decision: Decision) -> Slice:
    """The slice as it stands after the decision, to decide about another event before anything is saved."""
    steps = {step.id: step for step in decision.steps}
    nodes = {node.name: node for node in decision.nodes}
    return replace(
        part,
        run=decision.run,
        steps=tuple(steps.get(step.id, step) for step in part.steps),
        nodes=tuple(nodes.get(node.name, node) for node in part.nodes),
        edges={
            name: tuple(replace(edge, target=nodes.get(edge.target.name, edge.target)) for edge in edges)
            for name, edges in part.edges.items()
        },
    )


def join(first: Decision, second: Decision, *, done: tuple[type, ...] = ()) -> Decision:
    """Two decisions, made one after the other, as one; without the first one's effects of the kinds ``done``."""
    steps = {step.id: step for step in (*first.steps, *second.steps)}
    nodes = {node.name: node for node in (*first.nodes, *second.nodes)}
    attempts = {(row.step, row.attempt): row for row in (*first.attempts, *second.attempts)}
    return Decision(
        before=first.before,
        run=replace(second.run, version=first.before + 1),
        steps=tuple(steps.values()),
        nodes=tuple(nodes.values()),
        attempts=tuple(attempts.values()),
        events=(*first.events, *second.events),
        held=(*first.held, *second.held),
        released=(*first.released, *second.released),
        records=(*first.records, *second.records),
        effects=(*(effect for effect in first.effects if not isinstance(effect, done)), *second.effects),
    )


def after(part: Slice, decision: Decision) -> Slice:
    """Another step's slice of the same moment, as it stands after the decision."""
    changed = {node.name: node for node in decision.nodes}
    return replace(
        part,
        run=decision.run,
        nodes=tuple(as_changed(node, changed) for node in part.nodes),
        edges={name: edges_as_changed(edges, changed) for name, edges in part.edges.items()},
    )


def as_changed(node: Node, changed: Mapping[str, Node]) -> Node:
    """The node as a decision leaves it that may have seen only a part of its columns."""
    known = changed.get(node.name)
    if known is None:
        return node
    return replace(
        node,
        unfinished=known.unfinished,
        failed=known.failed,
        undecided=known.undecided,
        dead=known.dead,
        due_at=known.due_at,
        untold=known.untold,
    )


def edges_as_changed(edges: Iterable[Edge], changed: Mapping[str, Node]) -> tuple[Edge, ...]:
    return tuple(replace(edge, target=as_changed(edge.target, changed)) for edge in edges)
