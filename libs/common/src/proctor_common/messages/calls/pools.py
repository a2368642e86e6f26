"""Operations on volumes: pools, volumes, VNFs."""

from pydantic import Field

from proctor_common.messages.base import WireMessage
from proctor_common.messages.calls.operation import Operation
from proctor_common.messages.pages import PoolPage, VnfpPage, VolumePage
from proctor_common.messages.pool_views import JobView, PoolView, VnfpView, VolumeView
from proctor_common.states import VnfpState, VolumeState


class PoolList(WireMessage):
    """All pools, by type. On reload every controller reads its file again."""


class PoolPut(WireMessage):
    """Set a target by hand, valid until the file's own value changes."""

    type: str
    target: int = Field(ge=0, le=10_000)


class VolumeList(WireMessage):
    """Newest first; deleted ones only with ``state``."""

    state: VolumeState | None = None
    type: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class VolumeRef(WireMessage):
    """A volume that a run has retained."""

    volume: str


class VnfpCreate(WireMessage):
    """The api chooses ``id``, so that a repeated request makes nothing twice."""

    id: str
    name: str = Field(min_length=1, max_length=255)
    type: str
    size_gb: int | None = Field(default=None, ge=1, le=100_000)


class VnfpRef(WireMessage):
    """``vnfp``: its id."""

    vnfp: str


class VnfpList(WireMessage):
    """Newest first; deleted ones only with ``state``."""

    state: VnfpState | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


LIST_POOLS = Operation("pool.list", PoolList, PoolPage)
PUT_POOL = Operation("pool.put", PoolPut, PoolView)
REPLENISH_POOLS = Operation("pool.replenish", PoolList, JobView)
SYNC_POOLS = Operation("pool.sync", PoolList, JobView)
RELOAD_POOLS = Operation("pool.reload", PoolList, PoolPage)

LIST_VOLUMES = Operation("volume.list", VolumeList, VolumePage)
DELETE_VOLUME = Operation("volume.delete", VolumeRef, VolumeView)

CREATE_VNFP = Operation("vnfp.create", VnfpCreate, VnfpView)
GET_VNFP = Operation("vnfp.get", VnfpRef, VnfpView)
LIST_VNFPS = Operation("vnfp.list", VnfpList, VnfpPage)
DELETE_VNFP = Operation("vnfp.delete", VnfpRef, VnfpView)
