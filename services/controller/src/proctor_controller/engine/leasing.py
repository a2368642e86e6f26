"""What runs hold as a whole: concurrency slots, hosts by role, volumes. All of it or nothing, the oldest run first."""

from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from proctor_common.states import RunState
from proctor_controller.db.leasing import (
    Waiting,
    drop_hosts,
    find_ready_steps,
    find_waiting_runs,
    hold_hosts,
    keep_hosts,
    load_hosts,
    load_rivals,
    load_waiting_run,
    lock_leases,
    release_hosts,
)
from proctor_controller.db.session import Session, session
from proctor_controller.domain import events
from proctor_controller.domain.decision import Allocate, Effect, PlaceReady, ReleaseRun, Stale
from proctor_controller.domain.leasing import Leased, NotFree, choose_hosts
from proctor_controller.domain.step import Kind
from proctor_controller.domain.wants import VolumeWant, Wants, WhenFull

if TYPE_CHECKING:
    from proctor_controller.engine.engine import Engine

log = structlog.get_logger(__name__)

AT_ONCE = 20
PLACED = 500
OnEnd = Literal["delete", "retain"]


class Volumes(Protocol):
    """The pool, as far as runs use it."""

    async def claim(self, run: str, wants: tuple[VolumeWant, ...]) -> events.HostsHeld | events.NotYet | events.Never:
        """All volumes of a run, or none; again: what it has."""
        ...

    async def settle(self, run: str, wants: tuple[VolumeWant, ...]) -> None:
        """The run has ended: delete its volumes, or leave them; again: no effect."""
        ...


class Leasing:
    """Performs the effects of runs as a whole. ``volumes``: None where there is no pool."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.volumes: Volumes | None = None

    def allocate_later(self, run: str, effect: Effect) -> None:
        """See in the background whether the run may begin."""
        if isinstance(effect, Allocate):
            self._engine.tasks.start("allocate", self.allocate(run))

    def release_later(self, run: str, effect: Effect) -> None:
        """Give back in the background what the run held."""
        if isinstance(effect, ReleaseRun):
            self._engine.tasks.start("release", self.release(run))

    def place_later(self, run: str, effect: Effect) -> None:
        """Find agents in the background for steps that became ready while the run rested."""
        if isinstance(effect, PlaceReady):
            self._engine.tasks.start("place ready", self._place_ready(run))

    async def allocate(self, run: str) -> None:
        """Give the run all it wants, or say what it waits for."""
        async with session(self._engine.database) as db, db.transaction():
            await lock_leases(db)
            waiting = await load_waiting_run(db, run)
            if waiting is None:
                return
            found, cancel = await self._allocate(db, waiting)
        if cancel is not None:
            await self._engine.feed(events.CancelAsked(cancel, by=f"run {waiting.number} of the same group"))
        if isinstance(found, events.HostsHeld) and waiting.wants.volumes:
            found = await self._claim(run, waiting.wants)
            if isinstance(found, events.NotYet):
                # Others may use the hosts meanwhile.
                async with session(self._engine.database) as db, db.transaction():
                    await lock_leases(db)
                    await drop_hosts(db, run)
        outcome = await self._engine.feed(found)
        if isinstance(outcome, Stale) and isinstance(found, events.HostsHeld):
            # It was cancelled meanwhile.
            await self.release(run)

    async def _allocate(
        self, db: Session, waiting: Waiting
    ) -> tuple[events.HostsHeld | events.NotYet | events.Never, str | None]:
        """What becomes of the run, and another one that has to make room for it."""
        wants = waiting.wants
        if wants.concurrency is not None and waiting.state is RunState.QUEUED:
            rivals = await load_rivals(db, waiting, wants.concurrency.key)
            if rivals.under_way + rivals.before >= wants.concurrency.max:
                why = f"a place in concurrency group {wants.concurrency.key} (max {wants.concurrency.max})"
                if wants.concurrency.when_full is WhenFull.REJECT:
                    return events.Never(waiting.run, f"there is no place in {why[11:]}", rejected=True), None
                making_room = wants.concurrency.when_full is WhenFull.CANCEL_OLDEST and not rivals.before
                return events.NotYet(waiting.run, why), rivals.oldest if making_room else None
        if not wants.roles or waiting.holds:
            return events.HostsHeld(waiting.run), None
        found = choose_hosts(wants.roles, await load_hosts(db, waiting))
        if isinstance(found, Leased):
            exclusive = {role.name: role.exclusive for role in wants.roles}
            if await hold_hosts(db, waiting.run, found.hosts, exclusive):
                return events.HostsHeld(waiting.run), None
            return events.NotYet(waiting.run, "hosts: a step of another run has just begun on one", admitted=True), None
        if isinstance(found, NotFree):
            await keep_hosts(db, waiting, found.keep)
            return events.NotYet(waiting.run, found.why, admitted=True), None
        return events.Never(waiting.run, found.why), None

    async def _claim(self, run: str, wants: Wants) -> events.HostsHeld | events.NotYet | events.Never:
        if self.volumes is None:
            return events.Never(run, "this controller has no pool of volumes")
        return await self.volumes.claim(run, wants.volumes)

    async def release(self, run: str) -> None:
        """Give back what the run held, if it has ended, and see who may begin now."""
        async with session(self._engine.database) as db, db.transaction():
            await lock_leases(db)
            over = await release_hosts(db, run)
            waiting = await find_waiting_runs(db, AT_ONCE)
        if over is not None and over.wants.volumes and self.volumes is not None:
            await self.volumes.settle(run, over.wants.volumes)
        for each in waiting:
            await self.allocate(each)
        await self._engine.serve_queue(None)

    async def _place_ready(self, run: str) -> None:
        async with session(self._engine.database) as db:
            steps = await find_ready_steps(db, run, PLACED)
        for step, kind in steps:
            if kind == Kind.METHOD:
                await self._engine.place(step)
            else:
                await self._engine.feed(events.StepDue(run, step))
        await self._engine.serve_queue(None)
