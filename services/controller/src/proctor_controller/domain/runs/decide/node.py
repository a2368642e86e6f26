"""Decisions about a node whose edges are decided: its instances are notified, and go on or end. Pure."""

from collections.abc import Mapping
from typing import Any, Unpack

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.expressions.evaluate import ExpressionFault, holds
from proctor_controller.domain.runs.decide.child import begin_child
from proctor_controller.domain.runs.decide.gate import open_gate
from proctor_controller.domain.runs.decide.stop import stop_step
from proctor_controller.domain.runs.decision import FollowUp, PlaceStep, Stale
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import NodeDecided
from proctor_controller.domain.runs.run import is_over, may_dispatch
from proctor_controller.domain.runs.step import Cause, Phase, Step, StepCounts, StepKind
from proctor_controller.domain.runs.step_rules import SKIP_NO_CELL
from proctor_controller.domain.runs.verdict import describe

FAIL_FAST = "another instance failed (fail_fast)"


def decide_node(draft: Draft, event: NodeDecided, more: bool) -> Stale | None:
    """The node's edges are decided: its instances go on, or end because an edge cannot hold. The slice has as many as
    ``max_parallel`` allows; all unfinished ones if one has failed and ``fail_fast`` stops the others.
    """
    node = draft.node(event.node)
    if node.due_at is None:
        return Stale("the node's steps have been notified")
    if draft.run.phase is not node.phase or is_over(draft.run, node.phase, draft.now):
        return Stale("its steps are notified one by one, or not yet")
    if node.is_stopping:
        _stop_instances(draft)
    else:
        notify_pending(draft)
    if more and (node.is_stopping or draft.node(event.node).room > 0):
        draft.effect(FollowUp(event))
    else:
        draft.close_node(event.node)
    return None


def _stop_instances(draft: Draft) -> None:
    for step in draft.steps:
        stop_step(draft, step, Cause.CANCELLED, reason=FAIL_FAST)


def notify_pending(draft: Draft) -> None:
    """Let the slice's pending steps go on or end, as their edges are decided, up to ``max_parallel``."""
    for step in draft.steps:
        if step.state is not StepState.PENDING:
            continue
        node = draft.node(step.node)
        if step.phase is Phase.ROLLBACK and not _has_passed(draft.undone(step.id)):
            draft.finish_step(step.id, StepResult.SKIPPED, reason="its step did not pass")
        elif node.dead:
            draft.finish_step(step.id, StepResult.UPSTREAM_FAILED)
        elif node.is_stopping:
            draft.finish_step(step.id, StepResult.CANCELLED, reason=FAIL_FAST)
        elif node.room > 0:
            begin(draft, step)


def _has_passed(undone: Mapping[str, Any] | None) -> bool:
    return undone is not None and undone["result"]["verdict"] == StepResult.PASSED


def begin(draft: Draft, step: Step) -> None:
    """The step's edges hold: it becomes ready, or ends as skipped if its ``if`` is false."""
    if step.reuse is not None:
        draft.finish_step(step.id, StepResult.REUSED, outputs=step.outputs)
        return
    rules = draft.node(step.node).rules
    if rules is not None and rules.condition is not None:
        try:
            wanted = holds(rules.condition, draft.scope_of(step))
        except ExpressionFault as fault:
            draft.finish_step(step.id, StepResult.ERROR, reason=describe("if", fault))
            return
        if not wanted:
            why = f"if is false: {rules.condition[:200]}"
            if rules.condition == SKIP_NO_CELL:
                why = "the matrix has no cell"
            draft.finish_step(step.id, StepResult.SKIPPED, reason=why)
            return
    make_ready(draft, step)


def make_ready(draft: Draft, step: Step, *, place: bool = True, **changes: Unpack[StepCounts]) -> None:
    """The step may run as soon as an agent has room (``place``: look for one now); open a gate, begin a plan."""
    ready = draft.move_step(
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
    if step.kind is StepKind.GATE:
        open_gate(draft, ready)
    elif place:
        place_ready(draft, ready)


def place_ready(draft: Draft, step: Step) -> None:
    """Look for an agent for a ready step, or begin its nested plan, if the run lets new attempts start."""
    if not may_dispatch(draft.run, step.phase, draft.now):
        return
    if step.kind is StepKind.PLAN:
        begin_child(draft, step)
    else:
        draft.effect(PlaceStep(step.id))
