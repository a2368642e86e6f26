"""A volume, a VNF, and what has to be done next about a volume in the backend. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from proctor_common.states import VnfpState, VolumeState

S = VolumeState

VOLUME_TRANSITIONS: Mapping[VolumeState, frozenset[VolumeState]] = {
    S.INTENT: frozenset({S.CREATING, S.DELETING, S.DELETED, S.FAILED}),
    S.CREATING: frozenset({S.READY, S.IN_USE, S.DELETING, S.FAILED, S.LEAKED}),
    S.READY: frozenset({S.CLAIMED, S.DELETING, S.FAILED, S.LEAKED}),
    S.CLAIMED: frozenset({S.IN_USE, S.DELETING, S.FAILED}),
    S.IN_USE: frozenset({S.DELETING, S.FAILED}),
    S.DELETING: frozenset({S.DELETED, S.LEAKED}),
    S.DELETED: frozenset(),
    S.FAILED: frozenset({S.LEAKED}),
    S.LEAKED: frozenset({S.DELETING, S.DELETED}),
}
"""Which state of a volume may follow which. A volume that somebody waits for goes from creating to in_use."""

VNFP_TRANSITIONS: Mapping[VnfpState, frozenset[VnfpState]] = {
    VnfpState.CREATING: frozenset({VnfpState.ACTIVE, VnfpState.ERROR, VnfpState.DELETING}),
    VnfpState.ACTIVE: frozenset({VnfpState.CREATING, VnfpState.ERROR, VnfpState.DELETING}),
    VnfpState.ERROR: frozenset({VnfpState.DELETING}),
    VnfpState.DELETING: frozenset({VnfpState.DELETED}),
    VnfpState.DELETED: frozenset(),
}
"""Which state of a VNF may follow which. From active back to creating: the spare that it claimed is gone."""

MAX_TRIES = 3
"""So many volumes are made for one request, one after another, before it is refused."""
MAX_EVICTIONS = 3
"""So many spares may be deleted for one request that is refused for the quota."""
LOOK_FOR = timedelta(seconds=30)
"""For how long to look for a volume whose creation was not answered. One that appears later is swept."""
STUCK_AFTER = timedelta(minutes=30)
"""After so long in ``creating`` a volume counts as failed."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume's row."""

    id: str
    type: str
    size_gb: int
    name: str
    """What it shall be called."""
    state: VolumeState
    created_at: datetime
    now: datetime
    """The database's clock when the row was read."""
    from_pool: bool = False
    """It was made as a spare."""
    named: str = ""
    """The name that the backend was last given."""
    backend_id: str | None = None
    """The backend's id; ``id`` is the controller's own."""
    path: str = ""
    vnfp: str | None = None
    """The VNF that it belongs to; else ``run``, with ``key`` for its name there."""
    run: str | None = None
    key: str | None = None
    retain: bool = False
    tries: int = 1
    """Its number among the volumes made for its owner."""
    evictions: int = 0
    """Spares that were deleted to make room for it."""
    posted_at: datetime | None = None
    """When the backend was asked for it, or was about to be; without ``backend_id`` it must be looked for."""
    gone_at: datetime | None = None
    """Since when the backend is known not to have it."""
    reason: str = ""
    version: int = 1

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it or owns it."""
        return self.vnfp is not None or self.run is not None


class Work(StrEnum):
    """What to do about a volume in the backend now."""

    NOTHING = "nothing"
    CREATE = "create"
    LOOK_FOR = "look_for"
    """It may have been made: ask the backend by our id."""
    FOLLOW = "follow"
    RENAME = "rename"
    DELETE = "delete"


def work_of(volume: Volume) -> Work:
    """What to do next. It depends on the row alone, so another controller can continue."""
    match volume.state:
        case VolumeState.INTENT:
            return Work.CREATE if volume.posted_at is None else Work.LOOK_FOR
        case VolumeState.CREATING:
            return Work.FOLLOW
        case VolumeState.CLAIMED:
            return Work.RENAME
        case VolumeState.IN_USE:
            return Work.RENAME if volume.name != volume.named else Work.NOTHING
        case VolumeState.DELETING:
            return _end_of(volume)
        case VolumeState.FAILED:
            return Work.NOTHING if volume.gone_at is not None else _end_of(volume)
        case _:
            return Work.NOTHING


def _end_of(volume: Volume) -> Work:
    if volume.backend_id is None and volume.posted_at is not None:
        return Work.LOOK_FOR
    return Work.DELETE


def gives_up_looking(volume: Volume, now: datetime) -> bool:
    """Whether a volume whose creation was not answered counts as not made."""
    return volume.posted_at is None or now - volume.posted_at >= LOOK_FOR


def is_stuck(volume: Volume, now: datetime) -> bool:
    """Whether it has been in ``creating`` for too long."""
    since = volume.posted_at or volume.created_at
    return now - since >= STUCK_AFTER


def state_when_available(volume: Volume) -> VolumeState:
    """The state of a volume that the backend has made: in_use if it has an owner, else ready."""
    return VolumeState.IN_USE if volume.wanted else VolumeState.READY


def may_try_again(volume: Volume) -> bool:
    """Whether another volume is made for the owner of this one, which failed. That includes a spare that a VNF has just
    claimed and that is gone; but a run knows already which volume it has.
    """
    awaited = volume.wanted and volume.state in {VolumeState.INTENT, VolumeState.CREATING}
    just_claimed = volume.vnfp is not None and volume.state is VolumeState.CLAIMED
    return (awaited or just_claimed) and volume.tries < MAX_TRIES
