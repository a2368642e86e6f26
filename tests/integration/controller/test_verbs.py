"""Pause, resume, cancel and run again, in every state: each may come twice, and none does what it cannot."""

from typing import Any

import pytest

from proctor_common.errors import Code, ProctorError
from proctor_common.ids import new_id
from proctor_common.states import StepResult
from proctor_controller.domain.hosts.requirements import Hold, HostRole, Requirements, Rollback
from proctor_controller.domain.runs.step import Phase, StepKind
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.submission import NodeSpec
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, make_watchdog, submit, until_finished
from support.postgres import Database
from support.steps import plan, run, step, steps_of, until_there
from support.wait import eventually


async def until_state(engine: Engine, run: str, state: str) -> Any:
    async def there() -> Any:
        view = await call(engine, "run.get", run=run)
        assert view["state"] == state, view
        return view

    return await eventually(there, 10, f"run {run} to be {state}")


async def refused(engine: Engine, op: str, **body: Any) -> str:
    with pytest.raises(ProctorError) as wrong:
        await call(engine, op, **body)
    assert wrong.value.code is Code.CONFLICT
    return wrong.value.message


async def test_a_paused_run_rests_once_nothing_is_in_flight_and_goes_on(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("a"), step("b"), step("c"), edges="a -> b, b -> c")
    await run(engine, spec)
    await until_there(engine, spec.id, "a", "running")

    assert (await call(engine, "run.pause", run=spec.id))["state"] == "pausing"
    assert (await call(engine, "run.pause", run=spec.id))["state"] == "pausing", "again: nothing changes"
    await agent.finish(agent.started[0])
    view = await until_state(engine, spec.id, "paused")
    assert "root" in view["waiting_for"]
    found = await steps_of(engine, spec.id)
    assert (found["b"]["state"], found["b"]["waiting_for"]) == ("ready", "the run is paused")
    assert len(agent.seen) == 1

    assert (await call(engine, "run.resume", run=spec.id))["state"] == "running"
    assert (await call(engine, "run.resume", run=spec.id))["state"] == "running"
    agent.ends = StepResult.PASSED
    await eventually(lambda: len(agent.started) > 1, what="the next step")
    await agent.finish(agent.started[1])
    assert (await until_finished(engine, spec.id))["result"] == "passed"
    for verb in ("run.pause", "run.resume"):
        assert "finished" in await refused(engine, verb, run=spec.id)
    assert (await call(engine, "run.cancel", run=spec.id))["result"] == "passed", "too late: nothing changes"


async def test_who_asked_and_what_a_step_of_a_paused_run_waits_for_are_told(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("a"), step("b"), step("c"))
    await run(engine, spec)
    waiting = await eventually(lambda: _one_waits(engine, spec.id), what="a step without a slot")
    assert "2 of 2 are busy" in waiting["waiting_for"]
    await call(engine, "run.pause", run=spec.id)
    waiting = await _one_waits(engine, spec.id)
    assert waiting["waiting_for"] == "the run is paused", "a slot that comes free would not do"
    await call(engine, "run.resume", run=spec.id)
    await call(engine, "run.cancel", run=spec.id)
    assert (await until_finished(engine, spec.id))["reason"] == "cancelled by root"
    told = (await call(engine, "run.events", run=spec.id))["items"]
    words = {(each["from"], each["to"]): each["reason"] for each in told if each["kind"] == "run"}
    assert (words["running", "pausing"], words["pausing", "running"]) == ("by root", "by root")
    assert words["running", "cancelling"] == "cancelled by root"


async def _one_waits(engine: Engine, run: str) -> Any:
    waiting = [one for one in (await steps_of(engine, run)).values() if one["state"] == "waiting"]
    assert len(waiting) == 1
    return waiting[0]


async def test_a_paused_run_can_be_cancelled(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("a"), step("b"), edges="a -> b")
    await run(engine, spec)
    await until_there(engine, spec.id, "a", "running")
    await call(engine, "run.pause", run=spec.id)
    await agent.finish(agent.started[0])
    await until_state(engine, spec.id, "paused")
    await call(engine, "run.cancel", run=spec.id)
    assert (await until_finished(engine, spec.id))["result"] == "cancelled"
    assert len(agent.seen) == 1


