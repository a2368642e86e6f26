"""Runs that hold hosts and wait, in nested plans or steps without a role, for each other's: one of them gives way."""

import json
from typing import Any

from proctor_common.bus import Bus
from proctor_common.ids import new_id
from proctor_common.states import StepResult
from proctor_controller.domain.hosts.deadlocks import HeldHost, Wait, describe_circle, find_circle, youngest
from proctor_controller.domain.hosts.holders import Holder
from proctor_controller.domain.hosts.leasing import LeasableHost
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import HostRole, Requirements
from proctor_controller.domain.runs.step import Phase
from proctor_controller.domain.runs.submission import NodeSpec
from proctor_controller.engine.deadlocks import Deadlocks
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, until_finished
from support.postgres import Database
from support.steps import plan, run, step, steps_of, until_there
from support.wait import eventually


def host(name: str, **holders: bool) -> HeldHost:
    return HeldHost(LeasableHost(agent=name, host=name, groups=frozenset({"lab"})), holders)


def wait(name: str, number: int, *holders: str, role: HostRole) -> Wait:
    return Wait(name, number, (role,), frozenset(holders))


def test_a_circle_is_one_only_where_nobody_else_can_let_go() -> None:
    first = wait("c1", 3, "p1", role=HostRole("r", host="h2", exclusive=True))
    second = wait("c2", 4, "p2", role=HostRole("r", host="h1", exclusive=True))
    hosts = [host("h1", p1=True), host("h2", p2=True), host("h3", p3=True)]
    circle = find_circle([first, second], hosts)
    assert circle == (first, second)
    assert youngest(circle) is second
    runs = {"p1": Holder(1, "one"), "p2": Holder(2, "two")}
    assert "h1 is held by run 1 (one)" in describe_circle(second, circle, hosts, runs)
    assert find_circle([first], hosts) == ()
    elsewhere = wait("c2", 4, "p2", role=HostRole("r", host="h3", exclusive=True))
    assert find_circle([first, elsewhere], hosts) == (), "whoever has h3 waits for nothing"
    either = wait("c2", 4, "p2", role=HostRole("r", group="lab", exclusive=True))
    assert find_circle([first, either], hosts) == ()
    assert find_circle([first, either], hosts[:2]) == (), "what its parent holds is there for it"
    both = wait("c2", 4, "p2", role=HostRole("r", group="lab", count=2))
    assert find_circle([first, both], hosts[:2]) == (first, both)
    shared = [host("h1", p1=False), host("h2", p2=False)]
    assert find_circle([first, second], shared) == (first, second)
    sharing = wait("c2", 4, "p2", role=HostRole("r", host="h1"))
    assert find_circle([first, sharing], shared) == ()
    own = wait("c2", 4, "p2", "p1", role=HostRole("r", host="h1", exclusive=True))
    assert find_circle([first, own], hosts) == (), "what it is nested in holds it for it"


async def test_parents_whose_nested_plans_want_each_others_hosts(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    other = await FakeAgent(bus, control_database, host="h2").join()
    agent.ends = other.ends = StepResult.PASSED
    for name, wanted in (("on-h1", "h1"), ("on-h2", "h2")):
        await call(engine, "plan.put", name=name, plan=json.dumps(document(name, wanted, {"a": on_role()})))
    control_database.psql("UPDATE control.agents SET draining = true")
    steps = {"nest": {"plan": "on-h2"}}, {"nest": {"plan": "on-h1"}}
    parents = [
        (await call(engine, "run.submit", run=new_id(), plan=json.dumps(document("p", wanted, below))))["id"]
        for wanted, below in zip(("h1", "h2"), steps, strict=True)
    ]
    control_database.psql("UPDATE control.agents SET draining = false")
    await engine.leasing.look()
    circles = Deadlocks(engine.database, engine.feed)

    async def broken() -> Any:
        return await circles.look()

    gave_way = await eventually(broken, 10, "one of them to give way")
    assert (await call(engine, "run.get", run=gave_way.run))["number"] == 4, "the youngest"
    results = [(await until_finished(engine, each))["result"] for each in parents]
    assert sorted(results) == ["error", "passed"]
    (failed,) = [each for each, result in zip(parents, results, strict=True) if result == "error"]
    reason = (await steps_of(engine, failed))["nest"]["reason"]
    assert "is held by run" in reason
    assert "neither would end" in reason


async def test_steps_that_want_each_others_hosts(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    other = await FakeAgent(bus, control_database, host="h2").join()
    specs = [
        plan(
            step("mine", role="r", role_index=0),
            step("theirs", place=Placement(host=theirs)),
            edges="mine -> theirs",
            wants=Requirements(roles=(HostRole("r", host=mine, exclusive=True),)),
        )
        for mine, theirs in (("h1", "h2"), ("h2", "h1"))
    ]
    for spec in specs:
        await run(engine, spec)
        await until_there(engine, spec.id, "mine", "running")
    for each in (agent, other):
        each.ends = StepResult.PASSED
        await each.finish(each.alive_orders()[0])
    for spec in specs:
        await until_there(engine, spec.id, "theirs", "waiting")
    circles = Deadlocks(engine.database, engine.feed)
    assert await circles.look() is None, "seen once"
    gave_way = await circles.look()
    assert gave_way is not None
    assert gave_way.run == specs[1].id
    assert (await until_finished(engine, specs[1].id))["result"] == "error"
    assert (await until_finished(engine, specs[0].id))["result"] == "passed"
    assert await circles.look() is None


async def test_cleanup_that_waits_in_a_circle_is_done(
    engine: Engine, agent: FakeAgent, bus: Bus, control_database: Database
) -> None:
    """It would wait until its time is over, and nobody would do it any more."""
    other = await FakeAgent(bus, control_database, host="h2").join()
    goes_on = plan(
        step("mine", role="r", role_index=0),
        step("theirs", place=Placement(host="h1")),
        edges="mine -> theirs",
        wants=Requirements(roles=(HostRole("r", host="h2", exclusive=True),)),
    )
    ends = plan(
        step("mine", role="r", role_index=0),
        step("always[0]", place=Placement(host="h2"), phase=Phase.ALWAYS),
        nodes=[NodeSpec("always[0]", phase=Phase.ALWAYS)],
        wants=Requirements(roles=(HostRole("r", host="h1", exclusive=True),)),
    )
    for spec in (goes_on, ends):
        await run(engine, spec)
        await until_there(engine, spec.id, "mine", "running")
    for each in (agent, other):
        each.ends = StepResult.PASSED
        await each.finish(each.alive_orders()[0])
    await until_there(engine, goes_on.id, "theirs", "waiting")
    await until_there(engine, ends.id, "always[0]", "waiting")
    circles = Deadlocks(engine.database, engine.feed)
    await circles.look()
    gave_way = await circles.look()
    assert gave_way is not None
    assert (gave_way.run, gave_way.cleanup) == (goes_on.id, False), "the older one, as the other one cleans up"
    assert (await until_finished(engine, goes_on.id))["result"] == "error"
    assert (await until_finished(engine, ends.id))["result"] == "passed"
    assert (await steps_of(engine, ends.id))["always[0]"]["result"] == "passed"


def document(name: str, wanted: str, steps: dict[str, Any]) -> dict[str, Any]:
    hosts = {"dut": {"host": wanted, "exclusive": True}}
    return {"testplan_version": "2026-12-01", "name": name, "hosts": hosts, "steps": steps}


def on_role() -> dict[str, Any]:
    return {"uses": "shell.run", "runs_on": "dut", "with": {"command": "x"}}
