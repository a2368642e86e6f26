"""Many wait: the oldest go first whatever the others wait for, and each is told what it waits for just now."""

from typing import Any

import pytest

from proctor_common.bus import Bus
from proctor_common.states import StepResult
from proctor_controller.domain.hosts.requirements import HostRole, Requirements
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.submission import RunSpec
from proctor_controller.engine import leasing, watchdog
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.watchdog import Watchdog
from support.engine import FakeAgent, call, make_watchdog, until_finished
from support.postgres import Database
from support.steps import plan, run, step, steps_of, until_there
from support.wait import eventually


def alone(host: str) -> RunSpec:
    """A run of one step on a host that it wants for itself."""
    wants = Requirements(roles=(HostRole("r", host=host, exclusive=True),))
    return plan(step("s", role="r", role_index=0), wants=wants)


async def begun(engine: Engine, *hosts: str) -> list[str]:
    """Runs that were asked for in this order, each once it has its host or waits for it."""
    runs = [await run(engine, alone(host)) for host in hosts]

    async def looked_at() -> bool:
        for each in runs:
            view = await call(engine, "run.get", run=each)
            assert view["state"] == "running" or (view["waiting_for"] or "").startswith("hosts.r"), view
        return True

    await eventually(looked_at, what="all runs to be looked at")
    return runs


async def test_many_who_wait_for_another_host_hold_nobody_up(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "AT_ONCE", 2)
    other = await FakeAgent(bus, control_database, host="h2").join()
    runs = await begun(engine, "h1", "h1", "h1", "h1", "h2", "h2", "h2")
    first, *_ = await eventually(other.alive_orders, what="its first step")
    other.ends = StepResult.PASSED
    await other.finish(first)
    for each in runs[4:]:
        assert (await until_finished(engine, each))["result"] == "passed"
    assert [order.run for order in other.started] == runs[4:]


async def test_the_oldest_goes_first_however_many_wait_for_something_else(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "AT_ONCE", 2)
    other = await FakeAgent(bus, control_database, host="h2", ends=StepResult.PASSED).join()
    control_database.psql("UPDATE control.agents SET draining = true WHERE host = 'h2'")
    *_, older, younger = await begun(engine, "h1", "h1", "h1", "h1", "h2", "h2")
    # Neither is the host kept free for the older one, nor has anybody looked at it since the host is back.
    control_database.psql("DELETE FROM control.reservations; UPDATE control.agents SET draining = false")
    await engine.leasing.allocate(younger)
    for each in (older, younger):
        await until_finished(engine, each)
    assert [order.run for order in other.started] == [older, younger]


async def looks(dog: Watchdog, times: int) -> None:
    for _ in range(times * watchdog.EXPLAINED_EVERY):
        await dog.tick()


async def reasons(engine: Engine, run: str) -> set[str]:
    return {one["waiting_for"] for one in (await steps_of(engine, run)).values() if one["state"] == "waiting"}


async def test_every_step_that_waits_hears_in_turn_what_has_changed(
    engine: Engine, agent: FakeAgent, control_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PLACES", 2)
    control_database.psql("UPDATE control.agents SET draining = true")
    spec = plan(*(step(f"s{n}") for n in range(7)))
    await run(engine, spec)
    for n in range(7):
        await until_there(engine, spec.id, f"s{n}", "waiting")
    control_database.psql("UPDATE control.steps SET ready_at = ready_at + random() * interval '1 second'")
    control_database.psql("UPDATE control.agents SET draining = false, state = 'lost'")
    dog = make_watchdog(engine)
    await looks(dog, 2)
    assert await reasons(engine, spec.id) == {"host h1: it is drained", "host h1: its heartbeats stopped"}
    await looks(dog, 3)
    assert await reasons(engine, spec.id) == {"host h1: its heartbeats stopped"}


async def test_a_step_whose_hosts_agent_was_removed_ends_once_no_other_one_has_joined(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    control_database.psql("UPDATE control.agents SET draining = true")
    spec = plan(step("s"))
    await run(engine, spec)
    await until_there(engine, spec.id, "s", "waiting")
    control_database.psql("UPDATE control.agents SET state = 'removed', revoked_at = now()")
    dog = make_watchdog(engine)
    await looks(dog, 1)
    assert await reasons(engine, spec.id) == {"host h1: there is none"}
    control_database.psql("UPDATE control.agents SET revoked_at = now() - interval '11 minutes'")
    await looks(dog, 1)
    assert (await until_finished(engine, spec.id))["result"] == "error"
    ended: Any = (await steps_of(engine, spec.id))["s"]
    assert ended["reason"] == "host h1: its agent was removed, and no other one has joined"


async def test_a_lost_agents_answer_alone_does_not_bring_its_step_back(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    """The watchdog would take it for lost again a second later, with a new time to come back."""
    spec = plan(step("s"))
    await run(engine, spec)
    await until_there(engine, spec.id, "s", "running")
    control_database.psql("UPDATE control.agents SET state = 'lost'")
    await engine.agent_status.agents_lost([agent.id])
    lost = await until_there(engine, spec.id, "s", "lost")
    await engine.feed(events.AgentReturned(spec.id, lost["id"], agent.id))
    await eventually(lambda: agent.queries, what="the question")
    await engine.tasks.drain(5)
    assert (await steps_of(engine, spec.id))["s"]["state"] == "lost"
    control_database.psql("UPDATE control.agents SET state = 'online'")
    await engine.agent_status.agents_returned([agent.id])
    await until_there(engine, spec.id, "s", "running")
