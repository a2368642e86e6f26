"""Updates a volume's row, and its owner, after an answer of the backend. One transaction each."""

import structlog

from proctor_common.states import VnfpState, VolumeState
from proctor_controller.db.pool.vnfps import end_vnfp, point_vnfp, tell_vnfp
from proctor_controller.db.pool.volumes import change_volume, insert_again, load_volume
from proctor_controller.domain.volumes.volume import Volume, may_try_again, state_when_available
from proctor_controller.pool.fenced_session import Desk
from proctor_controller.volumes.backend import FoundVolume

log = structlog.get_logger(__name__)


async def became_known(desk: Desk, volume: Volume, backend_id: str) -> Volume | None:
    """The backend has it under this id, even if the row has changed; returns the row, None if it has ended."""
    while True:
        async with desk.reading() as db:
            current = await load_volume(db, volume.id)
            if current is None or current.gone_at is not None or current.backend_id not in {None, backend_id}:
                log.warning("volume_without_row", volume=volume.id, backend_id=backend_id)
                return None
            if current.backend_id is not None:
                return current
            state = VolumeState.CREATING if current.state is VolumeState.INTENT else current.state
            changed = await change_volume(db, desk.held, current, state=state, backend_id=backend_id)
        if changed is not None:
            return changed
        await desk.check()


async def became_available(desk: Desk, volume: Volume, found: FoundVolume) -> Volume | None:
    """A spare is ready, or its owner has it. None if the row has changed meanwhile."""
    async with desk.together(volume.vnfp is not None) as db:
        changed = await change_volume(
            db, desk.held, volume, state=state_when_available(volume), path=found.path, named=found.name, reason=""
        )
        if changed is not None and volume.vnfp is not None:
            await tell_vnfp(db, volume, VnfpState.ACTIVE)
    if changed is not None:
        await _tell(desk, changed)
    return changed


async def was_renamed(desk: Desk, volume: Volume) -> Volume | None:
    """The backend has the name from the claim."""
    async with desk.reading() as db:
        return await change_volume(db, desk.held, volume, state=VolumeState.IN_USE, named=volume.name)


async def failed(desk: Desk, volume: Volume, reason: str, *, gone: bool, again: bool = True) -> Volume | None:
    """It is unusable. An owner that waits gets another one, up to three; one that has it is notified.

    ``gone``: the backend has nothing of it. ``again`` False: another one would fail too.
    """
    log.warning("volume_failed", volume=volume.id, type=volume.type, reason=reason, gone=gone)
    async with desk.writing() as db:
        changed = await change_volume(db, desk.held, volume, state=VolumeState.FAILED, reason=reason, gone=gone)
        if changed is None:
            return None
        if again and may_try_again(volume):
            fresh = await insert_again(db, volume)
            if volume.vnfp is not None:
                await point_vnfp(db, changed, fresh)
        elif volume.vnfp is not None:
            await tell_vnfp(db, volume, VnfpState.ERROR, reason)
    await _tell(desk, changed)
    return changed


async def went_bad(desk: Desk, volume: Volume, reason: str) -> None:
    """An owned volume is in error. It may contain data, so it is kept until the owner releases it."""
    async with desk.writing() as db:
        if await change_volume(db, desk.held, volume, reason=reason) is not None and volume.vnfp is not None:
            await tell_vnfp(db, volume, VnfpState.ERROR, reason)
    await _tell(desk, volume)


async def is_gone(desk: Desk, volume: Volume) -> Volume | None:
    """A volume that was to be deleted is gone."""
    async with desk.together(volume.vnfp is not None) as db:
        if volume.state is VolumeState.FAILED:
            changed = await change_volume(db, desk.held, volume, gone=True)
        else:
            changed = await change_volume(db, desk.held, volume, state=VolumeState.DELETED, gone=True)
            if changed is not None and volume.vnfp is not None:
                await end_vnfp(db, volume)
    if changed is not None:
        await desk.gone()
        desk.progress()
    return changed


async def is_stuck(desk: Desk, volume: Volume, reason: str) -> Volume | None:
    """The backend does not delete it: an operator must."""
    log.error("volume_leaked", volume=volume.id, backend_id=volume.backend_id, reason=reason)
    async with desk.writing() as db:
        return await change_volume(db, desk.held, volume, state=VolumeState.LEAKED, reason=reason)


async def _tell(desk: Desk, volume: Volume) -> None:
    desk.progress()
    runs = [volume.run] if volume.run is not None else []
    types = [volume.type] if volume.state is VolumeState.READY else []
    if runs or types:
        await desk.notice(runs, types)
