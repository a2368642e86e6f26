"""Fills the pool: intents for missing spares, by the rules of ``domain/volumes/refill``, and what to create next."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from proctor_common.clock import Clock
from proctor_common.errors import ProctorError
from proctor_controller.db.pool.claims import hand_over
from proctor_controller.db.pool.pools import PoolRow, count_volumes, load_pools
from proctor_controller.db.pool.vnfps import explain_wait
from proctor_controller.db.pool.volumes import (
    count_old,
    drop_all_unasked,
    drop_unasked,
    insert_spares,
    load_queue,
    make_way,
    retire_spares,
)
from proctor_controller.domain.volumes.refill import Stock, describe, plan_refill, plan_renewal, plan_trim
from proctor_controller.domain.volumes.volume import MAX_EVICTIONS, Volume
from proctor_controller.pool.fenced_session import Desk
from proctor_controller.pool.throttle import Throttle
from proctor_controller.pool.volume_worker import Tender
from proctor_controller.volumes.backend import BackendFault

log = structlog.get_logger(__name__)

QUEUE = 500
DEMAND_AGAIN = 5.0
"""Seconds until a claim that was refused for the quota is tried again, unless a volume was deleted meanwhile."""


class Refill:
    """The keeper's work whenever something may have changed."""

    def __init__(self, desk: Desk, gate: Throttle, clock: Clock) -> None:
        self._desk = desk
        self._gate = gate
        self._clock = clock
        self._asked: dict[str, int] = {}
        self._room: int | None = None
        self._again: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._ready: dict[str, int] = {}
        self._last_spare = 0.0
        self._running = asyncio.Lock()
        self.missing = 0
        """Spares that were still to be requested at the last look."""
        self.stalled = False
        """Whether spares are missing and none is in creation: no room, or something stops creation."""

    # -- writing intents ------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Store intents for missing spares, delete surplus ones. Raises ProctorError, DutyLostError."""
        async with self._running, self._desk.writing() as db:
            pools = await load_pools(db)
            for type, extra in self._too_many(pools).items():
                dropped = await drop_unasked(db, type, extra)
                log.info("spares_dropped", type=type, count=dropped)
            trimmed = plan_trim([pool.stock for pool in pools])
            for type, extra in trimmed.items():
                await retire_spares(db, type, extra, "more than the target")
            stocks = [self._passable(pool.stock) for pool in pools]
            room = await self._spare_room(await count_volumes(db))
            asked = plan_refill(stocks, concurrency=self._desk.settings.concurrency, spare_room=room)
            await insert_spares(db, asked, {pool.type: pool.size_gb for pool in pools})
        self._ready = {pool.type: pool.ready for pool in pools}
        self.missing = sum(pool.stock.deficit + pool.intent for pool in pools)
        self.stalled = bool(self.missing) and not asked and not any(pool.stock.pending for pool in pools)
        for type, count in asked.items():
            self._asked[type] = self._asked.get(type, 0) + count
            if self._room is not None:
                self._room -= count
        if asked or trimmed:
            self._desk.progress()

    def _too_many(self, pools: Sequence[PoolRow]) -> dict[str, int]:
        found = {pool.type: pool.stock for pool in pools}
        extra = {
            type: min(stock.intent, stock.ready + stock.pending - stock.target)
            for type, stock in found.items()
            if stock.ready + stock.pending > stock.target
        }
        return {type: count for type, count in extra.items() if count > 0}

    def _passable(self, stock: Stock) -> Stock:
        """The stock with the target that the throttle allows: none, or one probe, while a breaker is open."""
        if self._gate.obstacle(stock.type, spare=True):
            return replace(stock, target=0)
        if self._gate.is_open(stock.type):
            return replace(stock, target=min(stock.target, stock.ready + stock.pending + (0 if stock.pending else 1)))
        return stock

    async def _spare_room(self, there: int) -> int | None:
        limits = [] if self._room is None else [self._room]
        if self._desk.settings.max_volumes:
            limits.append(self._desk.settings.max_volumes - there)
        return min(limits) if limits else None

    # -- the job --------------------------------------------------------------------------------------------------

    async def begin_run(self) -> None:
        """A run of *replenish* begins: end the hold, ask the backend for its quota, replace old spares."""
        await self._gate.release()
        self._asked, self._room = {}, None
        async with self._desk.reading() as db:
            pools = await load_pools(db)
        if any(pool.stock.deficit for pool in pools):
            try:
                self._room = await self._desk.backend.room()
            except BackendFault as fault:
                log.warning("pool_room_unknown", error=str(fault))
        await self._renew(pools)
        await self.look()

    async def end_run(self) -> str:
        """The outcome. Without room by the quota, the next run or a deleted volume of ours ends the hold."""
        if self._room is not None and self._room <= 0 and self.missing and not self._gate.held:
            await self._gate.hold(self._hold_seconds, "no room is left by it")
        full = "nothing to do: every pool is full"
        done = f"asked for {describe(self._asked)}" if self._asked else full if not self.missing else "asked for none"
        if not self._gate.held:
            self._room = None
        return done if not self.missing else f"{done}; {self.missing} still missing: {self.obstacle() or 'no room'}"

    async def _renew(self, pools: Sequence[PoolRow]) -> None:
        age = self._desk.settings.max_age
        if not age:
            return
        async with self._desk.writing() as db:
            for pool in pools:
                count = plan_renewal(pool.stock, await count_old(db, pool.type, age))
                if count:
                    gone = await retire_spares(db, pool.type, count, "older than max_age", older_than=age)
                    log.info("spares_renewed", type=pool.type, count=gone)

    @property
    def _hold_seconds(self) -> float:
        return self._desk.settings.backup_frequency_minute * 60.0

    def obstacle(self) -> str:
        """What prevents spares of all types, if anything does."""
        if self._gate.held:
            return self._gate.obstacle("", spare=True)
        open_breakers = self._gate.open_breakers
        return f"creation is stopped: {open_breakers[0].reason}" if open_breakers else ""

    # -- asking the backend ---------------------------------------------------------------------------------------

    async def ask_next(self, tender: Tender) -> float | None:
        """Start creations that may be tried now, volumes with owners first; returns in how many seconds to look again,
        None: after a change. Raises ProctorError, DutyLostError.
        """
        async with self._desk.reading() as db:
            queue = await load_queue(db, tender.active, QUEUE)
        self._told = {each.id: self._told[each.id] for each in queue if each.id in self._told}
        wait: float | None = None
        probing: set[str] = set()
        free = max(1, self._desk.settings.concurrency) - tender.posting
        for volume in queue:
            if volume.wanted:
                blocked, later = await self._blocks_demand(volume)
            else:
                blocked, later = self._blocks_spare(volume, free)
            wait = later if wait is None else min(wait, later or wait)
            if blocked or (self._gate.is_open(volume.type) and probing):
                continue
            probing.add(volume.type)
            await self._gate.start(volume.type)
            if not volume.wanted:
                free -= 1
                self._last_spare = self._clock.monotonic()
            tender.start(volume)
        return wait

    def _blocks_spare(self, volume: Volume, free: int) -> tuple[bool, float | None]:
        if free <= 0 or self._gate.obstacle(volume.type, spare=True):
            return True, None
        interval = self._desk.settings.create_volume_time_interval_second
        rest = self._last_spare + interval - self._clock.monotonic() if interval and self._last_spare else 0.0
        return (True, rest) if rest > 0 else (False, None)

    async def _blocks_demand(self, volume: Volume) -> tuple[bool, float | None]:
        obstacle = self._gate.obstacle(volume.type, spare=False)
        rest = self._again.get(volume.id, 0.0) - self._clock.monotonic()
        if not obstacle and rest <= 0:
            return False, None
        why = obstacle or f"the quota is used up: {volume.reason}"
        if self._ready.get(volume.type):
            async with self._desk.writing() as db:
                if await hand_over(db, volume):
                    log.info("spare_handed_over", waiting=volume.id)
                    self._again.pop(volume.id, None)
                    self._desk.progress()
        if volume.vnfp is not None and self._told.get(volume.id) != why:
            async with self._desk.writing() as db:
                await explain_wait(db, volume.vnfp, why)
            self._told[volume.id] = why
        return True, max(rest, 0.5) if not obstacle else None

    async def refused(self, volume: Volume, reason: str) -> None:
        """The quota is used up: hold spares; for a volume with an owner, delete an idle spare of another type."""
        await self._gate.hold(self._hold_seconds, reason)
        self._room = 0
        async with self._desk.writing() as db:
            await drop_all_unasked(db)
        if not volume.wanted:
            return
        self._again[volume.id] = self._clock.monotonic() + DEMAND_AGAIN
        if volume.evictions >= MAX_EVICTIONS:
            return
        try:
            async with self._desk.writing() as db:
                left = await make_way(db, volume)
        except ProctorError as fault:
            log.warning("no_spare_gave_way", volume=volume.id, error=fault.message)
            return
        if left is not None:
            log.info("spare_gave_way", spare=left, waiting=volume.id)
            self._desk.progress()

    async def room_again(self) -> None:
        """A volume of ours was deleted: owners that wait try again at once, before any spare."""
        self._again.clear()
        if self._room is not None:
            self._room += 1
        await self._gate.release()
