"""Schedules: a run at each tick, once, whoever dies; skipped, missed and refused ticks are told."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import Code, ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import SubmitRun
from proctor_common.pg import transaction
from proctor_common.states import Role, StepResult
from proctor_controller.db.duties import Held, claim_duty
from proctor_controller.domain.schedule import run_of_tick
from proctor_controller.duties.schedules import ScheduleClock
from proctor_controller.engine.engine import Engine
from proctor_controller.handlers.runs.plans import submit_run
from support.engine import ADMIN, Context, FakeAgent, call, until_finished
from support.postgres import Database
from support.wait import eventually

STEP = {"uses": "shell.run", "runs_on": {"host": "h1"}, "with": {"command": "true"}}
PLAN = {"testplan_version": "2026-12-01", "name": "nightly", "steps": {"a": STEP}}
OF_LAB_B = Actor(name="b", role=Role.ADMIN, groups=["lab-b"])


class Clock:
    """The duty's work as one controller does it; ``fault`` is raised in place of a submission."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked: list[SubmitRun] = []
        self.fault: BaseException | None = None
        self.after: BaseException | None = None

    async def submit(self, actor: Actor, body: SubmitRun) -> object:
        self.asked.append(body)
        if self.fault is not None:
            raise self.fault
        context: Any = Context(self.engine)
        view = await submit_run(context, actor, body)
        if self.after is not None:
            raise self.after
        return view

    async def turn(self, held: Held, grace: float = 3600.0) -> None:
        work = ScheduleClock(self.engine.database, self.engine.services.seal, self.submit, interval=1.0, grace=grace)
        await work.turn(held)


@pytest.fixture
def clock(engine: Engine) -> Clock:
    return Clock(engine)


async def hold(database: AsyncEngine, owner: str = "c1") -> Held:
    async with transaction(database) as connection:
        held = await claim_duty(connection, "schedules", owner, 600.0)
    assert held is not None
    return held


def due_at(database: Database, tick: datetime, name: str = "nightly") -> datetime:
    database.psql(f"UPDATE control.schedules SET next_at = '{tick.isoformat()}' WHERE name = '{name}'")
    return tick


def this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


async def put(engine: Engine, **changes: Any) -> Any:
    """A schedule whose own next tick is far away: one of each minute may come in the middle of a test."""
    return await call(engine, "schedule.put", **{"name": "nightly", "cron": "@yearly", "plan": PLAN, **changes})


async def ticks(engine: Engine) -> list[tuple[str, str]]:
    view = await call(engine, "schedule.get", name="nightly")
    return [(tick["outcome"], tick["reason"]) for tick in view["ticks"]]


