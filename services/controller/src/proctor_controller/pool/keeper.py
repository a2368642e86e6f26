"""The keeper: the one controller that works for the pool, as long as it holds the duty ``pool``.

It keeps nothing in memory that it cannot lose. All work is stored in rows; a wake-up (from any controller, after a
commit) or a tick makes it look. If it is cancelled at any point, the next keeper continues from the rows.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.clock import Clock
from proctor_common.errors import ProctorError
from proctor_controller.db.duties import Held
from proctor_controller.db.pool import jobs as rows
from proctor_controller.db.pool.pools import apply_types, count_volumes, load_pool_state
from proctor_controller.db.pool.volumes import load_work
from proctor_controller.db.session import session
from proctor_controller.domain.volumes.breaker import BACKEND, FAILURES, Breaker
from proctor_controller.pool.backends import NoBackendError, Opener, open_backend
from proctor_controller.pool.fenced_session import Desk, DutyLostError, Notice, tell_nobody
from proctor_controller.pool.metered import Counted
from proctor_controller.pool.replenisher import Refill
from proctor_controller.pool.source import PoolSource
from proctor_controller.pool.sync import Sync
from proctor_controller.pool.throttle import Throttle
from proctor_controller.pool.timers import Timers
from proctor_controller.pool.volume_worker import Tender
from proctor_controller.volumes.backend import BackendFault

log = structlog.get_logger(__name__)

TICK = 2.0
BREATH = 0.03
"""Minimum time between two rounds, so that many changes cause one."""
AT_ONCE = 500


class Keeper:
    """Makes a new hold of the duty for each turn. ``woken`` is set by everything that gives the pool work."""

    def __init__(
        self,
        database: AsyncEngine,
        source: PoolSource,
        clock: Clock,
        *,
        folder: Path | None,
        opener: Opener = open_backend,
    ) -> None:
        self._opener = opener
        self._database = database
        self._source = source
        self._clock = clock
        self._folder = folder
        self.woken = asyncio.Event()
        self.calls = Counter[tuple[str, str]]()
        """Calls of the backend by this process: (call, outcome) -> number."""

    async def turn(self, held: Held, *, notice: Notice = tell_nobody) -> None:
        """Keep the pool until the duty is lost, or the backend's settings change. Raises ProctorError."""
        while True:
            try:
                settings = self._source.read()
                async with session(self._database) as db:
                    state = await load_pool_state(db)
                    idle = not settings.types and not await count_volumes(db)
                if idle:
                    await self._apply_nothing(held)
                    continue
                backend = Counted(self._opener(settings, str(state["installation"]), self._folder), self.calls)
            except NoBackendError as fault:
                log.error("pool_without_backend", error=str(fault))
                await self._show_fault(held, str(fault))
                await self._nap(TICK * 5)
                continue
            desk = Desk(self._database, held, backend, settings, progress=self.woken.set, notice=notice)
            hold = _Hold(desk, self._source, self._clock, self.woken, state["reload"])
            try:
                await hold.run()
            except DutyLostError:
                return
            finally:
                await hold.close()
                await backend.close()

    async def _apply_nothing(self, held: Held) -> None:
        """No type is listed and no volume is left: only wait for that to change."""
        async with session(self._database) as db, db.transaction():
            if await rows.holds_pool(db, held):
                await apply_types(db, {})
                for job in await rows.load_asked(db):
                    if await rows.start_job(db, job, held.epoch):
                        await rows.finish_job(db, job, held.epoch, "nothing to do: no type is listed")
        await self._nap(TICK)

    async def _show_fault(self, held: Held, reason: str) -> None:
        """Store why nothing is made, for views and metrics; the next try with a backend is free again."""
        async with session(self._database) as db, db.transaction():
            if await rows.holds_pool(db, held):
                now = (await load_pool_state(db))["now"]
                await rows.save_breaker(db, Breaker(BACKEND, FAILURES, opened_at=now, probe_at=now, reason=reason))

    async def _nap(self, seconds: float) -> None:
        self.woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()


