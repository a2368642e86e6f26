"""The watchdog: derives from what is stored what should be going on, and does it again where a crash, a lost message or
an agent's silence left it undone. Any number of controllers may run it at once.
"""

import asyncio
from collections.abc import Iterable

import structlog

from proctor_common.bus import BusError
from proctor_common.errors import ProctorError
from proctor_controller.db.hosts import candidates
from proctor_controller.db.hosts.leasing import lock_leases, sweep_hosts
from proctor_controller.db.runs.timers import (
    Due,
    find_due_nodes,
    find_due_runs,
    find_due_steps,
    find_lost,
    find_past_holds,
    is_anyone_waiting,
)
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.placement import explain
from proctor_controller.domain.runs import events
from proctor_controller.engine.deadlocks import Deadlocks
from proctor_controller.engine.leasing import Leasing
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.services import Contended, EngineServices, Feed

log = structlog.get_logger(__name__)

LIMIT = 200
AT_ONCE = 8
ORPHANS_EVERY = 30
EXPLAINED = 500
"""Steps that are asked at one look what they wait for now; the next look goes on behind them."""
PLACES = 50
"""For how many places at most that is found out at one look."""
EXPLAINED_EVERY = 5
DEADLOCKS_EVERY = 5


class Watchdog:
    """Call :meth:`tick` about once a second."""

    def __init__(self, services: EngineServices, feed: Feed, queue: Queue, leasing: Leasing) -> None:
        self._database = services.database
        self._tasks = services.tasks
        self._lost_grace_s = services.settings.policy.lost_grace_s
        self._feed_engine = feed
        self._queue = queue
        self._leasing = leasing
        self._ticks = 0
        self._deadlocks = Deadlocks(services.database, feed)
        self._explained: candidates.Waiter | None = None

    async def tick(self) -> int:
        """Look at everything that is due; how much that was. Raises ProctorError ``database_unavailable``."""
        async with session(self._database) as db:
            due: list[events.Event] = [
                *(_event(each) for each in await find_lost(db, LIMIT)),
                *(_event(each) for each in await find_due_runs(db, LIMIT)),
                *(_event(each) for each in await find_due_nodes(db, LIMIT)),
                *(_event(each) for each in await find_due_steps(db, LIMIT)),
            ]
            waiting = await is_anyone_waiting(db)
            past = await find_past_holds(db, LIMIT)
            if self._ticks % ORPHANS_EVERY == 0:
                freed = await candidates.free_orphans(db)
                async with db.transaction():
                    await lock_leases(db)
                    swept = await sweep_hosts(db)
                if swept:
                    log.warning("hosts_given_back", count=swept, reason="their runs were over")
                if freed:
                    log.error("slots_freed", count=freed, reason="their attempts were over")
        self._ticks += 1
        await self._feed_all(due)
        for run in past:
            self._tasks.start("release", self._leasing.release(run))
        if self._ticks % DEADLOCKS_EVERY == 0:
            await self._deadlocks.look()
        if waiting:
            await self._queue.serve(None)
            if self._ticks % EXPLAINED_EVERY == 1:
                await self._explain_waiting()
        return len(due)

    async def _feed_all(self, due: Iterable[events.Event]) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def feed(event: events.Event) -> None:
            async with room:
                await self._feed(event)

        async with asyncio.TaskGroup() as tasks:
            for event in due:
                tasks.create_task(feed(event))

    async def _feed(self, event: events.Event) -> None:
        # One run that cannot be decided must not keep the others from being looked at.
        try:
            await self._feed_engine(event)
        except (ProctorError, BusError, Contended) as fault:
            log.warning("watchdog_not_done", run=event.run, watched=type(event).__name__, error=str(fault))
        except Exception:
            log.exception("watchdog_failed", run=event.run, watched=type(event).__name__)

    async def _explain_waiting(self) -> None:
        """Say of those who still wait what they wait for now: of all of them in turn, the longest-waiting first."""
        changed: list[events.Event] = []
        reasons: dict[candidates.Waiter, tuple[str, bool]] = {}
        async with session(self._database) as db:
            waiting = await candidates.load_waiting(db, EXPLAINED, self._explained)
            last = self._explained
            for each in waiting:
                alike = each._replace(step="", waiting_for=None)
                if alike not in reasons:
                    if len(reasons) == PLACES:
                        break
                    reasons[alike] = await self._reason(db, each)
                last = each
                why, never = reasons[alike]
                if never or why != each.waiting_for:
                    changed.append(events.NoSlot(each.run, each.step, why, never=never))
        # Start again at the front after the last one.
        is_end = len(waiting) < EXPLAINED and (not waiting or last is waiting[-1])
        self._explained = None if is_end else last
        await self._feed_all(changed)

    async def _reason(self, db: Session, step: candidates.Waiter) -> tuple[str, bool]:
        """What a step waits for, and whether that will never come: its host's agent was removed, and for as long as a
        lost one may take to come back no other one has joined in its stead.
        """
        found = await candidates.find_candidates_of(db, step)
        host, grace = step.place.host, self._lost_grace_s
        if not found and host is not None and await candidates.is_gone(db, host, grace):
            return f"host {host}: its agent was removed, and no other one has joined", True
        return explain(step.place, [f.candidate for f in found], step.plugin, step.method), False


def _event(due: Due) -> events.Event:
    if due.agent is not None and due.step is not None:
        return events.AgentLost(due.run, due.step, due.agent)
    if due.step is not None:
        return events.StepDue(due.run, due.step)
    if due.node is not None:
        return events.NodeDecided(due.run, due.node)
    return events.RunDue(due.run)
