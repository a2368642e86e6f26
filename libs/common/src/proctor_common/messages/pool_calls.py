"""Requests of the api to the controllers that are about volumes: pools, volumes, VNFs (``calls`` has the table)."""

from pydantic import Field

from proctor_common.messages.base import Message
from proctor_common.states import VnfpState, VolumeState


class PoolList(Message):
    """``pool.list`` -> Listing of PoolView, by type; all of them. ``pool.replenish|sync`` -> JobView,
    ``pool.reload`` -> Listing of PoolView: every controller reads its file again.
    """


class PoolPut(Message):
    """``pool.put`` -> PoolView: set a target by hand; it stands until the file's own value changes."""

    type: str
    target: int = Field(ge=0, le=10_000)


class VolumeList(Message):
    """``volume.list`` -> Listing of VolumeView, newest first; deleted ones only with ``state``."""

    state: VolumeState | None = None
    type: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class VolumeRef(Message):
    """``volume.delete`` -> VolumeView: delete a volume that a run has retained."""

    volume: str


class VnfpCreate(Message):
    """``vnfp.create`` -> VnfpView. ``id`` is chosen by the api: a repeated request makes nothing twice."""

    id: str
    name: str = Field(min_length=1, max_length=255)
    type: str
    size_gb: int | None = Field(default=None, ge=1, le=100_000)


class VnfpRef(Message):
    """``vnfp.get|delete`` -> VnfpView."""

    vnfp: str


class VnfpList(Message):
    """``vnfp.list`` -> Listing of VnfpView, newest first; deleted ones only with ``state``."""

    state: VnfpState | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None
