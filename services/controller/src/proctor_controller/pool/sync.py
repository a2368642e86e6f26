"""The job *sync*: compares our rows with the backend's list, finds lost volumes, deletes strays."""

from collections import Counter
from datetime import timedelta

import structlog

from proctor_common.clock import Clock
from proctor_common.states import VolumeState
from proctor_controller.db.pool.claims import settle_orphans
from proctor_controller.db.pool.jobs import note_strays
from proctor_controller.db.pool.pools import load_pool_state
from proctor_controller.db.pool.volumes import change_volume, load_alive, purge_old
from proctor_controller.domain.volumes.sync import Findings, Seen, compare, may_delete, sizes_of
from proctor_controller.domain.volumes.volume import Volume
from proctor_controller.pool import job_outcomes
from proctor_controller.pool.fenced_session import Desk
from proctor_controller.volumes.backend import BackendFault, FoundState, FoundVolume

log = structlog.get_logger(__name__)

SLACK = 1.0


class Sync:
    """One for each hold of the duty. ``strays``: how many the last run has seen and left for now."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self.strays = 0

    async def run(self) -> str:
        """Compare once; returns the outcome. One list of the backend, and a call for each difference.

        Raises BackendFault, ProctorError, DutyLostError.
        """
        listed = await self._desk.backend.list_ours()
        async with self._desk.writing() as db:
            orphaned = await settle_orphans(db)
            await purge_old(db)
            # After the list: a volume in it that we made has its row by now.
            rows = await load_alive(db)
        for run in orphaned:
            log.warning("run_left_volumes", run=run)
        by_id = {found.backend_id: found for found in listed}
        findings = compare(rows, [_seen(found) for found in listed])
        done = Counter[str]()
        await self._adopt(findings, done)
        await self._judge(findings, by_id, done)
        await self._miss(findings, done)
        await self._sweep(findings, done)
        if done:
            self._desk.progress()
        if self.strays:
            done["strays seen"] = self.strays
        return f"{len(listed)} volumes" + (f"; {sizes_of(done)}" if done else ", nothing new")

    async def _adopt(self, findings: Findings, done: Counter[str]) -> None:
        for row, seen in findings.adopt:
            if await job_outcomes.became_known(self._desk, row, seen.backend_id) is not None:
                done["found again"] += 1

    async def _judge(self, findings: Findings, by_id: dict[str, FoundVolume], done: Counter[str]) -> None:
        for row, seen in findings.available:
            if await job_outcomes.became_available(self._desk, row, by_id[seen.backend_id]) is not None:
                done["available"] += 1
        for row, seen in findings.broken:
            reason = f"it is {seen.state} in the backend" + (f": {seen.reason}" if seen.reason else "")
            if row.state in {VolumeState.CLAIMED, VolumeState.IN_USE}:
                if row.reason != reason:
                    await job_outcomes.went_bad(self._desk, row, reason)
                    done["broken in use"] += 1
            elif seen.state in {FoundState.IN_USE, FoundState.OTHER}:
                # Somebody has attached it outside of Proctor: remove it from the pool without deleting it.
                await job_outcomes.is_stuck(self._desk, row, reason)
                done["taken by others"] += 1
            elif await job_outcomes.failed(self._desk, row, reason, gone=False) is not None:
                done["failed"] += 1
        for row in findings.stuck:
            await self._try_stuck(row, by_id, done)

    async def _try_stuck(self, row: Volume, by_id: dict[str, FoundVolume], done: Counter[str]) -> None:
        """A leaked volume that an operator has cleared, or whose deletion may be tried again."""
        found = by_id.get(row.backend_id or "") or await self._desk.backend.get(row.backend_id or "")
        if found is None:
            await job_outcomes.is_gone(self._desk, row)
            done["gone"] += 1
        elif found.state in {FoundState.AVAILABLE, FoundState.ERROR}:
            async with self._desk.writing() as db:
                await change_volume(db, self._desk.held, row, state=VolumeState.DELETING)
            done["deleted again"] += 1

    async def _miss(self, findings: Findings, done: Counter[str]) -> None:
        """A list may lag behind, so each volume that is not in it is looked up by its id."""
        for row in findings.missing:
            try:
                found = await self._desk.backend.get(row.backend_id or "")
            except BackendFault as fault:
                log.warning("volume_not_seen", volume=row.id, error=str(fault))
                continue
            if found is not None:
                continue
            if await job_outcomes.failed(self._desk, row, "it is gone from the backend", gone=True) is not None:
                done["gone"] += 1

    async def _sweep(self, findings: Findings, done: Counter[str]) -> None:
        """Volumes with our mark but without a row: deleted by id when they are seen again after a while."""
        async with self._desk.writing() as db:
            first_seen = await note_strays(db, findings.strays)
            now = (await load_pool_state(db))["now"]
        age = timedelta(seconds=self._desk.settings.stray_age)
        self.strays = 0
        for stray in findings.strays:
            since = first_seen.get(stray.backend_id, now)
            if not may_delete(since, now, age):
                self.strays += 1
                log.warning("stray_seen", backend_id=stray.backend_id, volume=stray.volume_id, since=since.isoformat())
                continue
            # Check again right before: a keeper that was paused since it listed must not act on old data.
            async with self._desk.writing():
                pass
            try:
                await self._desk.backend.delete(stray.backend_id)
            except BackendFault as fault:
                self.strays += 1
                log.error("stray_not_deleted", backend_id=stray.backend_id, error=str(fault))
                continue
            log.warning("stray_deleted", backend_id=stray.backend_id, volume=stray.volume_id)
            done["strays deleted"] += 1


def _seen(found: FoundVolume) -> Seen:
    return Seen(found.backend_id, found.volume_id, found.state.value, found.reason, found.path)
