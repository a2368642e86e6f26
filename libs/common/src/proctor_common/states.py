"""States and results in messages and in HTTP answers. Their transitions are in the controller's ``domain``."""

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run; `finished` is final."""

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
    """The state of a step instance's last attempt; `finished` is final."""

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
    """How a step, or one attempt of it, ended."""

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
    """The state of an agent: `suspect` is 15 s without a heartbeat (no new work), `lost` 60 s. Draining is no state."""

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
    """The state of a volume."""

    INTENT = "intent"
    """Recorded here; the backend may have been asked for it."""
    CREATING = "creating"
    """The backend is making it."""
    READY = "ready"
    """A spare that nobody has claimed."""
    CLAIMED = "claimed"
    """Claimed; the backend does not show that yet."""
    IN_USE = "in_use"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    """Unusable; what is left of it in the backend is being deleted."""
    LEAKED = "leaked"
    """Unusable, and the backend does not delete it."""


class VnfpState(StrEnum):
    """The state of a VNF; `creating` while it waits for its volume."""

    CREATING = "creating"
    ACTIVE = "active"
    ERROR = "error"
    DELETING = "deleting"
    DELETED = "deleted"


class Role(StrEnum):
    """What a token may do: a viewer reads, a runner also starts and changes, an admin manages agents and tokens."""

    VIEWER = "viewer"
    RUNNER = "runner"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role includes the role ``needed``."""
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
