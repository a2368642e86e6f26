"""Stops unfinished steps, and gives the orders to agents for it. Pure."""

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.runs.decision import CancelAttempt, StopChild
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.step import Cause, Step, StepKind


def stop_step(draft: Draft, step: Step, cause: Cause, *, reason: str = "") -> None:
    """Stop an unfinished step: ask for the end of a live one, end any other."""
    if step.is_under_way:
        if step.state is not StepState.CANCELLING:
            cancel_attempt(draft, step, cause)
    elif step.state is not StepState.FINISHED:
        draft.finish_step(step.id, StepResult(cause.value), reason=reason)


def cancel_attempt(draft: Draft, step: Step, cause: Cause) -> None:
    """Ask for the end of a live attempt; without confirmation in time it ends as unconfirmed. A nested plan's run is
    certain to end, so wait for it.
    """
    wait = max(draft.policy.cancel_confirm_s, step.grace_s + draft.policy.cancel_confirm_s / 2)
    moved = draft.move_step(
        step.id,
        StepState.CANCELLING,
        reason=cause.value,
        cause=cause,
        deadline=draft.after(wait) if step.kind is StepKind.METHOD else None,
        due_at=draft.after(draft.policy.resend_s),
    )
    if step.kind is StepKind.METHOD:
        draft.attempt(moved, state=StepState.CANCELLING)
    send_cancel(draft, moved)


def send_cancel(draft: Draft, step: Step) -> None:
    """Send the order to stop, for the first time or again."""
    if step.kind is StepKind.PLAN:
        draft.effect(StopChild(step.id, step.attempt))
    elif step.agent and step.token:
        draft.effect(
            CancelAttempt(
                step.id, step.attempt, step.token, step.agent, (step.cause or Cause.CANCELLED).value, step.grace_s
            )
        )
