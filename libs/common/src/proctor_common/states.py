"""The words for where things are in their life (state) and how they ended (result). No I/O.

The transitions between them live in the controller's ``domain``; here are only the words, because they cross the
bus and HTTP.
"""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is in its life; ``finished`` absorbs."""

    QUEUED = "queued"
    ALLOCATING = "allocating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    ROLLING_BACK = "rolling_back"
    FINALIZING = "finalizing"
    FINISHED = "finished"


class RunResult(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class StepState(StrEnum):
    """Where a step instance's last attempt is in its life; ``finished`` absorbs."""

    PENDING = "pending"
    READY = "ready"
    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    LOST = "lost"
    CANCELLING = "cancelling"
    RETRY_WAIT = "retry_wait"
    FINISHED = "finished"


class StepResult(StrEnum):
    """How a step (or one attempt of it) ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    LOST = "lost"
    REUSED = "reused"


class AgentState(StrEnum):
    """What the controller thinks of an agent. ``draining`` is a flag beside the state, not a state."""

    ENROLLED = "enrolled"
    """Permitted to join, never seen."""
    ONLINE = "online"
    SUSPECT = "suspect"
    """15 s without a heartbeat: gets no new work."""
    LOST = "lost"
    """60 s without a heartbeat."""
    REMOVED = "removed"
    """No longer permitted."""


class VolumeState(StrEnum):
    """Where a volume is in its life."""

    INTENT = "intent"
    """Written down; the backend may have been asked for it."""
    CREATING = "creating"
    """Known to the backend."""
    READY = "ready"
    """A spare that nobody uses."""
    CLAIMED = "claimed"
    """Given away; the backend does not show it yet."""
    IN_USE = "in_use"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    """Of no use; what is left of it in the backend is being deleted."""
    LEAKED = "leaked"
    """Of no use, still in the backend, which will not delete it."""


class VnfpState(StrEnum):
    """Where a VNF is in its life: creating while it waits for its volume."""

    CREATING = "creating"
    ACTIVE = "active"
    ERROR = "error"
    DELETING = "deleting"
    DELETED = "deleted"


class Role(StrEnum):
    """What a token may do; each role may do all that the ones before it may."""

    VIEWER = "viewer"
    RUNNER = "runner"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether a caller of this role may do what asks for ``needed``."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Source(StrEnum):
    """Where a log chunk's bytes come from; ``system`` is Proctor's own voice."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


class GapReason(StrEnum):
    """Why a part of a log cannot be shown."""

    EXPIRED = "expired"
    LOST = "lost"
    LIMIT = "limit"
    SPOOL_FULL = "spool_full"
