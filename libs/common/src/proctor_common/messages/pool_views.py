"""What a controller shows of the pool: volumes, VNFs, pools and their jobs."""

from datetime import datetime

from proctor_common.messages.views import View
from proctor_common.states import VnfpState, VolumeState


class VolumeView(View):
    """A volume. ``id`` is ours, ``backend_id`` the backend's; ``vnfp`` and ``run`` are ids: whose it is."""

    id: str
    name: str
    type: str
    size_gb: int
    state: VolumeState
    from_pool: bool
    """Whether it was made as a spare."""
    backend_id: str | None = None
    vnfp: str | None = None
    run: str | None = None
    reason: str = ""
    created_at: datetime


class VnfpView(View):
    """A VNF with its volume; ``active`` at once where a spare was at hand.

    ``reason``: what it waits for, or why not.
    """

    id: str
    name: str
    type: str
    size_gb: int
    state: VnfpState
    reason: str = ""
    volume: VolumeView
    created_at: datetime


class JobRunView(View):
    """The last run of one of the pool's jobs; ``skipped``: why and when a run was last left out."""

    last: datetime | None = None
    outcome: str = ""
    skipped: str | None = None


class PoolView(View):
    """The spares of one type. ``creating`` counts all that are on their way, ``failed`` volumes of the last day;
    ``claim_p50`` and ``claim_p99`` are seconds, as upper ends of a histogram; null before the first claim.
    """

    type: str
    size_gb: int
    target: int
    version: int
    """Grows with each change of the target."""
    ready: int
    creating: int
    failed: int
    leaked: int = 0
    claims: int = 0
    hit_rate: float | None = None
    claim_p50: float | None = None
    claim_p99: float | None = None
    stopped: str | None = None
    """What keeps spares of this type from being made; null where nothing does."""
    replenish: JobRunView
    sync: JobRunView


class JobView(View):
    """What became of a request to run a job now."""

    job: str
    outcome: str
    """started | skipped"""
    reason: str = ""
