"""Hosts for whole runs, all of them or none; concurrency groups; nobody waits for ever, and each says what for."""

import asyncio
from typing import Any

import pytest

from proctor_common.bus import Bus
from proctor_common.states import StepResult
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, HostRole, Requirements, WhenFull
from proctor_controller.domain.runs.submission import RunSpec
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, make_watchdog, submit, until_finished
from support.postgres import Database
from support.steps import plan, run, step, steps_of, until_there
from support.wait import eventually


def alone(*names: str, **wants: Any) -> RunSpec:
    """A run of one step on each of these hosts, which it wants for itself."""
    roles = tuple(HostRole(f"r{n}", host=name, exclusive=True) for n, name in enumerate(names))
    steps = [step(f"s{n}", role=f"r{n}", role_index=0) for n in range(len(names))]
    return plan(*steps, wants=Requirements(roles=roles, **wants))


async def until_waits(engine: Engine, run: str, *words: str, state: str = "allocating") -> Any:
    async def waits() -> Any:
        view = await call(engine, "run.get", run=run)
        assert view["state"] == state, view
        assert all(word in (view["waiting_for"] or "") for word in words), view
        return view

    return await eventually(waits, 10, f"run {run} to wait for {words}")


async def looked_after(engine: Engine, *runs: str) -> list[Any]:
    """The runs once they have ended, with a watchdog at work."""
    watchdog = make_watchdog(engine)

    async def ended() -> list[Any]:
        await watchdog.tick()
        views = [await call(engine, "run.get", run=each) for each in runs]
        assert {view["state"] for view in views} == {"finished"}, views
        return views

    return await eventually(ended, 30, "the end of all runs")


async def test_a_host_that_a_run_has_alone_takes_nobody_elses_steps(engine: Engine, agent: FakeAgent) -> None:
    first, second = alone("h1"), alone("h1")
    await run(engine, first)
    await until_there(engine, first.id, "s0", "running")
    await run(engine, second)
    await until_waits(engine, second.id, "h1: run 1 (plan) has it for itself")
    case = await submit(engine, host="h1")
    step = (await steps_of(engine, case["id"]))["run"]
    assert (step["state"], step["waiting_for"]) == ("waiting", "host h1: run 1 (plan) has it for itself")

    agent.ends = StepResult.PASSED
    await agent.finish(agent.alive_orders()[0])
    views = await looked_after(engine, first.id, second.id, case["id"])
    assert {view["result"] for view in views} == {"passed"}


async def test_a_run_that_wants_a_host_alone_does_not_starve(engine: Engine, agent: FakeAgent) -> None:
    busy = await submit(engine, host="h1")
    await eventually(agent.alive_orders, what="the first step")
    spec = alone("h1")
    await run(engine, spec)
    await until_waits(engine, spec.id, "h1: steps of run 1 (", "are under way on it")
    late = [await submit(engine, host="h1") for _ in range(3)]
    agent.ends = StepResult.PASSED
    await agent.finish(agent.alive_orders()[0])
    await looked_after(engine, busy["id"], spec.id, *(each["id"] for each in late))
    assert [order.run for order in agent.started][:2] == [busy["id"], spec.id], "new work waits for the older run"