async def test_run_again_takes_the_case_as_it_was(engine: Engine, agent: FakeAgent, control_database: Database) -> None:
    agent.ends = StepResult.FAILED
    first = await submit(engine, host="h1", parameters={"command": "login", "password": "geheim-2"})
    assert "it is" not in await refused(engine, "run.rerun", run=first["id"], new_run=new_id())
    await until_finished(engine, first["id"])
    new = new_id()
    again = await call(engine, "run.rerun", run=first["id"], new_run=new, failed_only=True)
    assert (again["id"], again["rerun_of"]) == (new, first["id"])
    assert (await call(engine, "run.rerun", run=first["id"], new_run=new))["id"] == new, "the same request again"
    await until_finished(engine, new)
    assert [order.parameters["password"] for order in agent.started] == ["geheim-2", "geheim-2"]
    assert (await call(engine, "run.get", run=new))["rerun_of"] == first["id"]
    assert "geheim-2" not in control_database.psql("SELECT s, r FROM control.steps s JOIN control.runs r ON true")


PLAN = """
testplan_version: "2026-12-01"
name: again
steps:
  a:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: make}
    outputs: {made: "${{ result.exit_code }}"}
  b:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: "use-${{ steps.a.outputs.made }}"}
  c:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: last}
    depends_on: [b]
"""


async def test_failed_only_reuses_what_passed(engine: Engine, agent: FakeAgent) -> None:
    first = await call(engine, "run.submit", run=new_id(), plan=PLAN)
    await eventually(agent.alive_orders, what="step a")
    await agent.finish(agent.alive_orders()[0])
    await eventually(agent.alive_orders, what="step b")
    await agent.finish(agent.alive_orders()[0], StepResult.FAILED)
    assert (await until_finished(engine, first["id"]))["result"] == "failed"

    agent.ends = StepResult.PASSED
    again = await call(engine, "run.rerun", run=first["id"], new_run=new_id(), failed_only=True)
    view = await until_finished(engine, again["id"])
    assert (view["result"], view["steps"]) == ("passed", {"reused": 1, "passed": 2})
    found = await steps_of(engine, again["id"])
    assert (found["a"]["result"], found["a"]["outputs"]) == ("reused", {"made": 0})
    assert [order.step_name for order in agent.started] == ["a", "b", "b", "c"]
    assert agent.started[2].parameters["command"] == "use-0"
    assert "passed" in await refused(engine, "run.rerun", run=again["id"], new_run=new_id(), failed_only=True)
    whole = await call(engine, "run.rerun", run=again["id"], new_run=new_id())
    assert (await until_finished(engine, whole["id"]))["steps"] == {"passed": 3}


def cleaned(*steps: Any, **wants: Any) -> Any:
    """A plan with all that cleans up: `undo` what a did, tell of a failure, and `last` whatever happens."""
    return plan(
        *steps,
        step("on_failure[0]", phase=Phase.ON_FAILURE),
        step("rollback.a", phase=Phase.ROLLBACK),
        step("rollback.b", phase=Phase.ROLLBACK),
        step("always[0]", phase=Phase.ALWAYS),
        step("always[1]", phase=Phase.ALWAYS),
        nodes=[
            NodeSpec("on_failure[0]", phase=Phase.ON_FAILURE),
            NodeSpec("rollback.a", phase=Phase.ROLLBACK),
            NodeSpec("rollback.b", phase=Phase.ROLLBACK),
            NodeSpec("always[0]", phase=Phase.ALWAYS),
            NodeSpec("always[1]", phase=Phase.ALWAYS),
        ],
        edges="a -> b, rollback.b -> rollback.a: completed, always[0] -> always[1]: completed",
        wants=Requirements(**wants),
    )


async def end_all(agent: FakeAgent, engine: Engine, run: str, *failing: str) -> Any:
    """Each attempt ends as it starts; the run once it has ended."""
    done: set[str] = set()

    async def finished() -> Any:
        for order in list(agent.alive_orders()):
            if order.token not in done:
                done.add(order.token)
                await agent.finish(order, StepResult.FAILED if order.step_name in failing else StepResult.PASSED)
        view = await call(engine, "run.get", run=run)
        assert view["state"] == "finished", view
        return view

    return await eventually(finished, 15, f"the end of run {run}")