class _Hold:
    """The duty, held: the loop, the two jobs, the tasks."""

    def __init__(self, desk: Desk, source: PoolSource, clock: Clock, woken: asyncio.Event, reload: int) -> None:
        self._desk = desk
        self._source = source
        self._woken = woken
        self._reload = reload
        self._gate = Throttle(desk)
        self._refill = Refill(desk, self._gate, clock)
        self._sync = Sync(desk, clock)
        self._tender = Tender(desk, self._gate, refused=self._refill.refused, lost=self._lose)
        self._timers = Timers(self._clocked)
        self._jobs: set[asyncio.Task[None]] = set()
        self._looked = asyncio.Condition()
        self._lost = False
        desk.gone = self._refill.room_again

    async def run(self) -> None:
        """Run until the settings name another backend. Raises DutyLostError."""
        async with self._desk.writing() as db:
            await rows.end_interrupted(db)
        await self._apply()
        self._timers.start()
        self._spawn(self._run_job("replenish"))
        while True:
            self._woken.clear()
            wait: float | None = None
            try:
                if not await self._reread():
                    return
                wait = await self._look()
            except ProctorError as fault:
                log.warning("pool_round_failed", error=fault.message)
            if self._lost:
                raise DutyLostError
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(BREATH)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(TICK, wait if wait is not None else TICK)):
                    await self._woken.wait()

    async def close(self) -> None:
        """Cancel everything."""
        self._timers.close()
        for task in self._jobs:
            task.cancel()
        if self._jobs:
            await asyncio.wait(set(self._jobs), timeout=5)
        await self._tender.close()

    def _lose(self) -> None:
        self._lost = True
        self._woken.set()

    async def _apply(self) -> None:
        settings = self._desk.settings
        async with self._desk.writing() as db:
            await apply_types(db, settings.types)
        self._timers.apply(settings)
        await self._gate.refresh()
        log.info("pool_settings", backend=settings.backend, targets={n: t.target for n, t in settings.types.items()})

    async def _reread(self) -> bool:
        """Read the file again if somebody asked for it; False if another backend has to be opened."""
        async with self._desk.reading() as db:
            asked = (await load_pool_state(db))["reload"]
        if asked == self._reload:
            return True
        self._reload = asked
        settings, old = self._source.read(), self._desk.settings
        if not settings.same_backend(old) or not settings.types:
            return False
        self._desk.settings = settings
        await self._apply()
        self._spawn(self._run_job("replenish"))
        return True

    async def _look(self) -> float | None:
        """One round: volumes with work, missing spares, creations that may be tried, requested jobs."""
        await self._gate.refresh()
        async with self._desk.reading() as db:
            work = await load_work(db, AT_ONCE)
            asked = await rows.load_asked(db)
        for volume in work:
            self._tender.start(volume)
        for name in asked:
            self._spawn(self._run_job(name))
        await self._refill.look()
        return await self._refill.ask_next(self._tender)

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="pool job")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _clocked(self, name: str) -> None:
        self._spawn(self._run_job(name))

    async def _run_job(self, name: str) -> None:
        """Run a job, unless its former run is still in progress in any replica, which is recorded."""
        epoch = self._desk.held.epoch
        try:
            async with self._desk.writing() as db:
                started = await rows.start_job(db, name, epoch)
            if not started:
                log.warning("pool_job_skipped", job=name, reason="the former run is still at work")
                return
            outcome = await self._outcome_of(name)
        except DutyLostError:
            self._lose()
            return
        except ProctorError as fault:
            outcome = f"failed: {fault.message}"
        log.info("pool_job_done", job=name, outcome=outcome)
        await self._finish(name, outcome)

    async def _finish(self, name: str, outcome: str) -> None:
        """Store the end of a run, as soon as the database is available: a run without end blocks the next one."""
        while True:
            try:
                async with self._desk.writing() as db:
                    await rows.finish_job(db, name, self._desk.held.epoch, outcome)
                return
            except DutyLostError:
                self._lose()
                return
            except ProctorError:
                await asyncio.sleep(TICK)

    async def _outcome_of(self, name: str) -> str:
        try:
            return await (self._replenish() if name == "replenish" else self._run_sync())
        except BackendFault as fault:
            return f"failed: {fault}"
        except (ProctorError, DutyLostError):
            raise
        except Exception as fault:
            # The run must end in the rows; the next one tries again.
            log.exception("pool_job_failed", job=name)
            return f"failed: {type(fault).__name__}"

    async def _replenish(self) -> str:
        """Run until everything missing has been requested, or something prevents that."""
        await self._refill.begin_run()
        self._woken.set()
        async with self._looked:
            while self._refill.missing and not self._refill.stalled and not self._refill.obstacle():
                await self._looked.wait()
        return await self._refill.end_run()

    async def _run_sync(self) -> str:
        outcome = await self._sync.run()
        if self._sync.strays:
            # Strays are checked a second time at their own time; the next run by the clock may be much later.
            self._spawn(self._sweep_later())
        return outcome

    async def _sweep_later(self) -> None:
        await asyncio.sleep(self._desk.settings.stray_age + 0.5)
        await self._run_job("sync")
