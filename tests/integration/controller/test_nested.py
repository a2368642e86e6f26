"""Plans within plans: a step that is a run of its own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.errors import ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role, StepResult
from proctor_controller.db.session import Session, session
from proctor_controller.domain.runs.decision import Policy
from proctor_controller.domain.runs.submission import RunSpec
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.watchdog import Watchdog
from support.engine import ADMIN, FakeAgent, call, hearing_engine, make_watchdog, until_finished
from support.postgres import Database
from support.steps import steps_of, until_there
from support.wait import eventually

VERSION = "2026-12-01"
QUICK = EngineSettings(policy=Policy(child_due_s=0.3, resend_s=0.3))


def document(name: str, steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"testplan_version": VERSION, "name": name, "steps": steps, **members}


def command(text: str, **members: Any) -> dict[str, Any]:
    return {"uses": "shell.run", "runs_on": {"host": "h1"}, "with": {"command": text}, **members}


@pytest.fixture
def engine_settings() -> EngineSettings:
    return QUICK


async def put(engine: Engine, plan: dict[str, Any]) -> None:
    await call(engine, "plan.put", name=plan["name"], plan=json.dumps(plan))


async def begin(engine: Engine, steps: dict[str, Any], **members: Any) -> str:
    view = await call(engine, "run.submit", run=new_id(), plan=json.dumps(document("parent", steps, **members)))
    return str(view["id"])


async def until_ended(engine: Engine, run: str) -> Any:
    watchdog = make_watchdog(engine)

    async def ended() -> Any:
        await watchdog.tick()
        view = await call(engine, "run.get", run=run)
        assert view["state"] == "finished", view
        return view

    return await eventually(ended, 15, f"the end of run {run}")


async def child_of(engine: Engine, run: str, name: str) -> str:
    async def there() -> Any:
        return (await steps_of(engine, run))[name]["child"]

    return str(await eventually(there, 10, f"the child of {name}"))


async def test_a_child_gives_its_outputs_to_its_step(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    look = command("echo", outputs={"code": "${{ result.exit_code }}"})
    outputs = {"sum": "${{ steps.look.outputs.code + params.n }}"}
    child = document("child", {"look": look}, parameters={"n": {"type": "number"}}, outputs=outputs)
    await put(engine, child)
    at = await begin(
        engine,
        {
            "first": {"plan": "child", "with": {"n": 4}},
            "second": command("${{ string(steps.first.outputs.sum) }}"),
        },
    )
    view = await until_ended(engine, at)
    assert view["result"] == "passed", await steps_of(engine, at)
    nested = await call(engine, "run.get", run=await child_of(engine, at, "first"))
    assert (nested["parent"], nested["result"], nested["plan"]) == (at, "passed", "child")
    assert agent.started[-1].parameters["command"] == "4"


async def test_outputs_of_a_child_that_was_skipped_or_failed_are_null(engine: Engine, agent: FakeAgent) -> None:
    child = document("child", {"a": command("false")}, outputs={"v": "${{ steps.a.result.exit_code }}"})
    await put(engine, child)
    said = "${{ steps.skipped.outputs.v == null && steps.fails.outputs.v == null ? 'both' : 'neither' }}"
    at = await begin(
        engine,
        {
            "skipped": {"plan": "child", "if": "1 == 2"},
            "fails": {"plan": "child"},
            "reads": command(said, depends_on={"skipped": "completed", "fails": "completed"}),
        },
    )
    await eventually(lambda: agent.started)
    await agent.finish(agent.started[0], StepResult.FAILED)
    agent.ends = StepResult.PASSED
    await until_ended(engine, at)
    found = await steps_of(engine, at)
    assert (found["reads"]["result"], agent.started[-1].parameters["command"]) == ("passed", "both"), found["reads"]
    assert found["skipped"]["outputs"] == found["fails"]["outputs"] == {"v": None}


async def test_a_child_that_fails_is_tried_again_as_another_run(engine: Engine, agent: FakeAgent) -> None:
    await put(engine, document("child", {"a": command("x")}))
    at = await begin(engine, {"nest": {"plan": "child", "retry": {"attempts": 2}}})
    await eventually(lambda: len(agent.started) == 1)
    await agent.finish(agent.started[0], StepResult.FAILED)
    watchdog = make_watchdog(engine)
    await eventually(lambda: ticked(watchdog, len(agent.started) == 2))
    await agent.finish(agent.started[1])
    assert (await until_ended(engine, at))["result"] == "passed"
    assert agent.started[0].run != agent.started[1].run


async def ticked(watchdog: Watchdog, value: bool) -> bool:
    await watchdog.tick()
    return value


async def test_cancel_goes_down_and_the_parent_waits_for_it(engine: Engine, agent: FakeAgent) -> None:
    await put(engine, document("leaf", {"a": command("sleep")}))
    await put(engine, document("child", {"deep": {"plan": "leaf"}}))
    at = await begin(engine, {"nest": {"plan": "child"}})
    child = await child_of(engine, at, "nest")
    leaf = await child_of(engine, child, "deep")
    await eventually(lambda: agent.started)
    await until_there(engine, leaf, "a", "running")
    await call(engine, "run.cancel", run=at)
    assert (await until_ended(engine, at))["result"] == "cancelled"
    for run in (child, leaf):
        assert (await call(engine, "run.get", run=run))["result"] == "cancelled"
    assert len(agent.cancels) == 1


async def test_a_plan_that_is_gone_or_wrong_is_the_steps_error(engine: Engine, agent: FakeAgent) -> None:
    await put(engine, document("child", {"a": command("x")}, parameters={"n": {"type": "number"}}))
    with pytest.raises(ProctorError, match="nothere"):
        await begin(engine, {"nest": {"plan": "nothere"}})
    value = command("x", outputs={"word": "${{ result.last }}"})
    at = await begin(engine, {"a": value, "nest": {"plan": "child", "with": {"n": "${{ steps.a.outputs.word }}"}}})
    await eventually(lambda: agent.started)
    await agent.finish(agent.started[0], output={"last": "no number"})
    assert (await until_ended(engine, at))["result"] == "error"
    reason = (await steps_of(engine, at))["nest"]["reason"]
    assert "the nested plan cannot be run" in reason
    assert "number" in reason


async def test_a_child_whose_step_was_stopped_never_begins(
    engine: Engine, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is cancelled after its child was decided on and before it was stored."""
    await put(engine, document("child", {"a": command("x")}))
    decided, cancelled = asyncio.Event(), asyncio.Event()
    store = engine.submissions.submit

    async def late(db: Session, spec: RunSpec, *more: Any) -> Any:
        if spec.parent_step is not None:
            decided.set()
            await cancelled.wait()
        return await store(db, spec, *more)

    monkeypatch.setattr(engine.submissions, "submit", late)
    at = await begin(engine, {"nest": {"plan": "child"}})
    await decided.wait()
    await call(engine, "run.cancel", run=at)
    assert (await until_ended(engine, at))["result"] == "cancelled"
    cancelled.set()
    await engine.tasks.drain(5)
    async with session(engine.database) as db:
        assert await db.fetchval("SELECT count(*) FROM control.runs") == 1


