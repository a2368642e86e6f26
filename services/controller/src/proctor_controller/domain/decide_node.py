"""Decisions about a node whose edges are decided: its instances are told, and go on or end. Pure."""

from typing import Any

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.decide_stop import stop_step
from proctor_controller.domain.decision import FollowUp, PlaceStep, Stale
from proctor_controller.domain.draft import Draft
from proctor_controller.domain.events import NodeDecided
from proctor_controller.domain.run import DISPATCHING
from proctor_controller.domain.step import Cause, Step

FAIL_FAST = "another instance failed (fail_fast)"


def decide_node(draft: Draft, event: NodeDecided, more: bool) -> Stale | None:
    """The node's edges are decided: its instances go on, or end because an edge cannot hold. The slice holds as many
    as ``max_parallel`` leaves room for; where one has failed and ``fail_fast`` stops the others: all unfinished ones.
    """
    node = draft.node(event.node)
    if node.due_at is None:
        return Stale("the node's steps have been told")
    if draft.run.cause is not None:
        return Stale("the run is being ended")
    if node.is_stopping:
        _stop_instances(draft)
    else:
        tell_pending(draft)
    if more and (node.is_stopping or draft.node(event.node).room > 0):
        draft.effect(FollowUp(event))
    else:
        draft.close_node(event.node)
    return None


def _stop_instances(draft: Draft) -> None:
    for step in draft.steps:
        stop_step(draft, step, Cause.CANCELLED, reason=FAIL_FAST)


def tell_pending(draft: Draft) -> None:
    """Tell the slice's pending steps that their edges are decided; of a node with ``max_parallel`` those it has room
    for.
    """
    for step in draft.steps:
        if step.state is not StepState.PENDING:
            continue
        node = draft.node(step.node)
        if node.dead:
            draft.finish_step(step.id, StepResult.UPSTREAM_FAILED)
        elif node.is_stopping:
            draft.finish_step(step.id, StepResult.CANCELLED, reason=FAIL_FAST)
        elif node.room > 0:
            make_ready(draft, step)


def make_ready(draft: Draft, step: Step, *, place: bool = True, **changes: Any) -> None:
    """The step may go to an agent as soon as one has room; ``place``: look for one at once."""
    draft.move_step(
        step.id,
        StepState.READY,
        token=None,
        agent=None,
        deadline=None,
        started_at=None,
        ready_at=step.ready_at or draft.now,
        due_at=draft.after(draft.policy.ready_due_s),
        **changes,
    )
    if place and draft.run.state in DISPATCHING:
        draft.effect(PlaceStep(step.id))