async def test_a_tick_starts_its_run_and_the_next_is_shown(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    agent.ends = StepResult.PASSED
    made = await put(engine)
    assert datetime.fromisoformat(made["next_at"]) > datetime.now(UTC)
    assert made["last_run"] is None
    held = await hold(engine.database)
    await clock.turn(held)
    tick = due_at(control_database, this_minute())
    await clock.turn(held)
    view = await call(engine, "schedule.get", name="nightly")
    (schedule,) = control_database.psql("SELECT id FROM control.schedules").split()
    assert view["last_run"] == run_of_tick(schedule, tick)
    assert datetime.fromisoformat(view["last_at"]) == tick
    assert datetime.fromisoformat(view["next_at"]) > tick
    run = await until_finished(engine, view["last_run"])
    assert (run["result"], run["created_by"], run["name"]) == ("passed", "schedule/nightly", "nightly")


async def test_a_tick_within_the_turn_is_waited_for(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    held = await hold(engine.database)
    tick = due_at(control_database, datetime.now(UTC) + timedelta(seconds=0.4))
    await clock.turn(held)
    assert len(clock.asked) == 1
    assert datetime.now(UTC) >= tick


async def test_whoever_dies_between_start_and_note_starts_nothing_twice(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    agent.ends = StepResult.PASSED
    await put(engine)
    held = await hold(engine.database)
    due_at(control_database, this_minute())
    clock.after = asyncio.CancelledError()  # the run is stored, and the controller is no more
    with pytest.raises(asyncio.CancelledError):
        await clock.turn(held)
    assert [outcome for outcome, _ in await ticks(engine)] == ["firing"]
    clock.after = None
    await clock.turn(held)
    assert [outcome for outcome, _ in await ticks(engine)] == ["started"]
    assert len((await call(engine, "run.list"))["items"]) == 1

    # Even where the same tick is asked for again from the start.
    control_database.psql("DELETE FROM control.schedule_ticks")
    due_at(control_database, this_minute())
    await clock.turn(held)
    assert len((await call(engine, "run.list"))["items"]) <= 2


async def test_a_submission_without_an_answer_is_tried_again(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    held = await hold(engine.database)
    due_at(control_database, this_minute())
    clock.fault = ProctorError(Code.DATABASE_UNAVAILABLE, "away")
    await clock.turn(held)
    assert [outcome for outcome, _ in await ticks(engine)] == ["firing"]
    clock.fault = None
    await clock.turn(held)
    assert [outcome for outcome, _ in await ticks(engine)] == ["started"]
    assert clock.asked[0].run == clock.asked[1].run


async def test_a_tick_is_skipped_while_the_former_run_goes_on(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    held = await hold(engine.database)
    due_at(control_database, this_minute() - timedelta(minutes=1))
    await clock.turn(held)
    (order,) = await eventually(lambda: agent.started, 5, "the order")
    due_at(control_database, this_minute())
    await clock.turn(held)
    (skipped, why), *_ = await ticks(engine)
    assert skipped == "skipped"
    assert "run 1 is still running" in why
    audit = (await call(engine, "audit.list"))["items"]
    assert audit[0]["action"] == "schedule.skipped"
    await agent.finish(order)
    view = await call(engine, "schedule.get", name="nightly")
    await until_finished(engine, view["last_run"])


async def test_a_run_longer_than_all_ticks_that_are_kept_is_still_the_former_run(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    held = await hold(engine.database)
    begun = due_at(control_database, this_minute() - timedelta(minutes=200))
    await clock.turn(held, grace=100_000)
    (order,) = await eventually(lambda: agent.started, 5, "the order")
    control_database.psql(
        f"""INSERT INTO control.schedule_ticks (schedule_id, at, outcome)
        SELECT id, timestamptz '{begun.isoformat()}' + n * interval '1 minute', 'skipped'
        FROM control.schedules, generate_series(1, 150) n"""
    )
    for late in (1, 0):
        due_at(control_database, this_minute() - timedelta(minutes=late))
        await clock.turn(held)
    assert len(clock.asked) == 1, "it was started beside its former run"
    assert control_database.psql("SELECT count(*) FROM control.schedule_ticks") == "101"
    (listed,) = (await call(engine, "schedule.list"))["items"]
    view = await call(engine, "schedule.get", name="nightly")
    for shown in (listed, view):
        assert (shown["last_run"], shown["last_at"][:16]) == (order.run, f"{begun:%Y-%m-%dT%H:%M}")
        assert [tick["outcome"] for tick in shown["ticks"]][-2:] == ["skipped", "started"]
    assert len(view["ticks"]) == 21
    await agent.finish(order)
    await until_finished(engine, order.run)
    tick = due_at(control_database, this_minute())
    control_database.psql(f"DELETE FROM control.schedule_ticks WHERE at = '{tick.isoformat()}'")
    await clock.turn(held)
    assert len(clock.asked) == 2


async def test_ticks_that_nobody_was_there_for_are_told_and_not_made_up_for(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine, cron="0 * * * *")
    held = await hold(engine.database)
    hours = [this_minute().replace(minute=0) - timedelta(hours=back) for back in (4, 3, 2)]
    due_at(control_database, hours[0])
    if this_minute().minute == 0:
        pytest.skip("the hour is just now")
    await clock.turn(held, grace=60)
    assert clock.asked == []
    told = await ticks(engine)
    assert [outcome for outcome, _ in told] == ["missed"] * 5
    await clock.turn(held, grace=60)
    assert len(await ticks(engine)) == 5
    actions = [entry["action"] for entry in (await call(engine, "audit.list"))["items"]]
    assert actions.count("schedule.missed") == 5


async def test_a_plan_that_cannot_start_any_more_is_told(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    held = await hold(engine.database)
    control_database.psql("UPDATE control.agents SET plugins = '{}'")
    due_at(control_database, this_minute())
    await clock.turn(held)
    ((outcome, why),) = await ticks(engine)
    assert outcome == "refused"
    assert "no plugin shell" in why


async def test_a_stored_plan_that_the_language_refuses_now_says_so_at_its_run_and_its_schedule(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await call(engine, "plan.put", name="nightly", plan=PLAN)
    await put(engine, plan="nightly")
    held = await hold(engine.database)
    older = {**PLAN, "steps": {"a": {**STEP, "with": {"command": "sh", "args": "-c 'rm ${{ run.id }}'"}}}}
    control_database.psql(f"UPDATE control.plans SET document = $plan${json.dumps(older)}$plan$")
    with pytest.raises(ProctorError) as refused:
        await call(engine, "run.submit", run=new_id(), plan="nightly")
    assert [each["code"] for each in refused.value.details["errors"]] == ["value_in_shell_text"]
    due_at(control_database, this_minute())
    await clock.turn(held)
    ((outcome, why),) = await ticks(engine)
    assert outcome == "refused"
    assert "steps.a.with.args" in why and "shell text" in why


async def test_a_controller_that_lost_the_duty_changes_nothing(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    stale = await hold(engine.database, "c1")
    control_database.psql("UPDATE control.duties SET expires_at = now() - interval '1 s'")
    await hold(engine.database, "c2")
    due_at(control_database, this_minute())
    await clock.turn(stale)
    assert clock.asked == []
    assert await ticks(engine) == []


async def test_schedules_belong_to_groups(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    await put(engine)
    assert (await call(engine, "schedule.list", OF_LAB_B))["items"] == []
    with pytest.raises(ProctorError) as fault:
        await call(engine, "schedule.get", OF_LAB_B, name="nightly")
    assert fault.value.code is Code.NOT_FOUND
    control_database.psql("INSERT INTO control.groups (name) VALUES ('lab-b')")
    control_database.psql("INSERT INTO control.group_agents SELECT 'lab-b', id FROM control.agents")
    with pytest.raises(ProctorError) as fault:
        await call(engine, "schedule.put", OF_LAB_B, name="nightly", cron="@daily", plan=PLAN)
    assert fault.value.code is Code.CONFLICT
    made = await call(engine, "schedule.put", OF_LAB_B, name="weekly", cron="@weekly", plan=PLAN)
    assert made["group"] == "lab-b"
    await call(engine, "plan.put", name="mine", plan=PLAN)
    with pytest.raises(ProctorError):  # nobody's plan is none of a bound token's
        await call(engine, "schedule.put", OF_LAB_B, name="weekly", cron="@weekly", plan="mine")
    await call(engine, "schedule.put", name="ours", cron="@weekly", plan="mine", group="lab-b")
    held = await hold(engine.database)
    due_at(control_database, this_minute(), "ours")
    await clock.turn(held)
    assert (await call(engine, "schedule.get", name="ours"))["ticks"][0]["outcome"] == "started"
    await call(engine, "schedule.delete", OF_LAB_B, name="ours")
    page = await call(engine, "schedule.list", limit=1)
    assert [item["name"] for item in page["items"]] == ["nightly"]
    page = await call(engine, "schedule.list", limit=1, cursor=page["next"])
    assert ([item["name"] for item in page["items"]], page["next"]) == (["weekly"], None)
    assert (await call(engine, "schedule.delete", OF_LAB_B, name="weekly"))["name"] == "weekly"
    with pytest.raises(ProctorError):
        await call(engine, "schedule.get", name="weekly")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cron": "* * *"}, "cron"),
    ({"timezone": "Mars/X"}, "timezone"),
    ({"name": "a b"}, "name"),
    ({"plan": {**PLAN, "steps": {}}}, "steps"),
    ({"parameters": {"nope": 1}}, "parameters.nope"),
]


async def test_bad_schedules_are_refused_at_once(engine: Engine, agent: FakeAgent) -> None:
    for changes, path in BAD:
        with pytest.raises(ProctorError) as fault:
            await put(engine, **changes)
        assert fault.value.code is Code.INVALID
        assert fault.value.details["errors"][0]["path"] == path
    assert (await call(engine, "schedule.list"))["items"] == []


async def test_all_faults_of_a_schedule_are_told_at_once(engine: Engine, agent: FakeAgent) -> None:
    spoilt = {"name": "a b", "cron": "* * *", "timezone": "Mars/X"}
    for plan, path, code in (({**PLAN, "steps": {}}, "steps", "invalid"), ("none-of-it", "plan", "not_found")):
        with pytest.raises(ProctorError) as refused:
            await put(engine, **spoilt, plan=plan)
        assert refused.value.code is Code.INVALID
        found = [(each["path"], each["code"]) for each in refused.value.details["errors"]]
        assert found == [("name", "invalid"), ("timezone", "invalid"), ("cron", "invalid"), (path, code)]
        assert refused.value.message.endswith("(and 3 more)")
    with pytest.raises(ProctorError) as refused:
        await put(engine, plan="none-of-it")
    assert refused.value.code is Code.NOT_FOUND, "of a plan alone: as a submission would"


async def test_hidden_parameters_are_sealed_and_reach_the_run(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock
) -> None:
    agent.ends = StepResult.PASSED
    plan = {
        **PLAN,
        "parameters": {"pin": {"type": "string", "hidden": True}, "who": {"type": "string"}},
        "steps": {
            "a": {
                "uses": "shell.run",
                "runs_on": {"host": "h1"},
                "with": {"command": "${{ params.who }}", "password": "${{ params.pin }}"},
            },
            "b": {"uses": "shell.run", "runs_on": {"host": "h1"}, "with": {"command": "x", "password": "l1teral"}},
        },
    }
    made = await put(engine, plan=plan, parameters={"pin": "sw0rdfish", "who": "me"})
    assert made["parameters"] == {"pin": "***", "who": "me"}
    assert made["plan"]["steps"]["b"]["with"] == {"command": "x", "password": "***"}
    stored = control_database.psql("SELECT * FROM control.schedules")
    assert "sw0rdfish" not in stored and "l1teral" not in stored
    held = await hold(engine.database)
    due_at(control_database, this_minute())
    await clock.turn(held)
    view = await call(engine, "schedule.get", name="nightly")
    assert (await until_finished(engine, view["last_run"]))["result"] == "passed"
    assert {order.parameters["password"] for order in agent.seen} == {"sw0rdfish", "l1teral"}
    stored = control_database.psql("SELECT * FROM control.runs JOIN control.steps s ON true")
    assert "sw0rdfish" not in stored and "l1teral" not in stored


async def test_a_scheduled_run_has_the_secrets_of_its_group(
    engine: Engine, agent: FakeAgent, control_database: Database, clock: Clock, tmp_path: Path
) -> None:
    engine.services.scopes._secrets_dir = tmp_path
    (tmp_path / "lab-b").mkdir()
    (tmp_path / "lab-b/KEY").write_text("of-lab-b")
    (tmp_path / "TOP").write_text("of-all")
    control_database.psql("INSERT INTO control.groups (name) VALUES ('lab-b')")
    control_database.psql("INSERT INTO control.group_agents SELECT 'lab-b', id FROM control.agents")
    plan = {**PLAN, "secrets": {"KEY": "KEY"}, "steps": {"a": {**STEP, "env": {"KEY": "${{ secrets.KEY }}"}}}}
    for actor, wrong in ((OF_LAB_B, {**plan, "secrets": {"KEY": "TOP"}}), (ADMIN, plan)):
        with pytest.raises(ProctorError, match="there is no secret"):
            await call(engine, "schedule.put", actor, name="nightly", cron="@daily", plan=wrong)
    await call(engine, "schedule.put", OF_LAB_B, name="nightly", cron="@daily", plan=plan)
    due_at(control_database, this_minute())
    await clock.turn(await hold(engine.database))
    await eventually(lambda: len(agent.started) == 1, 10, "the order")
    assert agent.started[0].env == {"KEY": "of-lab-b"}