async def test_pause_and_resume_go_down(engine: Engine, agent: FakeAgent) -> None:
    steps = {"a": command("one"), "b": command("two", depends_on=["a"])}
    await put(engine, document("child", steps))
    at = await begin(engine, {"nest": {"plan": "child"}})
    child = await child_of(engine, at, "nest")
    await until_there(engine, child, "a", "running")
    await call(engine, "run.pause", run=at)

    async def rests() -> bool:
        return str((await call(engine, "run.get", run=child))["state"]) == "pausing"

    await eventually(rests)
    await agent.finish(agent.started[0])
    await until_there(engine, child, "b", "ready")
    assert (await call(engine, "run.get", run=child))["state"] == "paused"
    await until_is(engine, at, "paused")
    assert "paused by its parent" in (await steps_of(engine, at))["nest"]["waiting_for"]
    for _ in range(2):
        with pytest.raises(ProctorError, match="run 1, which it is part of, is paused: resume that one") as refused:
            await call(engine, "run.resume", run=child)
        assert refused.value.status == 409
    await call(engine, "run.resume", run=at)
    await eventually(lambda: len(agent.started) == 2)
    await agent.finish(agent.started[1])
    assert (await until_ended(engine, at))["result"] == "passed"


async def test_a_child_rests_by_itself_and_its_parent_may_rest_too(engine: Engine, agent: FakeAgent) -> None:
    await put(engine, document("child", {"a": command("one"), "b": command("two", depends_on=["a"])}))
    at = await begin(engine, {"nest": {"plan": "child"}})
    child = await child_of(engine, at, "nest")
    await until_there(engine, child, "a", "running")
    await call(engine, "run.pause", run=child)
    await agent.finish(agent.started[0])
    await until_is(engine, child, "paused")
    await until_is(engine, at, "running")

    async def told() -> bool:
        return "paused by root" in str((await steps_of(engine, at))["nest"]["waiting_for"])

    await eventually(told)
    for _ in range(2):
        await call(engine, "run.pause", run=at)
        await until_is(engine, at, "paused")
        await call(engine, "run.resume", run=at)
        await until_is(engine, at, "running")
        assert (await call(engine, "run.get", run=child))["state"] == "paused", "it was not paused by its parent"
    await call(engine, "run.pause", run=at)
    await call(engine, "run.cancel", run=child)
    assert (await until_ended(engine, child))["result"] == "cancelled"
    await until_is(engine, at, "paused")
    await call(engine, "run.resume", run=at)
    assert (await until_ended(engine, at))["result"] == "cancelled"