async def test_crossed_wishes_do_not_lock_each_other(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    other = await FakeAgent(bus, control_database, host="h2").join()
    agent.ends = other.ends = StepResult.PASSED
    specs = [alone("h1", "h2"), alone("h2", "h1"), alone("h2"), alone("h1"), alone("h1", "h2")]
    await asyncio.gather(*(run(engine, spec) for spec in specs))
    views = await looked_after(engine, *(spec.id for spec in specs))
    assert {view["result"] for view in views} == {"passed"}

    def all_given_back() -> bool:
        left = control_database.psql(
            "SELECT (SELECT count(*) FROM control.allocations), (SELECT count(*) FROM control.reservations),"
            " (SELECT count(*) FROM control.leases WHERE held_for IS NOT NULL OR step_id IS NOT NULL)"
        )
        assert left.strip() == "0|0|0"
        return True

    await eventually(all_given_back, what="everything to be given back")


async def test_what_can_never_be_had_ends_the_run(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("s", role="r", role_index=0), wants=Requirements(roles=(HostRole("r", host="h1", count=2),)))
    await run(engine, spec)
    view = await until_finished(engine, spec.id)
    assert view["result"] == "error"
    assert "2 wanted, there are 1" in view["reason"]
    assert (await steps_of(engine, spec.id))["s"]["result"] == "cancelled"


async def test_a_wait_ends_with_its_time(engine: Engine, agent: FakeAgent) -> None:
    first, second = alone("h1"), alone("h1", queue_s=0.3)
    await run(engine, first)
    await until_there(engine, first.id, "s0", "running")
    await run(engine, second)
    (view,) = await looked_after(engine, second.id)
    assert (view["result"], view["started_at"]) == ("timed_out", None)
    assert view["reason"].startswith("not started in time: it waited for "), view["reason"]
    assert len(agent.seen) == 1


async def test_a_host_with_processes_left_is_nobodys_alone_until_they_are_gone_or_let_go(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    agent.ends = StepResult.PASSED
    control_database.psql("UPDATE control.agents SET remains = ARRAY['2 processes could not be ended']")
    # A run that shares the host is not kept from it.
    shared = plan(step("s"))
    await run(engine, shared)
    assert (await until_finished(engine, shared.id))["result"] == "passed"
    first = alone("h1")
    await run(engine, first)

    async def waits() -> Any:
        view = await call(engine, "run.get", run=first.id)
        assert view["state"] != "finished", view
        return "2 processes could not be ended (an admin lets it be leased by" in str(view)

    await eventually(waits, 10, "the run to say what it waits for")
    assert len(agent.seen) == 1
    control_database.psql("UPDATE control.agents SET released = remains")
    await engine.agent_status.capacity_changed([agent.id])
    assert (await until_finished(engine, first.id))["result"] == "passed"
    # What is left later is not let go with it.
    control_database.psql("UPDATE control.agents SET remains = remains || ARRAY['1 process could not be ended']")
    second = alone("h1")
    await run(engine, second)
    control_database.psql("UPDATE control.agents SET remains = '{}'")
    await engine.agent_status.capacity_changed([agent.id])
    assert (await until_finished(engine, second.id))["result"] == "passed"


async def test_a_drained_host_goes_on_for_those_who_hold_it(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    wants = Requirements(roles=(HostRole("r", host="h1"),))
    spec = plan(step("a", role="r", role_index=0), step("b", role="r", role_index=0), edges="a -> b", wants=wants)
    await run(engine, spec)
    await until_there(engine, spec.id, "a", "running")
    control_database.psql("UPDATE control.agents SET draining = true")
    late = plan(step("a", role="r", role_index=0), wants=wants)
    await run(engine, late)
    await until_waits(engine, late.id, "h1", "drained")
    assert (await call(engine, "agent.get", agent="h1"))["leases"] == 1, (
        "it is not drained as long as a run goes on there"
    )
    agent.ends = StepResult.PASSED
    await agent.finish(agent.alive_orders()[0])
    assert (await until_finished(engine, spec.id))["result"] == "passed"

    assert (await call(engine, "agent.get", agent="h1"))["leases"] == 0
    control_database.psql("UPDATE control.agents SET draining = false")
    assert (await looked_after(engine, late.id))[0]["result"] == "passed"


@pytest.mark.parametrize(
    ("gone", "back"), [("draining = true", "draining = false"), ("state = 'lost'", "state = 'online'")]
)
async def test_who_has_waited_longest_for_a_host_that_was_away_gets_it(
    engine: Engine, agent: FakeAgent, control_database: Database, gone: str, back: str
) -> None:
    control_database.psql(f"UPDATE control.agents SET {gone}")
    specs = [alone("h1") for _ in range(3)]
    case = plan(step("late"))
    for spec in (*specs, case):
        await run(engine, spec)
    for spec in specs:
        await until_waits(engine, spec.id, "h1: it is drained" if "drain" in gone else "h1: its heartbeats stopped")
    control_database.psql(f"UPDATE control.agents SET {back}")
    # The clocks of those who came later ring first.
    await engine.queue.serve(agent.id)
    await engine.leasing.allocate(specs[2].id)
    agent.ends = StepResult.PASSED
    await engine.agent_status.capacity_changed([agent.id])
    for spec in (*specs, case):
        assert (await until_finished(engine, spec.id))["result"] == "passed"
    assert [order.run for order in agent.started] == [spec.id for spec in (*specs, case)]


async def test_a_step_that_waited_before_goes_before_a_lease(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    control_database.psql("UPDATE control.agents SET draining = true")
    older, lease = plan(step("early")), alone("h1")
    await run(engine, older)
    await until_there(engine, older.id, "early", "waiting")
    await run(engine, lease)
    await until_waits(engine, lease.id, "drained")
    control_database.psql("UPDATE control.agents SET draining = false")
    await engine.queue.serve(agent.id)
    await until_there(engine, older.id, "early", "running")
    await engine.leasing.allocate(lease.id)
    await until_waits(engine, lease.id, "h1: steps of run 1 (plan) are under way on it")
    agent.ends = StepResult.PASSED
    await agent.finish(agent.alive_orders()[0])
    await looked_after(engine, older.id, lease.id)


async def test_who_holds_a_host_that_is_waited_for_goes_on_elsewhere(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    """The waiting one keeps both hosts free: the one who holds the other of them must not wait for it in turn."""
    other = await FakeAgent(bus, control_database, host="h2").join()
    holder = plan(
        step("a", role="r", role_index=0),
        step("b", place=Placement(host="h2")),
        edges="a -> b",
        wants=Requirements(roles=(HostRole("r", host="h1", exclusive=True),)),
    )
    await run(engine, holder)
    await until_there(engine, holder.id, "a", "running")
    both = alone("h1", "h2")
    await run(engine, both)
    await until_waits(engine, both.id, "h1: run 1 (plan) has it for itself")
    late = plan(step("late", place=Placement(host="h2")))
    await run(engine, late)
    waiting = await until_there(engine, late.id, "late", "waiting")
    assert waiting["waiting_for"] == "host h2: it is kept free for run 2 (plan), which waits for it"
    agent.ends = other.ends = StepResult.PASSED
    await agent.finish(agent.alive_orders()[0])
    await looked_after(engine, holder.id, both.id, late.id)
    assert [order.run for order in other.started] == [holder.id, both.id, late.id]


def in_turn(when_full: WhenFull) -> RunSpec:
    return plan(step("s"), wants=Requirements(concurrency=Concurrency("k", 1, when_full)))


async def test_one_at_a_time_in_the_order_they_came(engine: Engine, agent: FakeAgent) -> None:
    specs = [in_turn(WhenFull.QUEUE) for _ in range(3)]
    await run(engine, specs[0])
    await until_there(engine, specs[0].id, "s", "running")
    for spec in specs[1:]:
        await run(engine, spec)
    why = "a place in concurrency group k: 1 of 1 are taken by run 1 (plan); 1 older run waits too"
    await until_waits(engine, specs[2].id, why, state="queued")
    for number in range(3):
        await eventually(agent.alive_orders, what="the next run")
        assert [order.run for order in agent.alive_orders()] == [specs[number].id]
        await agent.finish(agent.alive_orders()[0])
    for spec in specs:
        assert (await until_finished(engine, spec.id))["result"] == "passed"


async def test_a_full_group_rejects_or_makes_room(engine: Engine, agent: FakeAgent) -> None:
    first, rejected, newer = in_turn(WhenFull.QUEUE), in_turn(WhenFull.REJECT), in_turn(WhenFull.CANCEL_OLDEST)
    await run(engine, first)
    await until_there(engine, first.id, "s", "running")
    await run(engine, rejected)
    assert (await until_finished(engine, rejected.id))["result"] == "rejected"
    await run(engine, newer)
    assert (await until_finished(engine, first.id))["result"] == "cancelled"
    await until_there(engine, newer.id, "s", "running")
    await agent.finish(agent.alive_orders()[0])
    assert (await until_finished(engine, newer.id))["result"] == "passed"


async def test_a_run_that_waits_can_be_cancelled(engine: Engine, agent: FakeAgent) -> None:
    first, second = alone("h1"), alone("h1")
    await run(engine, first)
    await until_there(engine, first.id, "s0", "running")
    await run(engine, second)
    await until_waits(engine, second.id, "h1")
    await call(engine, "run.cancel", run=second.id)
    assert (await until_finished(engine, second.id))["result"] == "cancelled"
    await agent.finish(agent.alive_orders()[0])
    assert (await until_finished(engine, first.id))["result"] == "passed"
    case = await submit(engine, host="h1")
    await eventually(agent.alive_orders, what="a test case on the host that is free again")
    await agent.finish(agent.alive_orders()[0])
    await until_finished(engine, case["id"])
