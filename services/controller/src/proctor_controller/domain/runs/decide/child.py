"""Decisions about a nested plan: a step whose attempt is another run. Pure."""

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.domain.runs.decide.stop import cancel_attempt
from proctor_controller.domain.runs.decision import Stale, StartChild, StopChild
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import ChildEnded, ChildRests
from proctor_controller.domain.runs.scope import returned
from proctor_controller.domain.runs.step import Cause, Step, StepKind
from proctor_controller.domain.runs.verdict import StepVerdict

_RESULTS = {
    RunResult.PASSED: StepResult.PASSED,
    RunResult.FAILED: StepResult.FAILED,
    RunResult.ERROR: StepResult.ERROR,
    RunResult.TIMED_OUT: StepResult.TIMED_OUT,
    RunResult.CANCELLED: StepResult.CANCELLED,
    RunResult.REJECTED: StepResult.FAILED,
}


def begin_child(draft: Draft, step: Step) -> None:
    """Start the run of the nested plan."""
    draft.move_step(
        step.id,
        StepState.RUNNING,
        started_at=draft.now,
        deadline=draft.after(step.timeout_s),
        due_at=draft.after(min(draft.policy.child_due_s, step.timeout_s)),
    )
    draft.effect(StartChild(step.id, step.attempt))


def decide_child_due(draft: Draft, step: Step) -> None:
    """The nested plan's timeout, while its run is not paused. Otherwise repeat what a crash may have lost: the child is
    begun, paused, stopped or asked for its end.
    """
    late = step.state is StepState.RUNNING and step.deadline is not None and draft.now >= step.deadline
    if late and draft.run.state is not RunState.PAUSED:
        cancel_attempt(draft, step, Cause.TIMED_OUT)
        return
    draft.change_step(step.id, due_at=draft.after(draft.policy.child_due_s))
    stopping = step.state is StepState.CANCELLING
    draft.effect(StopChild(step.id, step.attempt) if stopping else StartChild(step.id, step.attempt))


def decide_child_ended(draft: Draft, event: ChildEnded) -> Stale | None:
    """The child run has ended (or could not be begun): its result and outputs are the step's."""
    step = draft.step(event.step)
    if step.kind is not StepKind.PLAN or step.state not in {StepState.RUNNING, StepState.CANCELLING}:
        return Stale(f"the step is {step.state}")
    if step.attempt != event.attempt:
        return Stale("not the step's current attempt")
    result = _RESULTS[event.result]
    if step.state is StepState.CANCELLING and step.cause is Cause.TIMED_OUT:
        result = StepResult.TIMED_OUT
    draft.end_child(
        step.id,
        StepVerdict(result, event.reason, event.outputs),
        returned(result.value, {"run": event.child, "outputs": dict(event.outputs)}),
    )
    return None


def decide_child_rests(draft: Draft, event: ChildRests) -> Stale | None:
    """The child run rests or goes on: a resting one does not keep its parent from being paused."""
    step = draft.step(event.step)
    if step.kind is not StepKind.PLAN or step.state is not StepState.RUNNING or step.attempt != event.attempt:
        return Stale(f"the step is {step.state}")
    if step.waiting_for == event.why:
        return Stale("known already")
    if event.why is None and draft.run.state is RunState.PAUSED:
        return Stale("the run rests: its child is asked to rest too")
    draft.rest_step(step.id, event.why)
    return None
