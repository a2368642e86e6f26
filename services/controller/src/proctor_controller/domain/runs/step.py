"""A step instance, its attempts, the node it belongs to and the edges between nodes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypedDict

from proctor_common.states import StepResult, StepState
from proctor_controller.domain.runs.step_rules import Rules

P, RY, W, D, R = StepState.PENDING, StepState.READY, StepState.WAITING, StepState.DISPATCHED, StepState.RUNNING
L, C, RW, F = StepState.LOST, StepState.CANCELLING, StepState.RETRY_WAIT, StepState.FINISHED

STEP_TRANSITIONS: Mapping[StepState, frozenset[StepState]] = {
    P: frozenset({RY, F}),
    RY: frozenset({W, D, R, F}),
    W: frozenset({RY, F}),
    D: frozenset({R, RY, RW, L, C, F}),
    R: frozenset({F, RW, L, C}),
    L: frozenset({R, F, RW, C}),
    C: frozenset({F}),
    RW: frozenset({RY, F}),
    F: frozenset(),
}
"""Which state of a step may follow which."""

LIVE = frozenset({D, R, L, C})
"""An attempt may be alive on an agent: the step holds a slot and a token."""

UNBOUNDED = 1_000_000
"""More instances than a run can have."""

SUCCESSES = frozenset({StepResult.PASSED, StepResult.SKIPPED, StepResult.REUSED})
"""Results that satisfy an edge which asks for success."""


class Phase(StrEnum):
    """Which part of a run a step belongs to. Only main steps count for the run's result."""

    MAIN = "main"
    ON_FAILURE = "on_failure"
    ROLLBACK = "rollback"
    ALWAYS = "always"


class StepKind(StrEnum):
    """What a step does: calls a method on an agent, asks a person, or runs another plan."""

    METHOD = "method"
    GATE = "gate"
    PLAN = "plan"


class Cause(StrEnum):
    """Why a live attempt is being stopped."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class RetryOn(StrEnum):
    """Ends after which a plan may ask for another attempt."""

    FAILED = "failed"
    ERROR = "error"
    TIMED_OUT = "timed_out"
    AGENT_LOST = "agent_lost"


_RETRY_WORD = {
    StepResult.FAILED: RetryOn.FAILED,
    StepResult.ERROR: RetryOn.ERROR,
    StepResult.TIMED_OUT: RetryOn.TIMED_OUT,
    StepResult.LOST: RetryOn.AGENT_LOST,
}


CONNECTION_LOST = "connection_lost"
"""Kind of an agent's error: how the command ended is unknown."""


@dataclass(frozen=True, slots=True)
class Retry:
    """``attempts``: how many in all. ``delay_s`` grows by ``backoff`` up to ``max_delay_s``."""

    attempts: int = 1
    delay_s: float = 0.0
    backoff: float = 1.0
    max_delay_s: float = 3600.0
    on: frozenset[RetryOn] = frozenset({RetryOn.FAILED, RetryOn.ERROR, RetryOn.TIMED_OUT})

    def delay(self, tries: int) -> timedelta:
        """How long to wait after the ``tries``-th attempt has ended."""
        try:
            seconds = self.delay_s * self.backoff ** max(tries - 1, 0)
        except OverflowError:
            seconds = self.max_delay_s
        return timedelta(seconds=min(seconds, self.max_delay_s))


