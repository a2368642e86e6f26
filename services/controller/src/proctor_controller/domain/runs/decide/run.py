"""Decisions about a run as a whole: its beginning, users' requests, its timeouts. Pure."""

from datetime import timedelta

from proctor_common.states import RunResult, RunState, StepResult
from proctor_controller.domain.runs.completion import notify_parent
from proctor_controller.domain.runs.decide.node import notify_pending
from proctor_controller.domain.runs.decide.stop import stop_step
from proctor_controller.domain.runs.decision import Allocate, FollowUp, NotifyChildren, PlaceReady, Stale
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import (
    CancelAsked,
    CannotBegin,
    HostsHeld,
    MustWait,
    PauseAsked,
    ResumeAsked,
    RunCreated,
    RunDue,
)
from proctor_controller.domain.runs.run import ACTIVE, CLEANUP, UNSTARTED, Run, is_over, is_wanted
from proctor_controller.domain.runs.step import Cause, Phase

_SOMEBODY = "somebody"


def decide_created(draft: Draft, event: RunCreated, more: bool) -> Stale | None:
    """Begin the run, or wait for its requirements."""
    run = draft.run
    if run.state is not RunState.QUEUED or run.cause is not None:
        return Stale("the run has started")
    if run.wants.is_plain:
        _begin(draft, more)
        return None
    draft.change_run(deadline=run.deadline or draft.after(run.wants.queue_s))
    _allocate(draft)
    return None


def _allocate(draft: Draft) -> None:
    """Check whether it may begin, and look again soon, at the latest when its time to wait is over."""
    due = draft.after(draft.policy.allocate_s)
    deadline = draft.run.deadline
    draft.change_run(due_at=due if deadline is None else min(due, deadline))
    draft.effect(Allocate())


def _begin(draft: Draft, more: bool) -> None:
    """Its requirements are met: its first steps become ready."""
    if draft.run.state is RunState.QUEUED:
        draft.move_run(RunState.ALLOCATING)
    draft.move_run(RunState.RUNNING)
    deadline = draft.after(draft.run.timeout_s)
    draft.change_run(started_at=draft.now, deadline=deadline, due_at=deadline, waiting_for=None)
    notify_parent(draft)
    _notify(draft, more)


def _notify(draft: Draft, more: bool) -> None:
    notify_pending(draft)
    if more:
        draft.change_run(due_at=draft.after(1.0))
        draft.effect(FollowUp(RunDue(draft.run.id)))
    else:
        for node in {step.node for step in draft.steps}:
            draft.close_node(node)


def decide_held(draft: Draft, event: HostsHeld, more: bool) -> Stale | None:
    """Everything that it waited for is there."""
    if draft.run.state not in UNSTARTED or draft.run.cause is not None:
        return Stale(f"the run is {draft.run.state}")
    _begin(draft, more)
    return None


def decide_must_wait(draft: Draft, event: MustWait) -> Stale | None:
    """It waits; ``why`` says what for."""
    run = draft.run
    if run.state not in UNSTARTED or run.cause is not None:
        return Stale(f"the run is {run.state}")
    to = RunState.ALLOCATING if event.admitted else RunState.QUEUED
    if run.state is not to:
        draft.move_run(to, reason=event.why)
        draft.change_run(reason="")
    elif run.waiting_for == event.why:
        return Stale("it waits for the same")
    draft.change_run(waiting_for=event.why)
    return None


def decide_cannot_begin(draft: Draft, event: CannotBegin) -> Stale | None:
    """It ends before it began."""
    if draft.run.state not in UNSTARTED or draft.run.cause is not None:
        return Stale(f"the run is {draft.run.state}")
    begin_end(draft, RunResult.REJECTED if event.rejected else RunResult.ERROR, event.why)
    return None


def decide_cancel(draft: Draft, event: CancelAsked) -> Stale | None:
    """Store the request; stop live steps, end the others. In rolling_back and finalizing nothing else changes."""
    run = draft.run
    if run.cancel_by is not None:
        return Stale("asked for already")
    by = event.by or _SOMEBODY
    draft.change_run(cancel_by=by)
    if run.cause is None and (run.state in UNSTARTED or run.state in ACTIVE):
        begin_end(draft, RunResult.CANCELLED, f"cancelled by {by}")
    elif run.cause is RunResult.TIMED_OUT and run.state is RunState.CANCELLING:
        # A user's request takes precedence over a timeout as the reason.
        draft.change_run(cause=RunResult.CANCELLED, reason=f"cancelled by {by}; {run.reason}")
    return None


