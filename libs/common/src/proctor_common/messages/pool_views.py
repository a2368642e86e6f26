"""The answers about the volume pool: volumes, VNFs, pools and their two jobs."""

from datetime import datetime

from proctor_common.messages.views import View
from proctor_common.states import VnfpState, VolumeState


class VolumeView(View):
    """A block device."""

    id: str
    """Proctor's own id; the backend's is `backend_id`."""
    name: str
    type: str
    size_gb: int
    state: VolumeState
    from_pool: bool
    """Whether it was made as a spare for the pool."""
    backend_id: str | None = None
    """Null until the backend has given it an id."""
    vnfp: str | None = None
    """The id of the VNF that has it; null if none has."""
    run: str | None = None
    """The id of the run that has it; null if none has."""
    reason: str = ""
    """What is wrong with it; empty if nothing is."""
    created_at: datetime


class VnfpView(View):
    """A VNF with its volume."""

    id: str
    name: str
    type: str
    size_gb: int
    state: VnfpState
    reason: str = ""
    """What it waits for, or why it failed; empty otherwise."""
    volume: VolumeView
    created_at: datetime


class JobRunView(View):
    """The last execution of one of the pool's jobs."""

    last: datetime | None = None
    """When it started; null if it never has."""
    outcome: str = ""
    skipped: str | None = None
    """When and why an execution was last skipped; null if none was."""


class PoolView(View):
    """The spare volumes of one type."""

    type: str
    size_gb: int
    target: int
    """How many spares the pool keeps ready."""
    version: int
    """Grows by one with each change of the target."""
    ready: int
    """Spares that nobody has claimed."""
    creating: int
    """Spares that are being made."""
    failed: int
    """Failed volumes that the backend still has, or that were deleted within the last 24 hours."""
    leaked: int = 0
    """Volumes that the backend refuses to delete."""
    claims: int = 0
    """Requests for a volume of this type so far."""
    hit_rate: float | None = None
    """The share of claims that a spare served at once, 0 to 1; null before the first claim."""
    claim_p50: float | None = None
    """Median time of a claim in seconds, rounded up to a histogram's bucket; null before the first claim."""
    claim_p99: float | None = None
    """The same for the 99th percentile."""
    stopped: str | None = None
    """What keeps spares of this type from being made; null if nothing does."""
    replenish: JobRunView
    sync: JobRunView


class JobView(View):
    """The answer to a request to execute a job now."""

    job: str
    outcome: str
    """`started` or `skipped`."""
    reason: str = ""
    """Why it was skipped; empty if it was started."""
