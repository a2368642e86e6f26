"""Decisions about a gate: a step that a person approves or rejects. Pure."""

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.runs.decision import Stale
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import GateDecided
from proctor_controller.domain.runs.step import Step, StepKind
from proctor_controller.domain.runs.step_rules import Gate


def open_gate(draft: Draft, step: Step) -> None:
    """Wait for a person's decision; without one in time the step ends as timed out."""
    rules = draft.node(step.node).rules
    gate = (rules.gate if rules else None) or Gate()
    deadline = draft.after(step.timeout_s if gate.timeout_s is None else gate.timeout_s)
    draft.move_step(
        step.id,
        StepState.RUNNING,
        waiting_for=f"the approval of {' or '.join(gate.roles)}",
        started_at=draft.now,
        deadline=deadline,
        due_at=deadline,
    )


def decide_gate(draft: Draft, event: GateDecided) -> Stale | None:
    """A person whose role allows it has approved or rejected."""
    step = draft.step(event.step)
    if step.kind is not StepKind.GATE or step.state is not StepState.RUNNING:
        return Stale(f"the step is {step.state}")
    if event.approved:
        draft.finish_step(step.id, StepResult.PASSED, reason=f"approved by {event.by}")
    else:
        draft.finish_step(step.id, StepResult.FAILED, reason=f"refused by {event.by}")
    return None


def decide_gate_due(draft: Draft, step: Step) -> None:
    """Nobody has decided in time."""
    if step.deadline is not None and draft.now >= step.deadline:
        draft.finish_step(step.id, StepResult.TIMED_OUT, reason="nobody approved it in time")
    else:
        draft.change_step(step.id, due_at=step.deadline)
