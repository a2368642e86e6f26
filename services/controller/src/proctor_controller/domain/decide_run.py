"""Decisions about a run as a whole and about a node whose edges are decided. Pure."""

from datetime import timedelta

from proctor_common.states import RunResult, RunState
from proctor_controller.domain.decide_node import tell_pending
from proctor_controller.domain.decide_stop import stop_step
from proctor_controller.domain.decision import FollowUp, Stale
from proctor_controller.domain.draft import Draft
from proctor_controller.domain.events import CancelAsked, RunCreated, RunDue
from proctor_controller.domain.step import Cause

_UNSTARTED = frozenset({RunState.QUEUED, RunState.ALLOCATING})
_RUNNING = frozenset({RunState.RUNNING, RunState.PAUSING, RunState.PAUSED})


def decide_created(draft: Draft, event: RunCreated, more: bool) -> Stale | None:
    """Start the run: nothing holds it back as yet, so it passes through allocating; its first steps become ready."""
    if draft.run.state is not RunState.QUEUED or draft.run.cause is not None:
        return Stale("the run has started")
    draft.move_run(RunState.ALLOCATING)
    draft.move_run(RunState.RUNNING)
    deadline = draft.after(draft.run.timeout_s)
    draft.change_run(started_at=draft.now, deadline=deadline, due_at=deadline)
    tell_pending(draft)
    if more:
        draft.change_run(due_at=draft.after(1.0))
        draft.effect(FollowUp(RunDue(draft.run.id)))
    return None


def decide_cancel(draft: Draft, event: CancelAsked) -> Stale | None:
    """Store the request; stop what lives, end what does not. In rolling_back and finalizing it changes nothing else."""
    run = draft.run
    if run.cancel_by is not None:
        return Stale("asked for already")
    draft.change_run(cancel_by=event.by or "unknown")
    if run.state in _UNSTARTED or run.state in _RUNNING:
        begin_end(draft, RunResult.CANCELLED)
    return None


def begin_end(draft: Draft, cause: RunResult, reason: str = "") -> None:
    """Begin to end the run before its time; the slice's steps at once, the others as follow-ups."""
    draft.change_run(cause=cause, reason=reason)
    if draft.run.state in _RUNNING:
        draft.move_run(RunState.CANCELLING, reason=reason or cause.value)
    _end_steps(draft)


def _end_steps(draft: Draft) -> None:
    for step in draft.steps:
        stop_step(draft, step, Cause.CANCELLED)
    if draft.run.undecided > 0:
        # Where the slice held only some of the steps the next look takes more of them.
        draft.change_run(due_at=draft.after(1.0))


def decide_due(draft: Draft, event: RunDue, more: bool) -> Stale | None:
    """Timeouts of the run, and what a crash left half done."""
    run = draft.run
    if run.cause is None and run.deadline is not None and draft.now >= run.deadline:
        queued = run.state in _UNSTARTED
        begin_end(draft, RunResult.TIMED_OUT, "not started in time" if queued else "the run's timeout has passed")
        draft.effect(FollowUp(RunDue(run.id)))
        return None
    if run.cause is not None:
        _end_steps(draft)
    elif run.state is RunState.QUEUED:
        return decide_created(draft, RunCreated(run.id), more)
    else:
        tell_pending(draft)
        if not more:
            for node in {step.node for step in draft.steps}:
                draft.close_node(node)
        draft.change_run(due_at=run.deadline)
    if more:
        draft.change_run(due_at=draft.now + timedelta(seconds=1))
        draft.effect(FollowUp(RunDue(run.id)))
    return None
