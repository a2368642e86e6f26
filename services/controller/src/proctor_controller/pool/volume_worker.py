"""Works on volumes: a task for each volume that needs the backend, until it needs nothing more.

The next step follows from the row alone (``work_of``), and each is committed before the next one: the process may be
killed at any point, and another keeper continues from the row.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from proctor_common.errors import ProctorError
from proctor_common.states import VolumeState
from proctor_controller.db.pool.volumes import load_volume, mark_not_posted, mark_posted
from proctor_controller.domain.volumes.breaker import BACKEND
from proctor_controller.domain.volumes.volume import Volume, Work, gives_up_looking, is_stuck, work_of
from proctor_controller.pool import job_outcomes
from proctor_controller.pool.fenced_session import Desk, DutyLostError
from proctor_controller.pool.throttle import Throttle
from proctor_controller.volumes.backend import (
    AnswerLost,
    BackendBusy,
    BackendFault,
    BadRequest,
    FoundState,
    NotNow,
    QuotaRefused,
    Stuck,
)

log = structlog.get_logger(__name__)

FIRST_WAIT, LONGEST_WAIT, GROWTH = 0.1, 5.0, 1.6
LONGEST_WAIT_AFTER_FAULTS = 60.0
CALLS_AT_ONCE = 10
Refused = Callable[[Volume, str], Coroutine[Any, Any, None]]
"""Called when a creation was refused for the quota, with the reason."""


class Tender:
    """The tasks of the volumes with work. ``lost`` is called when another controller holds the duty."""

    def __init__(self, desk: Desk, gate: Throttle, *, refused: Refused, lost: Callable[[], None]) -> None:
        self._desk = desk
        self._gate = gate
        self._refused = refused
        self._lost = lost
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, int] = {}
        self._pokes: dict[str, asyncio.Event] = {}
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self.posting = 0
        """Creations that the backend has not answered yet."""

    @property
    def active(self) -> list[str]:
        """Ids of the volumes with a task."""
        return list(self._tasks)

    def start(self, volume: Volume) -> None:
        """Work on a volume. If a task has it already, but with an older row, it looks again at once."""
        if volume.id in self._tasks:
            if volume.version != self._seen.get(volume.id, volume.version):
                self._pokes[volume.id].set()
        else:
            self._pokes[volume.id] = asyncio.Event()
            task = asyncio.create_task(self._guarded(volume), name=f"tend volume {volume.id}")
            self._tasks[volume.id] = task
            task.add_done_callback(lambda _: self._ended(volume.id))

    def _ended(self, volume: str) -> None:
        self._tasks.pop(volume, None)
        self._pokes.pop(volume, None)
        self._seen.pop(volume, None)
        self._desk.progress()

    async def close(self) -> None:
        """Cancel everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _guarded(self, volume: Volume) -> None:
        try:
            await self._tend(volume)
        except DutyLostError:
            self._lost()
        except Exception:
            # One volume must not stop the others; the keeper's next round tries again.
            log.exception("volume_not_tended", volume=volume.id)
            await asyncio.sleep(LONGEST_WAIT)

    async def _tend(self, volume: Volume) -> None:
        wait = FIRST_WAIT
        current: Volume | None = volume
        asked_to_go = False
        while current is not None and work_of(current) is not Work.NOTHING:
            before, longest = current, LONGEST_WAIT
            self._seen[before.id] = before.version
            try:
                if work_of(current) is Work.CREATE:
                    current = await self._create(current)
                    if current is None:
                        return
                elif work_of(current) is Work.DELETE:
                    asked_to_go, current = await self._delete(current, asked_to_go)
                else:
                    current = await self._step(current)
            except (BackendFault, ProctorError) as fault:
                log.warning("volume_call_failed", volume=before.id, work=work_of(before).value, error=str(fault))
                current, longest = before, LONGEST_WAIT_AFTER_FAULTS
            if current is not None and current.version != before.version:
                wait = FIRST_WAIT
                continue
            await self._rest(before.id, wait)
            wait = min(wait * GROWTH, longest)
            current = await self._again(before)

    async def _rest(self, volume: str, seconds: float) -> None:
        """Wait, but at most until the row is changed by somebody else."""
        poke = self._pokes[volume]
        poke.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await poke.wait()

    async def _again(self, volume: Volume) -> Volume | None:
        try:
            async with self._desk.reading() as db:
                return await load_volume(db, volume.id)
        except ProctorError:
            return volume

    # -- creation -------------------------------------------------------------------------------------------------

    async def _create(self, volume: Volume) -> Volume | None:
        """Ask the backend for it, once. None: it was not made and waits in the queue, or the row has changed."""
        async with self._desk.reading() as db:
            posted = await mark_posted(db, self._desk.held, volume)
        if posted is None:
            return None
        self.posting += 1
        try:
            backend_id = await self._desk.backend.create(posted.id, posted.name, posted.type, posted.size_gb)
        except AnswerLost as fault:
            log.warning("volume_answer_lost", volume=posted.id, error=str(fault))
            await self._gate.fail(BACKEND, str(fault))
            return await self._again(posted)
        except BadRequest as fault:
            await job_outcomes.failed(self._desk, posted, str(fault), gone=True, again=False)
            await self._gate.fail(posted.type, str(fault))
            return None
        except BackendFault as fault:
            await self._not_made(posted, fault)
            return None
        finally:
            self.posting -= 1
        await self._gate.succeed(BACKEND)
        return await job_outcomes.became_known(self._desk, posted, backend_id)

    async def _not_made(self, volume: Volume, fault: BackendFault) -> None:
        """The backend refused and made nothing: the row goes back into the queue."""
        async with self._desk.reading() as db:
            current = await load_volume(db, volume.id)
            if current is not None and current.backend_id is None:
                await mark_not_posted(db, self._desk.held, current, str(fault))
        if isinstance(fault, QuotaRefused):
            await self._refused(volume, str(fault))
        elif isinstance(fault, BackendBusy):
            self._gate.rest(fault.after)
        else:
            await self._gate.fail(BACKEND, str(fault))

    # -- the rest of its life -------------------------------------------------------------------------------------

    async def _step(self, volume: Volume) -> Volume | None:
        async with self._calls:
            match work_of(volume):
                case Work.LOOK_FOR:
                    return await self._look_for(volume)
                case Work.FOLLOW:
                    return await self._follow(volume)
                case _:
                    return await self._rename(volume)

    async def _look_for(self, volume: Volume) -> Volume | None:
        found = await self._desk.backend.find(volume.id)
        if found:
            oldest = min(found, key=lambda each: (each.created_at is None, each.created_at, each.backend_id))
            return await job_outcomes.became_known(self._desk, volume, oldest.backend_id)
        current = await self._again(volume)
        if current is None or current.version != volume.version or not gives_up_looking(current, current.now):
            return current
        if current.state is not VolumeState.INTENT:
            return await job_outcomes.is_gone(self._desk, current)
        reason = "the backend did not answer when it was asked for it, and has not made it"
        return await job_outcomes.failed(self._desk, current, reason, gone=True)

    async def _follow(self, volume: Volume) -> Volume | None:
        found = await self._desk.backend.get(volume.backend_id or "")
        if found is None:
            return await job_outcomes.failed(self._desk, volume, "it is gone from the backend", gone=True)
        if found.state is FoundState.AVAILABLE:
            changed = await job_outcomes.became_available(self._desk, volume, found)
            await self._gate.succeed(volume.type)
            return changed
        current = volume
        if found.state is FoundState.CREATING:
            reread = await self._again(volume)
            if reread is None or reread.version != volume.version or not is_stuck(reread, reread.now):
                return reread
            current = reread
        state = found.state.value
        reason = f"it is {state} in the backend" + (f": {found.reason}" if found.reason else "")
        changed = await job_outcomes.failed(self._desk, current, reason, gone=False)
        await self._gate.fail(volume.type, reason)
        return changed

    async def _rename(self, volume: Volume) -> Volume | None:
        if volume.name != volume.named and not await self._desk.backend.rename(volume.backend_id or "", volume.name):
            return await job_outcomes.failed(self._desk, volume, "it is gone from the backend", gone=True)
        return await job_outcomes.was_renamed(self._desk, volume)

    async def _delete(self, volume: Volume, asked: bool) -> tuple[bool, Volume | None]:
        """Ask for its deletion once, then poll until it is gone; returns whether it was asked for, and the row."""
        if volume.backend_id is None:
            return asked, await job_outcomes.is_gone(self._desk, volume)
        async with self._calls:
            try:
                if not asked:
                    there = await self._desk.backend.delete(volume.backend_id)
                    return True, volume if there else await job_outcomes.is_gone(self._desk, volume)
                found = await self._desk.backend.get(volume.backend_id)
            except NotNow:
                return False, volume
            except Stuck as fault:
                return False, await job_outcomes.is_stuck(self._desk, volume, str(fault))
        if found is None:
            return True, await job_outcomes.is_gone(self._desk, volume)
        if found.state is FoundState.ERROR_DELETING:
            return False, await job_outcomes.is_stuck(
                self._desk, volume, found.reason or "error_deleting in the backend"
            )
        return found.state is FoundState.DELETING, volume