@dataclass(frozen=True, slots=True)
class Step:
    """The columns of a step that decisions read and change."""

    id: str
    run: str
    node: str
    name: str = ""
    state: StepState = StepState.PENDING
    result: StepResult | None = None
    reason: str = ""
    waiting_for: str | None = None
    attempt: int = 0
    """Number of the last dispatch to an agent that may know of it."""
    tries: int = 0
    """Attempts counted by ``retry``."""
    token: str | None = None
    """The lease token of the live attempt; None where there is none."""
    agent: str | None = None
    host: str | None = None
    """Of the agent that has, or last had, an attempt."""
    sends: int = 0
    """How often the start order may have been sent under this token."""
    refusals: int = 0
    """Consecutive agents that refused it."""
    cause: Cause | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = Retry()
    idempotent: bool = False
    deadline: datetime | None = None
    """Depends on the state. dispatched: the order must be accepted; running: the attempt times out; lost: it is given
    up; cancelling: the kill counts as unconfirmed; retry_wait: the next attempt starts."""
    due_at: datetime | None = None
    """When the watchdog looks at it next."""
    ready_at: datetime | None = None
    """Since when it is in the queue for slots."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    phase: Phase = Phase.MAIN
    kind: StepKind = StepKind.METHOD
    instance: str = ""
    """Its instance of a fanned-out step; empty for the only one."""
    matrix: Mapping[str, Any] | None = None
    """The instance's cell of the matrix."""
    role: str | None = None
    """The leased hosts that it runs on; ``role_index``: which of them."""
    role_index: int | None = None
    outputs: Mapping[str, Any] | None = None
    """What its plan declares as outputs, once it has ended."""
    reuse: str | None = None
    """Id of the step of a former run that passed and replaces it: it does not run again."""

    @property
    def label(self) -> str:
        """Its name for users, with the instance if there are several."""
        return f"{self.name}[{self.instance}]" if self.instance else self.name

    @property
    def is_under_way(self) -> bool:
        """Whether an attempt of it, or its nested plan's run, may be alive; false for a gate."""
        return self.state in LIVE and self.kind is not StepKind.GATE

    @property
    def is_resting(self) -> bool:
        """Whether it is a nested plan of which nothing can be alive now: it waits for its run to go on."""
        return self.kind is StepKind.PLAN and self.state is R and self.waiting_for is not None

    @property
    def is_in_flight(self) -> bool:
        """Whether it keeps its run from being paused."""
        return self.is_under_way and not self.is_resting

    def may_retry(self, result: StepResult) -> bool:
        """Whether the plan asks for another attempt after this end. A lost one only if the step is idempotent too."""
        word = _RETRY_WORD.get(result)
        if word is None or word not in self.retry.on or self.tries >= self.retry.attempts:
            return False
        return word is not RetryOn.AGENT_LOST or self.idempotent


class StepCounts(TypedDict, total=False):
    """Columns of a step that number its attempts."""

    attempt: int
    tries: int
    refusals: int


class StepMoves(StepCounts, total=False):
    """Columns of a step that change with a transition, beside its state, result and reason."""

    waiting_for: str | None
    token: str | None
    agent: str | None
    host: str | None
    sends: int
    cause: Cause | None
    deadline: datetime | None
    due_at: datetime | None
    ready_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    outputs: Mapping[str, Any] | None


class StepChanges(StepMoves, total=False):
    """Columns of a step that a decision changes outside a transition."""

    reason: str


class Condition(StrEnum):
    """What an edge requires of the step it comes from."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    COMPLETED = "completed"

    def holds(self, success: bool) -> bool:
        """Whether the edge holds, now that its source has ended."""
        return self is Condition.COMPLETED or success is (self is Condition.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the document. Steps that depend on it see all its instances as one."""

    run: str
    name: str
    unfinished: int = 1
    """Instances that have not finished."""
    failed: int = 0
    """Instances that finished without success."""
    undecided: int = 0
    """Edges into it whose source has not ended."""
    dead: bool = False
    """An edge into it can no longer hold: its instances will not run."""
    due_at: datetime | None = None
    """Set while instances have not been notified yet that the edges are decided."""
    phase: Phase = Phase.MAIN
    max_parallel: int | None = None
    """How many instances may be under way at once; None: no limit."""
    untold: int = 0
    """Pending instances that were not notified yet; counted only if ``max_parallel`` is set."""
    fail_fast: bool = False
    """An instance that fails stops the others."""
    rules: Rules | None = None
    """None for a plain call."""

    @property
    def room(self) -> int:
        """How many more of its instances may be under way now."""
        return UNBOUNDED if self.max_parallel is None else self.max_parallel - (self.unfinished - self.untold)

    @property
    def is_stopping(self) -> bool:
        """Whether an instance has failed and the others are to be stopped for it."""
        return self.fail_fast and self.failed > 0


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge out of a node, with the node it leads to."""

    condition: Condition
    target: Node


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What an agent reports of an attempt that has ended. Sizes of its log in chunks, lines and bytes."""

    result: StepResult
    reason: str = ""
    exit_code: int | None = None
    output: Mapping[str, object] = field(default_factory=dict)
    error: Mapping[str, object] | None = None
    chunks: int = 0
    lines: int = 0
    bytes: int = 0
    tree_gone: bool | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def may_live_on(self) -> bool:
        """Whether a process of it may still run: it was killed or disconnected, and is not known to be gone."""
        lost = self.error is not None and self.error.get("kind") == CONNECTION_LOST
        return (lost or self.result is StepResult.TIMED_OUT) and self.tree_gone is not True
