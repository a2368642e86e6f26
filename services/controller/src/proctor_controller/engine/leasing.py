"""Gives runs what they hold as a whole: places in concurrency groups, hosts, volumes; all or nothing, oldest first."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from proctor_common.states import RunState
from proctor_controller.db.hosts.leasing import (
    Peers,
    WaitingRun,
    drop_hosts,
    find_hosts,
    find_older_runs,
    find_ready_steps,
    find_reserver,
    find_waiting_runs,
    hold_hosts,
    keep_hosts,
    load_hosts,
    load_peers,
    load_waiting_run,
    lock_leases,
    release_hosts,
)
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.holders import name_run, name_runs
from proctor_controller.domain.hosts.leasing import LeasableHost, Leased, NotFree, choose_hosts, may_mean
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements, VolumeRequirement, WhenFull
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Stale
from proctor_controller.domain.runs.step import StepKind
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.services import EngineServices, Feed

log = structlog.get_logger(__name__)

AT_ONCE = 20
"""Runs that are looked at when something has come free, of those that mean it."""
PLACED = 500


class Volumes(Protocol):
    """The pool, as far as runs use it."""

    async def claim(
        self, run: str, wants: tuple[VolumeRequirement, ...]
    ) -> events.HostsHeld | events.MustWait | events.CannotBegin:
        """All volumes of a run, or none; again: what it has."""
        ...

    async def has(self, db: Session, run: str, wants: tuple[VolumeRequirement, ...]) -> bool:
        """Whether the run has all of them."""
        ...

    async def settle(self, run: str, wants: tuple[VolumeRequirement, ...]) -> None:
        """The run has ended: delete its volumes, but those it wants to be left; again: no effect. Of one that never
        began ``wants`` is empty: it has left nothing on them.
        """
        ...


class Leasing:
    """Performs the effects of runs as a whole. ``volumes``: None where there is no pool."""

    def __init__(self, services: EngineServices, feed: Feed, queue: Queue, volumes: Volumes | None) -> None:
        self._database = services.database
        self._tasks = services.tasks
        self._feed = feed
        self._queue = queue
        self._volumes = volumes
        self._looking = asyncio.Lock()
        self._asked: set[bool] = set()

    def serve_later(self, *, for_volumes: bool = False) -> None:
        """Something that runs wait for may be had: look in the background who may begin. ``for_volumes``: a volume."""
        if for_volumes not in self._asked:
            self._asked.add(for_volumes)
            self._tasks.start("look again", self.look(for_volumes=for_volumes))

    async def volumes_changed(self, runs: Sequence[str], types: Sequence[str]) -> None:
        """Look whether these runs may begin, and, where spares of ``types`` are ready, whoever waits for one; their
        timers are the sweep for that.
        """
        for run in runs:
            self._tasks.start("allocate", self.allocate(run))
        if types:
            self.serve_later(for_volumes=True)

    async def look(self, *, for_volumes: bool = False, agents: Sequence[str] = ()) -> None:
        """See of the runs that have waited longest, the oldest first, whether they may begin. ``agents``: those only
        that mean one of them.
        """
        async with self._looking:
            self._asked.discard(for_volumes)
            async with session(self._database) as db:
                waiting = await find_waiting_runs(db, for_volumes=for_volumes)
                if agents:
                    hosts = await find_hosts(db, agents)
                    waiting = [each for each in waiting if may_mean(each.wants.roles, each.group, hosts)]
            for each in waiting[:AT_ONCE]:
                await self.allocate(each.run)

    async def give_idle(self, agent: str) -> None:
        """The last attempt on an agent has ended: whoever waits to have it alone may begin."""
        async with session(self._database) as db:
            run = await find_reserver(db, agent)
        if run is not None:
            await self.allocate(run)

    async def allocate(self, run: str) -> None:
        """Give the run all it wants, or say what it waits for. Older runs that may begin now do so first."""
        async with session(self._database) as db, db.transaction():
            await lock_leases(db)
            waiting = await load_waiting_run(db, run)
            if waiting is None:
                return
            found, cancel, older_runs = await self._allocate(db, waiting)
        for older in older_runs:
            await self._tell(older)
        if cancel is not None:
            await self._feed(events.CancelAsked(cancel, by=f"run {waiting.number} of the same group"))
        if isinstance(found, events.HostsHeld) and waiting.wants.volumes:
            found = await self._with_volumes(waiting)
        await self._tell(found)

    async def _tell(self, found: events.HostsHeld | events.MustWait | events.CannotBegin) -> None:
        outcome = await self._feed(found)
        if isinstance(outcome, Stale) and isinstance(found, events.HostsHeld):
            # It was cancelled meanwhile.
            await self.release(found.run)

    async def _allocate(
        self, db: Session, waiting: WaitingRun
    ) -> tuple[
        events.HostsHeld | events.MustWait | events.CannotBegin,
        str | None,
        list[events.HostsHeld | events.MustWait | events.CannotBegin],
    ]:
        """What becomes of the run, another one that has to make room for it, and what becomes of older ones."""
        wants = waiting.wants
        if waiting.resting is not None:
            why = f"{name_run(waiting.resting, waiting.group)}, which it is nested in, to be resumed"
            return events.MustWait(waiting.run, why, admitted=waiting.state is RunState.ALLOCATING), None, []
        if wants.concurrency is not None and waiting.state is RunState.QUEUED:
            peers = await load_peers(db, waiting, wants.concurrency.key)
            if peers.under_way + peers.before >= wants.concurrency.max:
                why = _no_place(wants.concurrency, peers, waiting.group)
                if wants.concurrency.when_full is WhenFull.REJECT:
                    return events.CannotBegin(waiting.run, f"there is no place in {why}", rejected=True), None, []
                making_room = wants.concurrency.when_full is WhenFull.CANCEL_OLDEST and not peers.before
                return events.MustWait(waiting.run, f"a place in {why}"), peers.oldest if making_room else None, []
        if not wants.roles or waiting.holds:
            return events.HostsHeld(waiting.run), None, []
        hosts = await load_hosts(db, waiting)
        older_runs = []
        mine = choose_hosts(wants.roles, hosts)
        if isinstance(mine, Leased):
            # What has just come free is for the run that has waited longest, which may not have been looked at yet.
            picked = [host for found in mine.hosts.values() for host in found]
            before = [each for each in await find_older_runs(db, waiting) if not each.holds and each.resting is None]
            for older in [each for each in before if may_mean(each.wants.roles, each.group, picked)][:AT_ONCE]:
                older_runs.append(await _take_hosts(db, older, await load_hosts(db, older)))
            if older_runs:
                hosts = await load_hosts(db, waiting)
        return await _take_hosts(db, waiting, hosts), None, older_runs

    async def _with_volumes(self, waiting: WaitingRun) -> events.HostsHeld | events.MustWait | events.CannotBegin:
        """The run has its hosts: its volumes too, or neither, so that others may use the hosts meanwhile."""
        if self._volumes is None:
            return events.CannotBegin(waiting.run, "this controller has no pool of volumes")
        found = await self._volumes.claim(waiting.run, waiting.wants.volumes)
        if isinstance(found, events.CannotBegin) or not waiting.wants.roles:
            return found
        async with session(self._database) as db, db.transaction():
            await lock_leases(db)
            current = await load_waiting_run(db, waiting.run)
            if current is None:
                return found
            if isinstance(found, events.MustWait):
                # Whoever looked at the same time may have found all of them: then it begins with these hosts.
                if not await self._volumes.has(db, waiting.run, waiting.wants.volumes):
                    await drop_hosts(db, waiting.run)
                return found
        if not current.holds:
            # They were dropped by one who looked a moment before.
            self._tasks.start("allocate", self.allocate(waiting.run))
            return events.MustWait(waiting.run, "its hosts, to be looked for again", admitted=True)
        return found

    async def release(self, run: str) -> None:
        """Give back what the run held, if it has ended, and see who may begin now."""
        async with session(self._database) as db, db.transaction():
            await lock_leases(db)
            over = await release_hosts(db, run)
            waiting = await find_waiting_runs(db)
            freed = [] if over is None else await find_hosts(db, over.freed)
        if over is not None and over.wants.volumes and self._volumes is not None:
            await self._volumes.settle(run, over.wants.volumes if over.began else ())
        for each in [each for each in waiting if over is None or _may_gain(each, over.wants, freed)][:AT_ONCE]:
            await self.allocate(each.run)
        await self._queue.serve(None)

    async def place_ready(self, run: str) -> None:
        """Find agents for the steps that became ready while the run was paused."""
        async with session(self._database) as db:
            steps = await find_ready_steps(db, run, PLACED)
        for step, kind in steps:
            if kind == StepKind.METHOD:
                await self._queue.place(step)
            else:
                await self._feed(events.StepDue(run, step))
        await self._queue.serve(None)


async def _take_hosts(
    db: Session, waiting: WaitingRun, hosts: Sequence[LeasableHost]
) -> events.HostsHeld | events.MustWait | events.CannotBegin:
    """All the hosts that the run wants, or what it waits for; then others keep off what it needs."""
    found = choose_hosts(waiting.wants.roles, hosts)
    if isinstance(found, Leased):
        exclusive = {role.name: role.exclusive for role in waiting.wants.roles}
        if await hold_hosts(db, waiting.run, found.hosts, exclusive):
            return events.HostsHeld(waiting.run)
        return events.MustWait(waiting.run, "hosts: a step of another run has just begun on one", admitted=True)
    if isinstance(found, NotFree):
        await keep_hosts(db, waiting, found.keep)
        return events.MustWait(waiting.run, found.why, admitted=True)
    return events.CannotBegin(waiting.run, found.why)


def _may_gain(waiting: WaitingRun, ended: Requirements, freed: Sequence[LeasableHost]) -> bool:
    """Whether what a run has given back at its end may be what another one waits for."""
    mine, theirs = waiting.wants.concurrency, ended.concurrency
    if mine is not None and theirs is not None and mine.key == theirs.key:
        return True
    return bool(ended.volumes and waiting.wants.volumes) or may_mean(waiting.wants.roles, waiting.group, freed)


def _no_place(concurrency: Concurrency, peers: Peers, group: str | None) -> str:
    """A full concurrency group, and who fills it."""
    names = f" by {name_runs(peers.some, group, peers.under_way)}" if peers.under_way else ""
    taken = f"{peers.under_way} of {concurrency.max} are taken{names}"
    before = f"; {peers.before} older {'run waits' if peers.before == 1 else 'runs wait'} too" if peers.before else ""
    return f"concurrency group {concurrency.key}: {taken}{before}"