def decide_pause(draft: Draft, event: PauseAsked) -> Stale | None:
    """Start nothing new; the run is paused when nothing is in flight."""
    if draft.run.state is not RunState.RUNNING:
        return Stale(f"the run is {draft.run.state}")
    by = event.by or _SOMEBODY
    _move_for(draft, RunState.PAUSING, by)
    draft.change_run(pause_by=by, waiting_for=f"{by} to resume it")
    draft.effect(NotifyChildren())
    return None


def decide_resume(draft: Draft, event: ResumeAsked) -> Stale | None:
    """Go on with what became ready meanwhile."""
    if draft.run.state not in {RunState.PAUSING, RunState.PAUSED}:
        return Stale(f"the run is {draft.run.state}")
    _move_for(draft, RunState.RUNNING, event.by or _SOMEBODY)
    draft.change_run(pause_by=None, waiting_for=None)
    draft.effect(PlaceReady())
    draft.effect(NotifyChildren())
    notify_parent(draft)
    return None


def _move_for(draft: Draft, to: RunState, by: str) -> None:
    """A transition that a user asked for: the event names the user. The run's own reason remains that of its end."""
    before = draft.run.reason
    draft.move_run(to, reason=f"by {by}")
    draft.change_run(reason=before)


def begin_end(draft: Draft, cause: RunResult, reason: str = "") -> None:
    """Begin to end the run early: the slice's steps at once, the others as follow-ups."""
    draft.change_run(cause=cause, reason=reason, waiting_for=None)
    if draft.run.state in ACTIVE:
        draft.move_run(RunState.CANCELLING, reason=reason or cause.value)
    _end_steps(draft)


def _end_steps(draft: Draft) -> None:
    for step in draft.steps:
        if step.phase is Phase.MAIN:
            stop_step(draft, step, Cause.CANCELLED)
    if draft.run.undecided > 0:
        # If the slice had only some of the steps, the next look at the run takes more.
        draft.change_run(due_at=draft.after(1.0))


def decide_due(draft: Draft, event: RunDue, more: bool) -> Stale | None:
    """Timeouts of the run, and work that a crash left half done."""
    run = draft.run
    if run.phase is not Phase.MAIN:
        _clean_up(draft, more)
        return None
    if run.cause is None and run.deadline is not None and draft.now >= run.deadline:
        begin_end(draft, RunResult.TIMED_OUT, _why_late(run))
        draft.effect(FollowUp(RunDue(run.id)))
        return None
    if run.cause is not None:
        _end_steps(draft)
    elif run.state in UNSTARTED:
        if run.wants.is_plain:
            return decide_created(draft, RunCreated(run.id), more)
        _allocate(draft)
        return None
    else:
        draft.change_run(due_at=run.deadline)
        _notify(draft, more)
        return None
    if more:
        draft.change_run(due_at=draft.now + timedelta(seconds=1))
        draft.effect(FollowUp(RunDue(run.id)))
    return None


def _why_late(run: Run) -> str:
    if run.state not in UNSTARTED:
        return "the run's timeout has passed"
    return f"not started in time: it waited for {run.waiting_for}" if run.waiting_for else "not started in time"


def _clean_up(draft: Draft, more: bool) -> None:
    """Notify the steps of the current phase; end them if the phase is not wanted or has taken too long."""
    run = draft.run
    if not is_over(run, run.phase, draft.now):
        draft.change_run(due_at=run.deadline)
        _notify(draft, more)
        return
    unwanted = run.state not in CLEANUP or not is_wanted(run, run.phase)
    for step in draft.steps:
        if step.phase is not run.phase:
            continue
        if step.is_under_way:
            stop_step(draft, step, Cause.TIMED_OUT)
        elif unwanted:
            draft.finish_step(step.id, StepResult.SKIPPED)
        else:
            draft.finish_step(step.id, StepResult.TIMED_OUT, reason="the time for cleanup is over")
    draft.change_run(due_at=draft.after(1.0))
    if more:
        draft.effect(FollowUp(RunDue(run.id)))
