"""VNFs that want a volume: simultaneous claims share a statement and a commit.

While one statement runs, the next claims gather; so a hundred claims cost a few round trips, not a hundred.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.clock import Clock
from proctor_controller.db.pool.claims import Demand, MadeMeanwhileError, claim_for_vnfps
from proctor_controller.db.pool.pools import add_figures
from proctor_controller.db.session import session
from proctor_controller.domain.volumes.refill import BUCKETS, bucket_of

MOST = 200
"""Claims in one statement."""
AT_ONCE = 2
"""Statements at once for one type and size."""
Wake = Callable[[], Awaitable[None]]


@dataclass
class Tally:
    """Claims that are not yet in the database's statistics; ``total_…``: since this process began."""

    claims: int = 0
    hits: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    total_claims: int = 0
    total_hits: int = 0


@dataclass
class _Line:
    """The queue for volumes of one type and size, and how many statements run for it."""

    waiting: list[tuple[Demand, asyncio.Future[bool | None]]] = field(default_factory=list)
    under_way: int = 0


class Demands:
    """Claims for VNFs. ``wake`` is called after each commit."""

    def __init__(self, database: AsyncEngine, clock: Clock, wake: Wake) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake
        self._lines: dict[tuple[str, int], _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.tallies: dict[str, Tally] = {}

    async def claim(self, type: str, size_gb: int, demand: Demand) -> bool | None:
        """Make the VNF and claim a spare for it: True; or store an intent: False. None: there is a VNF with this id
        already. Raises ProctorError ``database_unavailable``.
        """
        started = self._clock.monotonic()
        line = self._lines.setdefault((type, size_gb), _Line())
        answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        line.waiting.append((demand, answer))
        if line.under_way < AT_ONCE:
            line.under_way += 1
            task = asyncio.create_task(self._serve(type, size_gb, line), name="claim spares")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        hit = await answer
        if hit is not None:
            self.note(type, hit, self._clock.monotonic() - started)
        return hit

    async def _serve(self, type: str, size_gb: int, line: _Line) -> None:
        try:
            while line.waiting:
                batch, line.waiting = line.waiting[:MOST], line.waiting[MOST:]
                await self._claim(type, size_gb, batch)
        finally:
            line.under_way -= 1
            if not line.waiting and not line.under_way:
                self._lines.pop((type, size_gb), None)

    async def _claim(self, type: str, size_gb: int, batch: list[tuple[Demand, asyncio.Future[bool | None]]]) -> None:
        try:
            async with session(self._database) as db:
                hits = await claim_for_vnfps(db, type, size_gb, [demand for demand, _ in batch])
        except MadeMeanwhileError:
            # A repeated request in another controller has made one of the VNFs: claim for each separately.
            if len(batch) > 1:
                for each in batch:
                    await self._claim(type, size_gb, [each])
                return
            hits = {}
        except Exception as fault:
            # Each of them gets the fault, and the queue goes on.
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(fault)
            return
        for demand, answer in batch:
            if not answer.done():
                answer.set_result(hits.get(demand.id))
        await self._wake()

    def note(self, type: str, hit: bool, seconds: float) -> None:
        """Count a claim, and whether it got a spare."""
        tally = self.tallies.setdefault(type, Tally())
        tally.claims += 1
        tally.total_claims += 1
        if hit:
            tally.hits += 1
            tally.total_hits += 1
        tally.counts[bucket_of(seconds)] += 1

    async def flush(self) -> None:
        """Add the counts to the pools' statistics. Raises ProctorError; then nothing is lost."""
        due = [(type, tally) for type, tally in self.tallies.items() if tally.claims]
        if not due:
            return
        taken = [(type, tally.claims, tally.hits, list(tally.counts)) for type, tally in due]
        for _, tally in due:
            tally.claims, tally.hits, tally.counts = 0, 0, [0] * len(BUCKETS)
        try:
            async with session(self._database) as db, db.transaction():
                await add_figures(db, taken)
        except BaseException:
            for (_, claims, hits, counts), (_, tally) in zip(taken, due, strict=True):
                tally.claims += claims
                tally.hits += hits
                tally.counts = [a + b for a, b in zip(tally.counts, counts, strict=True)]
            raise

    async def close(self) -> None:
        """Wait for the claims in progress."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2)