async def test_after_a_failure_come_on_failure_rollback_and_always(engine: Engine, agent: FakeAgent) -> None:
    spec = cleaned(step("a"), step("b"), rollback=Rollback.ON_FAILURE)
    view = await end_all(agent, engine, await run(engine, spec), "b", "rollback.a", "always[0]")

    assert (view["result"], view["steps"]) == ("failed", {"passed": 1, "failed": 1}), "cleanup does not count"
    order = [each.step_name for each in agent.started]
    assert order == ["a", "b", "on_failure[0]", "rollback.a", "always[0]", "always[1]"]
    found = await steps_of(engine, spec.id)
    assert found["rollback.b"]["result"] == "skipped", "what did not pass is not undone"
    events = (await call(engine, "run.events", run=spec.id))["items"]
    states = [each["to"] for each in events if each["kind"] == "run"]
    assert states == ["queued", "allocating", "running", "rolling_back", "finalizing", "finished"]


ROLLED_BACK = """
testplan_version: "2026-12-01"
name: undone
steps:
  kept: {uses: shell.run, runs_on: {host: h1}, with: {command: "true"}, outputs: {made: "${{ result.exit_code }}"}}
  deploy:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: "true"}
    rollback: {uses: shell.run, with: {command: undo}}
  test: {uses: shell.run, runs_on: {host: h1}, with: {command: "false"}, depends_on: [kept, deploy]}
rollback: on_failure
"""


async def test_a_gate_that_a_former_run_has_passed_is_approved(engine: Engine, agent: FakeAgent) -> None:
    gate = "  open: {gate: {roles: [admin]}}\n"
    text = PLAN.replace("steps:\n", f"steps:\n{gate}")
    first = await call(engine, "run.submit", run=new_id(), plan=text)
    await until_there(engine, first["id"], "open", "running")
    await call(engine, "run.approve", run=first["id"], step="open")
    assert (await end_all(agent, engine, first["id"], "b"))["result"] == "failed"
    again = await call(engine, "run.rerun", run=first["id"], new_run=new_id(), failed_only=True)
    await call(engine, "run.approve", run=again["id"], step="open")
    assert "has been decided: reused" in await refused(engine, "run.reject", run=again["id"], step="open")
    assert (await end_all(agent, engine, again["id"]))["result"] == "passed"


async def test_what_was_rolled_back_is_run_again_with_what_failed(engine: Engine, agent: FakeAgent) -> None:
    """Its dependants would find nothing of what it had made."""
    first = await call(engine, "run.submit", run=new_id(), plan=ROLLED_BACK)
    assert (await end_all(agent, engine, first["id"], "test"))["result"] == "failed"
    assert [order.step_name for order in agent.started][-1] == "rollback.deploy"
    again = await call(engine, "run.rerun", run=first["id"], new_run=new_id(), failed_only=True)
    assert (await end_all(agent, engine, again["id"]))["steps"] == {"reused": 1, "passed": 2}
    found = await steps_of(engine, again["id"])
    assert (found["kept"]["result"], found["deploy"]["result"]) == ("reused", "passed")


async def test_a_run_that_passes_does_only_what_is_always_done(engine: Engine, agent: FakeAgent) -> None:
    spec = cleaned(step("a"), step("b"), rollback=Rollback.ON_FAILURE)
    view = await end_all(agent, engine, await run(engine, spec))
    assert view["result"] == "passed"
    assert [each.step_name for each in agent.started] == ["a", "b", "always[0]", "always[1]"]
    found = await steps_of(engine, spec.id)
    assert {found[name]["result"] for name in ("on_failure[0]", "rollback.a", "rollback.b")} == {"skipped"}


async def test_a_cancelled_run_is_rolled_back_where_it_asks_for_it(engine: Engine, agent: FakeAgent) -> None:
    spec = cleaned(step("a"), step("b"), rollback=Rollback.ON_CANCEL)
    await run(engine, spec)
    await until_there(engine, spec.id, "a", "running")
    await agent.finish(agent.started[0])
    await until_there(engine, spec.id, "b", "running")
    await call(engine, "run.cancel", run=spec.id)
    view = await end_all(agent, engine, spec.id)
    assert view["result"] == "cancelled"
    assert [each.step_name for each in agent.started][2:] == ["rollback.a", "always[0]", "always[1]"]


