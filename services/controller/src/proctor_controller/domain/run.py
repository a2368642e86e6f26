"""A run: its states, which of them may follow which, and what its result is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from proctor_common.states import RunResult, RunState, StepResult

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

DISPATCHING = frozenset({RunState.RUNNING})
"""Only in these states new attempts start."""


@dataclass(frozen=True, slots=True)
class Run:
    """What deciding needs of a run's row. ``version`` fences every write; times are the database's.

    ``undecided``: steps that have not finished · ``tally``: how many finished how · ``cause``: why it is being ended
    before its time (cancelled or timed_out) · ``deadline``: when it times out, counted from its start ·
    ``queue_deadline``: until when it must have started · ``due_at``: when the watchdog has to look at it.
    """

    id: str
    state: RunState = RunState.QUEUED
    result: RunResult | None = None
    reason: str = ""
    group: str | None = None
    version: int = 0
    event_seq: int = 0
    attempt_seq: int = 0
    undecided: int = 0
    tally: Mapping[StepResult, int] = field(default_factory=dict)
    cause: RunResult | None = None
    cancel_by: str | None = None
    timeout_s: float = 86_400.0
    deadline: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def result_of(run: Run) -> RunResult:
    """The first that holds: ended before its time, a step in error or lost, a step failed or timed out, passed."""
    if run.cause is not None:
        return run.cause
    if run.tally.get(StepResult.ERROR, 0) or run.tally.get(StepResult.LOST, 0):
        return RunResult.ERROR
    if run.tally.get(StepResult.FAILED, 0) or run.tally.get(StepResult.TIMED_OUT, 0):
        return RunResult.FAILED
    if run.tally.get(StepResult.CANCELLED, 0):
        return RunResult.CANCELLED
    return RunResult.PASSED