async def test_a_child_that_waits_for_hosts_does_not_begin_while_its_parent_rests(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    agent.ends = StepResult.PASSED
    on_role = {"uses": "shell.run", "runs_on": "dut", "with": {"command": "x"}}
    await put(engine, document("child", {"a": on_role}, hosts={"dut": {"host": "h1"}}))
    control_database.psql("UPDATE control.agents SET draining = true")
    at = await begin(engine, {"nest": {"plan": "child"}})
    child = await child_of(engine, at, "nest")
    await until_is(engine, child, "allocating")
    await call(engine, "run.pause", run=at)
    await until_is(engine, at, "paused")
    control_database.psql("UPDATE control.agents SET draining = false")
    await engine.leasing.look()
    view = await call(engine, "run.get", run=child)
    assert (view["state"], view["waiting_for"]) == (
        "allocating",
        "run 1 (parent), which it is nested in, to be resumed",
    )
    assert agent.started == []
    await call(engine, "run.cancel", run=child)
    await call(engine, "run.resume", run=at)
    assert (await until_ended(engine, at))["result"] == "cancelled"
    again = await begin(engine, {"nest": {"plan": "child"}})
    assert (await until_ended(engine, again))["result"] == "passed"


async def test_a_paused_parent_can_be_cancelled_with_its_children(engine: Engine, agent: FakeAgent) -> None:
    await put(engine, document("child", {"a": command("one"), "b": command("two", depends_on=["a"])}))
    at = await begin(engine, {"nest": {"plan": "child"}})
    child = await child_of(engine, at, "nest")
    await until_there(engine, child, "a", "running")
    await call(engine, "run.pause", run=at)
    # A child hears of it a moment later; until then it goes on.
    await until_is(engine, child, "pausing")
    await agent.finish(agent.started[0])
    await until_is(engine, at, "paused")
    await call(engine, "run.cancel", run=at)
    assert (await until_ended(engine, at))["result"] == "cancelled"
    assert (await call(engine, "run.get", run=child))["result"] == "cancelled"
    assert len(agent.started) == 1


async def until_is(engine: Engine, run: str, state: str) -> None:
    async def there() -> bool:
        return str((await call(engine, "run.get", run=run))["state"]) == state

    await eventually(there, 10, f"run {run} to be {state}")


async def test_the_end_of_a_child_is_told_at_once(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    await put(engine, document("child", {"a": command("x")}))
    at = await begin(engine, {"nest": {"plan": "child"}})
    assert (await until_finished(engine, at, timeout=5))["result"] == "passed"


async def test_a_run_is_over_when_all_that_it_is_nested_in_is(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = None
    await put(engine, document("child", {"look": command("echo")}))
    run = await begin(engine, {"inner": {"plan": "child"}, "after": command("echo", depends_on=["inner"])})
    work, unknown = engine.agent_status, new_id()
    child = await child_of(engine, run, "inner")
    assert await work.over([run, child, unknown, "no id"]) == [unknown]
    await until_there(engine, child, "look", "running")
    await agent.finish(agent.alive_orders()[0])
    await until_there(engine, run, "after", "running")
    assert await work.over([run, child]) == [], "a later step of the parent may need what the child left"
    await agent.finish(agent.alive_orders()[0])
    await until_finished(engine, run)
    assert set(await work.over([run, child])) == {run, child}


async def test_nested_and_repeated_runs_have_the_secrets_of_their_group(
    rows: AsyncEngine, bus: Bus, agent: FakeAgent, control_database: Database, tmp_path: Path
) -> None:
    for name, text in (("red/KEY", "of-red"), ("blue/KEY", "of-blue"), ("TOP", "of-all")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    control_database.psql(f"""INSERT INTO control.groups (name) VALUES ('red'), ('blue');
        INSERT INTO control.group_agents SELECT name, '{agent.id}' FROM control.groups""")
    red, blue = (Actor(name=name, role=Role.RUNNER, groups=[name]) for name in ("red", "blue"))
    login = command("login", env={"KEY": "${{ secrets.KEY }}"})
    async with hearing_engine(rows, bus, EngineSettings(policy=QUICK.policy, secrets_dir=tmp_path)) as engine:
        for who, key in ((red, "of-red"), (blue, "of-blue")):
            agent.started.clear()
            child = document(f"child-{who.name}", {"a": login}, secrets={"KEY": "KEY"})
            await call(engine, "plan.put", who, name=child["name"], plan=json.dumps(child))
            parent = json.dumps(document("parent", {"n": {"plan": child["name"]}}))
            run = await call(engine, "run.submit", who, run=new_id(), plan=parent)
            await eventually(lambda: len(agent.started) == 1, 10, "the order")
            await agent.finish(agent.started[0], StepResult.PASSED)
            await until_ended(engine, run["id"])
            assert agent.started[0].env == {"KEY": key}
        run = await call(engine, "run.rerun", blue, run=run["id"], new_run=new_id())
        await eventually(lambda: len(agent.started) == 2, 10, "the order")
        assert agent.started[1].env == {"KEY": "of-blue"}
        top = json.dumps(document("top", {"a": login}, secrets={"KEY": "TOP"}))
        for actor, plan in ((red, top), (ADMIN, "child-red")):
            with pytest.raises(ProctorError, match="there is no secret"):
                await call(engine, "run.submit", actor, run=new_id(), plan=plan)
            assert len((await call(engine, "plan.validate", actor, plan=plan))["errors"]) == 1
