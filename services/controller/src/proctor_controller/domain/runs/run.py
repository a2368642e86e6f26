"""A run: its states, which of them may follow which, and what its result is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from proctor_common.states import RunResult, RunState, StepResult
from proctor_controller.domain.hosts.requirements import Requirements, Rollback
from proctor_controller.domain.runs.step import Phase

Q, A, R, PG, PD = RunState.QUEUED, RunState.ALLOCATING, RunState.RUNNING, RunState.PAUSING, RunState.PAUSED
C, RB, FZ, F = RunState.CANCELLING, RunState.ROLLING_BACK, RunState.FINALIZING, RunState.FINISHED

RUN_TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    Q: frozenset({A, F}),
    A: frozenset({R, Q, F}),
    R: frozenset({PG, C, RB, FZ}),
    PG: frozenset({PD, R, C, RB, FZ}),
    PD: frozenset({R, C}),
    C: frozenset({RB, FZ}),
    RB: frozenset({FZ}),
    FZ: frozenset({F}),
    F: frozenset(),
}
"""Which state of a run may follow which."""

UNSTARTED = frozenset({Q, A})
"""Nothing of it has begun."""
ACTIVE = frozenset({R, PG, PD})
"""Its main steps run."""
CLEANUP = frozenset({RB, FZ})
"""Its main steps are decided, and cleanup runs."""
FAILURES = frozenset({RunResult.FAILED, RunResult.ERROR, RunResult.TIMED_OUT})
"""Results after which on_failure runs."""
PHASES = (Phase.MAIN, Phase.ON_FAILURE, Phase.ROLLBACK, Phase.ALWAYS)
"""In the order in which they run; unwanted ones are skipped."""


@dataclass(frozen=True, slots=True)
class Run:
    """The columns of a run that decisions read and change. Times by the database's clock."""

    id: str
    state: RunState = RunState.QUEUED
    result: RunResult | None = None
    reason: str = ""
    group: str | None = None
    version: int = 0
    """Number of saved decisions: one is saved only if the row still has the version that it was made on."""
    event_seq: int = 0
    """Number of the run's last event."""
    attempt_seq: int = 0
    """How many attempts of its steps have been dispatched."""
    undecided: int = 0
    """Main steps that have not finished."""
    tally: Mapping[StepResult, int] = field(default_factory=dict)
    """How many main steps have finished with which result."""
    cause: RunResult | None = None
    """Why it ends early: cancelled, timed_out, rejected or error; None: it does not."""
    cancel_by: str | None = None
    timeout_s: float = 86_400.0
    deadline: datetime | None = None
    """Until when it must have begun (queued, allocating), ended (running) or cleaned up (rolling_back, finalizing)."""
    due_at: datetime | None = None
    """When the watchdog looks at it next."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phase: Phase = Phase.MAIN
    """The phase that is under way."""
    cleanup: Mapping[Phase, int] = field(default_factory=dict)
    """Unfinished steps of each phase other than main."""
    live: int = 0
    """Steps that keep it from being paused: an attempt of theirs may be alive."""
    wants: Requirements = field(default_factory=Requirements)
    waiting_for: str | None = None
    """What it waits for, as text; None: nothing."""
    pause_by: str | None = None
    hold_until: datetime | None = None
    """Until when it keeps hosts after its end."""
    outputs: Mapping[str, Any] | None = None
    """None until they are filled in."""
    parent: str | None = None
    parent_step: str | None = None


class RunChanges(TypedDict, total=False):
    """Columns of a run that a decision changes outside a transition."""

    reason: str
    attempt_seq: int
    undecided: int
    tally: Mapping[StepResult, int]
    cause: RunResult | None
    cancel_by: str | None
    deadline: datetime | None
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    phase: Phase
    cleanup: Mapping[Phase, int]
    live: int
    waiting_for: str | None
    pause_by: str | None
    hold_until: datetime | None
    outputs: Mapping[str, Any] | None


def is_wanted(run: Run, phase: Phase) -> bool:
    """Whether the steps of this phase are to run, as far as the run's result is known; main steps always are."""
    if phase is Phase.MAIN:
        return True
    if run.started_at is None:
        return False
    match phase:
        case Phase.ON_FAILURE:
            return result_of(run) in FAILURES
        case Phase.ROLLBACK:
            return asks_rollback(run)
    return True


def asks_rollback(run: Run) -> bool:
    """Whether a run with this result is to be rolled back."""
    match run.wants.rollback:
        case Rollback.ON_FAILURE:
            return result_of(run) in FAILURES
        case Rollback.ON_CANCEL:
            return result_of(run) is RunResult.CANCELLED
        case Rollback.ALWAYS:
            return True
    return False


def is_over(run: Run, phase: Phase, now: datetime) -> bool:
    """Whether the unfinished steps of this phase are ended instead of begun."""
    if phase is Phase.MAIN:
        return run.cause is not None
    late = run.state in CLEANUP and run.deadline is not None and now >= run.deadline
    return late or not is_wanted(run, phase)


def may_dispatch(run: Run, phase: Phase, now: datetime) -> bool:
    """Whether new attempts of steps of this phase may start now."""
    going_on = run.state is RunState.RUNNING if phase is Phase.MAIN else run.state in CLEANUP and run.phase is phase
    return going_on and not is_over(run, phase, now)


def result_of(run: Run) -> RunResult:
    """The first that holds: ended early, a step in error or lost, a step failed or timed out, passed."""
    if run.cause is not None:
        return run.cause
    if run.tally.get(StepResult.ERROR, 0) or run.tally.get(StepResult.LOST, 0):
        return RunResult.ERROR
    if run.tally.get(StepResult.FAILED, 0) or run.tally.get(StepResult.TIMED_OUT, 0):
        return RunResult.FAILED
    if run.tally.get(StepResult.CANCELLED, 0):
        return RunResult.CANCELLED
    return RunResult.PASSED
