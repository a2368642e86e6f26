"""The volume pool of a controller: claims in every replica, the keeper in the one that holds the duty."""

import asyncio
import contextlib
from itertools import count
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus, BusError, Subscription
from proctor_common.clock import Clock
from proctor_common.errors import ProctorError, not_found
from proctor_controller.db.pool.claims import Demand
from proctor_controller.db.pool.jobs import ask_job, load_breakers, load_jobs
from proctor_controller.db.pool.pools import PoolRow, add_types, apply_types, ask_reload, load_pools, load_sizes
from proctor_controller.db.session import session
from proctor_controller.domain.volumes.settings import BadPoolSettings
from proctor_controller.pool.claims import Claims
from proctor_controller.pool.demands import Demands
from proctor_controller.pool.keeper import Keeper
from proctor_controller.pool.snapshot import Snapshot
from proctor_controller.pool.source import PoolSource

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 2.0
WAKE_SECONDS = 0.01
SETTLE_EVERY = 15


class VolumePool:
    """Built once a process. ``keeper.turn`` is the work of the duty ``pool``."""

    def __init__(
        self,
        database: AsyncEngine,
        bus: Bus,
        clock: Clock,
        *,
        file: Path | None,
        folder: Path | None,
        default_backend: str = "",
    ) -> None:
        self._database = database
        self._bus = bus
        self.source = PoolSource(file, default_backend=default_backend)
        self.keeper = Keeper(database, self.source, clock, folder=folder)
        self.demands = Demands(database, clock, self.wake)
        self.claims = Claims(database, clock, self.wake, self.demands.note)
        self.snapshot = Snapshot()
        self._sizes: dict[str, int] = {}
        self._subscription: Subscription | None = None
        self._waking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen for wake-ups. Raises BusError, ProctorError, and BadPoolSettings for an unusable file."""
        settings = self.source.check()
        async with session(self._database) as db:
            await add_types(db, settings.types)
        self._subscription = await self._bus.subscribe(subjects.POOL_WAKE, lambda _: self.keeper.woken.set())

    async def close(self) -> None:
        """Stop listening, wait for claims, store the statistics."""
        if self._subscription is not None:
            await self._subscription.close()
        if self._waking is not None:
            self._waking.cancel()
        await self.demands.close()
        with contextlib.suppress(ProctorError):
            await self.demands.flush()

    async def wake(self) -> None:
        """Wake the keeper, in whichever controller it is. A lost wake-up delays work by two seconds."""
        self.keeper.woken.set()
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._publish(), name="wake the pool")

    async def _publish(self) -> None:
        # Many claims at once are one wake-up.
        await asyncio.sleep(WAKE_SECONDS)
        with contextlib.suppress(BusError):
            await self._bus.publish(subjects.POOL_WAKE, b"")

    async def watch(self) -> None:
        """Update the statistics and the metrics, and settle ended runs; until cancelled."""
        for tick in count():
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                if tick % SETTLE_EVERY == 0:
                    await self.claims.settle_over()
                await self.demands.flush()
                self.snapshot.pools = await self.pools()
                async with session(self._database) as db:
                    self.snapshot.breakers = await load_breakers(db)
                    self.snapshot.jobs = await load_jobs(db)
                self._sizes = {row.type: row.size_gb for row in self.snapshot.pools if row.listed}
            except ProctorError as fault:
                log.warning("pool_figures_not_read", error=fault.message)

    async def pools(self) -> list[PoolRow]:
        """All types, including those no longer listed. Raises ProctorError."""
        async with session(self._database) as db:
            return await load_pools(db)

    async def size_of(self, type: str) -> int:
        """The default size of a volume of the type. Raises ProctorError ``not_found``."""
        if type not in self._sizes:
            async with session(self._database) as db:
                self._sizes = await load_sizes(db)
        if type not in self._sizes:
            raise not_found("type", type[:100])
        return self._sizes[type]

    async def claim(self, type: str, size_gb: int | None, demand: Demand) -> bool | None:
        """Claim a volume for a VNF: see :meth:`Demands.claim`. Raises ProctorError ``not_found``: unknown type."""
        usual = await self.size_of(type)
        return await self.demands.claim(type, usual if size_gb is None else size_gb, demand)

    async def run_job(self, name: str) -> bool:
        """Make the keeper run a job now; False if it is already in progress. Raises ProctorError."""
        async with session(self._database) as db:
            asked = await ask_job(db, name)
        await self.wake()
        return asked

    async def reload(self) -> None:
        """Make every controller read its file again. Raises BadPoolSettings, then nothing changes; ProctorError."""
        settings = self.source.check()
        async with session(self._database) as db, db.transaction():
            # Apply the targets now, so that the answer shows them; the keeper does the rest.
            await apply_types(db, settings.types)
            await ask_reload(db)
        self._sizes = {}
        await self.wake()

    async def reload_on_signal(self) -> None:
        """Reload on SIGHUP; a fault is logged."""
        try:
            await self.reload()
            log.info("pool_settings_read", file=str(self.source.path))
        except BadPoolSettings as fault:
            log.error("pool_settings_refused", file=str(self.source.path), faults=fault.faults)
        except ProctorError as fault:
            log.error("pool_settings_not_told", error=fault.message)
