"""Volumes of whole runs: claimed with the hosts, waited for without them, and let go of by a run that never began."""

import asyncio
from dataclasses import dataclass, field

import pytest

from proctor_common.states import StepResult
from proctor_controller.db.session import Session
from proctor_controller.domain.hosts.requirements import HostRole, Requirements, VolumeRequirement
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.submission import RunSpec
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, until_finished
from support.postgres import Database
from support.steps import plan, run, step
from support.wait import eventually

WANT = VolumeRequirement("data", "igw", pool="require", on_end="retain")


@dataclass
class Pool:
    """A pool with one spare or none. ``slow``: a claim that has found nothing says so only when it is let go."""

    ready: bool = False
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    settled: list[tuple[str, tuple[VolumeRequirement, ...]]] = field(default_factory=list)

    async def claim(
        self, run: str, wants: tuple[VolumeRequirement, ...]
    ) -> events.HostsHeld | events.MustWait | events.CannotBegin:
        self.asked += 1
        if self.ready:
            return events.HostsHeld(run)
        await self.slow.wait()
        return events.MustWait(run, "a spare of type igw: none is ready", admitted=True)

    async def has(self, db: Session, run: str, wants: tuple[VolumeRequirement, ...]) -> bool:
        return self.ready

    async def settle(self, run: str, wants: tuple[VolumeRequirement, ...]) -> None:
        self.settled.append((run, wants))


@pytest.fixture
def pool() -> Pool:
    found = Pool()
    found.slow.set()
    return found


@pytest.fixture
def volumes(pool: Pool) -> Pool:
    return pool


def on_volume() -> RunSpec:
    roles = (HostRole("r", host="h1", exclusive=True),)
    return plan(step("s", role="r", role_index=0), wants=Requirements(roles=roles, volumes=(WANT,)))


async def until_waits(engine: Engine, run: str) -> None:
    async def waits() -> bool:
        view = await call(engine, "run.get", run=run)
        return view["waiting_for"] == "a spare of type igw: none is ready"

    await eventually(waits, what="the run to wait for a spare")


async def test_a_run_begins_as_soon_as_a_spare_is_ready(engine: Engine, agent: FakeAgent, pool: Pool) -> None:
    agent.ends = StepResult.PASSED
    spec = on_volume()
    await run(engine, spec)
    await until_waits(engine, spec.id)
    other = plan(
        step("s", role="r", role_index=0), wants=Requirements(roles=(HostRole("r", host="h1", exclusive=True),))
    )
    await run(engine, other)
    assert (await until_finished(engine, other.id))["result"] == "passed", "the hosts are for others meanwhile"
    pool.ready = True
    await engine.leasing.volumes_changed([], ["igw"])
    # No watchdog is at work: nothing else lets it begin.
    assert (await until_finished(engine, spec.id))["result"] == "passed"
    await eventually(lambda: pool.settled == [(spec.id, (WANT,))], what="its volume to be left")


async def test_a_run_that_never_began_leaves_no_volume(engine: Engine, agent: FakeAgent, pool: Pool) -> None:
    spec = on_volume()
    await run(engine, spec)
    await until_waits(engine, spec.id)
    await call(engine, "run.cancel", run=spec.id)
    assert (await until_finished(engine, spec.id))["result"] == "cancelled"
    await eventually(lambda: pool.settled == [(spec.id, ())], what="its volume to go")


async def test_who_found_no_spare_takes_no_hosts_from_who_found_one(
    engine: Engine, agent: FakeAgent, pool: Pool, control_database: Database
) -> None:
    """Two looks at one run at the same time: the first finds no spare and is slow to say so, the second finds one."""
    agent.ends = StepResult.PASSED
    pool.slow.clear()
    spec = on_volume()
    await run(engine, spec)
    await eventually(lambda: pool.asked == 1, what="the first look")
    pool.ready = True
    pool.slow.set()
    await engine.leasing.allocate(spec.id)
    assert (await until_finished(engine, spec.id))["result"] == "passed"
    assert [order.run for order in agent.started] == [spec.id]