async def test_cleanup_that_takes_too_long_is_stopped(engine: Engine, agent: FakeAgent) -> None:
    spec = cleaned(step("a"), step("b"), cleanup_s=0.5)
    await run(engine, spec)
    for number in range(2):
        await eventually(lambda at=number: len(agent.started) > at, what="a main step")  # type: ignore[misc]
        await agent.finish(agent.started[number])
    watchdog = make_watchdog(engine)

    async def looked_after() -> Any:
        await watchdog.tick()
        view = await call(engine, "run.get", run=spec.id)
        assert view["state"] == "finished", view
        return view

    assert (await eventually(looked_after, 15, "the end"))["result"] == "passed"
    found = await steps_of(engine, spec.id)
    assert {found[name]["result"] for name in ("always[0]", "always[1]")} == {"timed_out"}


async def test_outputs_of_the_run(engine: Engine, agent: FakeAgent) -> None:
    rules = {"a": Rules(outputs={"made": "${{ result.exit_code }}"})}
    wants = Requirements(
        outputs={"made": "${{ steps.a.outputs.made }}", "bad": "${{ steps.a.outputs.none }}"}, outputs_refs=("a",)
    )
    spec = plan(step("a"), rules=rules, wants=wants)
    view = await end_all(agent, engine, await run(engine, spec))
    assert (view["result"], view["outputs"]) == ("passed", {"made": 0, "bad": None})
    assert "outputs.bad" in view["reason"]


async def test_after_a_failure_hosts_are_held_until_somebody_lets_go(engine: Engine, agent: FakeAgent) -> None:
    roles = (HostRole("dut", host="h1", exclusive=True),)
    spec = plan(step("a", role="dut", role_index=0), wants=Requirements(roles=roles, hold=Hold(("dut",), 3600)))
    view = await end_all(agent, engine, await run(engine, spec), "a")
    assert view["result"] == "failed"
    assert view["hold_until"] is not None
    other = plan(step("a", role="dut", role_index=0), wants=Requirements(roles=roles))
    await run(engine, other)

    async def waits() -> bool:
        found = await call(engine, "run.get", run=other.id)
        assert found["state"] == "allocating"
        assert "h1" in found["waiting_for"]
        return True

    await eventually(waits, what="the other run to wait")
    assert (await call(engine, "run.cancel", run=spec.id))["hold_until"] is None
    assert (await end_all(agent, engine, other.id))["result"] == "passed"


async def test_once_a_hold_is_over_whoever_waits_for_the_host_has_it_soon(
    engine: Engine, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by the sweep, which finds twice a minute what nobody has given back.
    monkeypatch.setattr("proctor_controller.engine.watchdog.ORPHANS_EVERY", 1_000_000)
    roles = (HostRole("dut", host="h1", exclusive=True),)
    held = plan(step("a", role="dut", role_index=0), wants=Requirements(roles=roles, hold=Hold(("dut",), 1.0)))
    watchdog = make_watchdog(engine)
    await watchdog.tick()
    view = await end_all(agent, engine, await run(engine, held), "a")
    other = plan(step("a", role="dut", role_index=0), wants=Requirements(roles=roles))
    await run(engine, other)
    case = await submit(engine, host="h1")
    agent.ends = StepResult.PASSED

    async def ended() -> list[Any]:
        await watchdog.tick()
        views = [await call(engine, "run.get", run=each) for each in (other.id, case["id"])]
        assert {view["state"] for view in views} == {"finished"}, views
        return views

    views = await eventually(ended, 5, "those that wait for the host")
    assert {view["result"] for view in views} == {"passed"}
    assert views[0]["started_at"] >= view["hold_until"], "the hold was kept"
    assert (await call(engine, "run.get", run=view["id"]))["hold_until"] is None, "it keeps nothing any more"


async def test_a_gate_does_not_keep_a_run_from_resting(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("g", kind=StepKind.GATE), step("b"), rules={"g": Rules()}, edges="g -> b")
    await run(engine, spec)
    await until_there(engine, spec.id, "g", "running")
    await call(engine, "run.pause", run=spec.id)
    await until_state(engine, spec.id, "paused")
    await call(engine, "run.approve", run=spec.id, step="g")
    assert (await call(engine, "run.get", run=spec.id))["state"] == "paused"
    await call(engine, "run.resume", run=spec.id)
    assert (await end_all(agent, engine, spec.id))["result"] == "passed"
