"""What must not break a run: crashes, lost answers, lost agents, forged and late reports, two controllers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus
from proctor_common.ids import new_id
from proctor_common.messages.events import AttemptRef, Heartbeat
from proctor_common.messages.orders import StartAnswer, StartOrder, StartReply
from proctor_common.states import StepResult
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Policy
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.orders import to_end
from proctor_controller.engine.reports import Reports
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.watchdog import Watchdog
from support.engine import (
    FakeAgent,
    bus_to,
    call,
    make_runs_engine,
    make_watchdog,
    step_of,
    submit,
    until_finished,
    until_step,
)
from support.nats import NatsAccount
from support.postgres import Database
from support.wait import eventually

QUICK = EngineSettings(
    policy=Policy(
        resend_s=0.1,
        cancel_confirm_s=1.0,
        lost_grace_s=0.5,
        requery_s=0.2,
        timeout_margin_s=0.1,
        ready_due_s=0.2,
    ),
    order_timeout=0.2,
    order_sends=1,
    default_grace=0.1,
)


@asynccontextmanager
async def watched(engine: Engine) -> AsyncIterator[Watchdog]:
    """The watchdog, looking ten times a second."""
    watchdog = make_watchdog(engine)

    async def look() -> None:
        while True:
            await watchdog.tick()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(look())
    try:
        yield watchdog
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def quick(engine: Engine) -> AsyncIterator[Engine]:
    """A second controller with short times, and its watchdog."""
    made = make_runs_engine(engine.database, engine.services.bus, QUICK)
    async with watched(made):
        yield made
    await made.close()


async def heartbeat(engine: Engine, agent: FakeAgent, **fields: Any) -> tuple[list[AttemptRef], ...]:
    beat = Heartbeat(boot_id="b", instance="i1", slots=2, time=datetime.now(UTC), **fields)
    return await engine.agent_status.reconcile(agent.id, beat)


# -- crashes ------------------------------------------------------------------------------------------------------


async def test_a_crash_between_commit_and_perform_is_healed(engine: Engine, quick: Engine, agent: FakeAgent) -> None:
    dead = make_runs_engine(engine.database, engine.services.bus, QUICK, perform=False)
    agent.ends = StepResult.PASSED
    run = await submit(dead, host="h1")
    assert run["steps"] == {"dispatched": 1}
    done = await until_finished(quick, run["id"])
    assert done["result"] == "passed"
    assert len(agent.started) == 1


async def test_a_crash_before_a_waiting_step_is_served_is_healed(
    engine: Engine, quick: Engine, agent: FakeAgent
) -> None:
    first = [await submit(engine, host="h1") for _ in range(2)]
    waiting = await submit(engine, host="h1")
    dead = make_runs_engine(engine.database, engine.services.bus, perform=False)
    for run in first:
        await until_step(engine, run["id"], "running")
        order = next(order for order in agent.started if order.run == run["id"])
        end = agent.report(order)
        agent.ended[order.step, order.attempt] = end
        await dead.feed(events.StepEnded(order.run, order.step, 1, order.token, agent.id, to_end(end)))
    await until_step(quick, waiting["id"], "running")


async def test_two_controllers_share_the_work(
    rows: AsyncEngine, bus: Bus, engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    other = make_runs_engine(rows, bus)
    take = Reports(other.database, other.feed).take
    hearing = asyncio.create_task(bus.consume(subjects.EVENT_STREAM, subjects.EVENT_DURABLE, take, retry_delay=0.05))
    agent.ends = StepResult.PASSED
    async with watched(engine), watched(other):
        made = await asyncio.gather(*(submit((engine, other)[n % 2], host="h1") for n in range(30)))
        for run in made:
            assert (await until_finished(engine, run["id"], 20))["result"] == "passed"
    hearing.cancel()
    await asyncio.wait({hearing})
    await other.close()
    assert len(agent.started) == 30
    assert {order.attempt for order in agent.started} == {1}
    assert control_database.psql("SELECT count(*) FROM control.leases WHERE step_id IS NOT NULL") == "0"
    holes = """SELECT count(*) FROM control.runs r
               WHERE event_seq <> (SELECT count(*) FROM control.run_events e WHERE e.run_id = r.id)"""
    assert control_database.psql(holes) == "0"


async def test_decisions_of_two_controllers_about_one_run_do_not_mix(
    engine: Engine, rows: AsyncEngine, bus: Bus, agent: FakeAgent
) -> None:
    other = make_runs_engine(rows, bus)
    run = await submit(engine, host="h1")
    step = await until_step(engine, run["id"], "running")
    order = agent.started[0]
    end = events.StepEnded(run["id"], step["id"], 1, order.token, agent.id, to_end(agent.report(order)))
    cancel = events.CancelAsked(run["id"], "somebody")
    await asyncio.gather(*(each.feed(event) for each in (engine, other) for event in (end, cancel, end)))
    await until_finished(engine, run["id"])
    stored = (await call(engine, "run.events", run=run["id"]))["items"]
    assert [event["seq"] for event in stored] == list(range(1, len(stored) + 1))
    assert [event["to"] for event in stored if event["kind"] == "step"].count("finished") == 1
    await other.close()


# -- orders -------------------------------------------------------------------------------------------------------


async def test_an_unanswered_order_is_repeated_with_the_same_token(quick: Engine, agent: FakeAgent) -> None:
    answers: list[StartReply | None] = [None, None]
    agent.answer = lambda order: answers.pop() if answers else StartReply(answer=StartAnswer.ACCEPTED)
    run = await submit(quick, host="h1")
    await until_step(quick, run["id"], "running")
    assert len(agent.seen) >= 2
    assert len({(order.step, order.attempt, order.token) for order in agent.seen}) == 1
    assert len(agent.started) == 1


async def test_a_busy_agent_gets_it_again_later(quick: Engine, agent: FakeAgent) -> None:
    busy = [StartReply(answer=StartAnswer.BUSY, reason="no room in the journal")]
    agent.answer = lambda order: busy.pop() if busy else StartReply(answer=StartAnswer.ACCEPTED)
    run = await submit(quick, host="h1")
    await until_step(quick, run["id"], "running")
    assert {order.attempt for order in agent.seen} == {1}
    tokens = list(dict.fromkeys(order.token for order in agent.seen))  # the second may be asked for once more
    assert [agent.seen[0].token, agent.seen[-1].token] == tokens


async def test_an_order_nobody_listens_to_goes_to_another_agent(
    engine: Engine, bus: Bus, control_database: Database
) -> None:
    deaf = await FakeAgent(bus, control_database, host="a-deaf").join(groups=("lab",))
    await deaf.deafen()
    hearing = await FakeAgent(bus, control_database, host="b-hearing").join(groups=("lab",))
    run = await submit(engine, group="lab")
    await eventually(watching(make_watchdog(engine), lambda: hearing.started), what="the second agent to get it")
    await until_step(engine, run["id"], "running")
    stored = (await call(engine, "run.events", run=run["id"]))["items"]
    hosts = [event["host"] for event in stored if event["to"] == "dispatched"]
    assert hosts == ["a-deaf", "b-hearing"]


async def test_an_agent_that_hears_nothing_is_not_asked_in_a_tight_loop(engine: Engine, agent: FakeAgent) -> None:
    await agent.deafen()
    run = await submit(engine, host="h1")
    step = await until_step(engine, run["id"], "waiting")
    assert step["waiting_for"] == "the agent of host h1 does not answer"
    watchdog = make_watchdog(engine)

    looks = 0

    async def asked_three_times() -> bool:
        nonlocal looks
        looks += 1
        await watchdog.tick()
        await engine.tasks.drain(5)
        stored = (await call(engine, "run.events", run=run["id"]))["items"]
        asked = [event["to"] for event in stored].count("dispatched")
        assert asked <= 1 + looks
        return asked >= 3

    await eventually(asked_three_times, what="two more orders, one for each look at most", retry_on=())
    await until_step(engine, run["id"], "waiting")
    await agent.listen()
    await watchdog.tick()
    await until_step(engine, run["id"], "running")


def watching(watchdog: Watchdog, condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    """A condition that is asked after each look of the watchdog."""

    async def look() -> object:
        await watchdog.tick()
        return condition()

    return look


async def test_a_refused_order_ends_the_step_with_the_reason(quick: Engine, agent: FakeAgent) -> None:
    agent.answer = lambda order: StartReply(answer=StartAnswer.REFUSED, reason="no such target: x")
    run = await submit(quick, host="h1")
    done = await until_finished(quick, run["id"])
    step = await step_of(quick, run["id"])
    assert (done["result"], step["result"], step["reason"]) == ("error", "error", "no such target: x")
    (attempt,) = (await call(quick, "run.log_index", run=run["id"]))["attempts"]
    assert (attempt["state"], attempt["chunks"]) == ("finished", 0)


async def test_expired_orders_come_to_an_end(quick: Engine, agent: FakeAgent) -> None:
    agent.answer = lambda order: StartReply(answer=StartAnswer.EXPIRED)
    run = await submit(quick, host="h1")
    await until_finished(quick, run["id"])
    step = await step_of(quick, run["id"])
    assert step["result"] == "error"
    assert "no agent would start it" in step["reason"]
    assert [order.attempt for order in agent.seen] == [1, 2, 3, 4, 5]


async def test_an_end_that_overtakes_the_answer(engine: Engine, agent: FakeAgent) -> None:
    def answer(order: StartOrder) -> StartReply | None:
        agent._later(agent.finish(order))
        return None

    agent.answer = answer
    run = await submit(engine, host="h1")
    assert (await until_finished(engine, run["id"]))["result"] == "passed"
    stored = (await call(engine, "run.events", run=run["id"]))["items"]
    assert ("dispatched", "finished") in [(event["from"], event["to"]) for event in stored]


# -- reports ------------------------------------------------------------------------------------------------------


async def test_a_doubled_report_changes_nothing(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    finished = await agent.finish(agent.started[0])
    await until_finished(engine, run["id"])
    before = (await call(engine, "run.events", run=run["id"]))["items"]
    await agent.publish(finished)
    await agent.publish(finished.model_copy(update={"result": StepResult.FAILED}))
    await until_consumed(engine)
    assert (await call(engine, "run.events", run=run["id"]))["items"] == before


async def until_consumed(engine: Engine) -> None:
    async def empty() -> bool:
        return (await engine.services.bus.stream_state(subjects.EVENT_STREAM)).messages == 0

    await eventually(empty, what="the event stream to be empty")


async def test_forged_and_unreadable_reports_change_nothing_and_are_counted(
    rows: AsyncEngine, bus: Bus, control_database: Database
) -> None:
    engine = make_runs_engine(rows, bus)
    forgers: list[str] = []

    async def on_forged(agent: str) -> None:
        forgers.append(agent)

    reports = Reports(engine.database, engine.feed, on_forged)
    hearing = asyncio.create_task(bus.consume(subjects.EVENT_STREAM, subjects.EVENT_DURABLE, reports.take))
    honest = await FakeAgent(bus, control_database, host="h1").join()
    forger = await FakeAgent(bus, control_database, host="h2").join()
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    order = honest.started[0]

    await forger.publish(forger.report(order))
    await forger.publish(forger.report(order.model_copy(update={"step": new_id()})))
    await bus.append(subjects.event(forger.id, order.step, 1), b"no json")
    await bus.append(subjects.event(forger.id, order.step, 2), forger.report(order).encode())
    await bus.append(f"{subjects.ROOT}.evt.odd", b"{}")
    await until_consumed(engine)

    assert forgers == [forger.id, forger.id]
    assert reports.unreadable == 3
    assert (await step_of(engine, run["id"]))["state"] == "running"
    await honest.finish(order)
    assert (await until_finished(engine, run["id"]))["result"] == "passed"
    hearing.cancel()
    await asyncio.wait({hearing})
    await engine.close()


# -- agents that go and come --------------------------------------------------------------------------------------


def set_agent(database: Database, agent: FakeAgent, state: str) -> None:
    database.psql(f"UPDATE control.agents SET state = '{state}' WHERE id = '{agent.id}'")


async def test_a_lost_agent_that_comes_back_goes_on(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    set_agent(control_database, agent, "lost")
    await engine.agent_status.agents_lost([agent.id])
    assert (await until_step(engine, run["id"], "lost"))["reason"] == "agent_lost"
    set_agent(control_database, agent, "online")
    await engine.agent_status.agents_returned([agent.id])
    await until_step(engine, run["id"], "running")
    await agent.finish(agent.started[0])
    assert (await until_finished(engine, run["id"]))["result"] == "passed"


async def test_an_end_during_the_loss_is_the_true_one(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    set_agent(control_database, agent, "lost")
    await engine.agent_status.agents_lost([agent.id])
    await until_step(engine, run["id"], "lost")
    order = agent.started[0]
    agent.ended[order.step, order.attempt] = agent.report(order, StepResult.FAILED, exit_code=3)
    await engine.agent_status.agents_returned([agent.id])
    await until_finished(engine, run["id"])
    step = await step_of(engine, run["id"])
    assert (step["result"], step["exit_code"]) == ("failed", 3)


async def test_an_agent_that_never_comes_back_ends_the_step_as_lost(
    quick: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(quick, host="h1")
    await until_step(quick, run["id"], "running")
    set_agent(control_database, agent, "lost")
    await agent.deafen()
    done = await until_finished(quick, run["id"])
    step = await step_of(quick, run["id"])
    assert (done["result"], step["result"], step["reason"]) == ("error", "lost", "agent_lost")

    # Nobody knows how long its log was: that is no log of nothing.
    (attempt,) = (await call(quick, "run.log_index", run=run["id"]))["attempts"]
    assert (attempt["state"], attempt["chunks"]) == ("finished", None)

    # Its true end comes late: evidence, so that the agent may forget it, and nothing else.
    finished = await agent.finish(agent.started[0])
    await until_consumed(quick)
    assert (await step_of(quick, run["id"]))["result"] == "lost"
    assert control_database.psql("SELECT evidence ->> 'result' FROM control.attempts") == "passed"
    ref = AttemptRef(step=finished.step, attempt=1, token=finished.token)
    assert await heartbeat(quick, agent, ended=[ref]) == ([ref], [])


async def test_heartbeats_confirm_ends_and_name_what_is_unwanted(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    ref = agent.alive()[0]
    stranger = AttemptRef(step=new_id(), attempt=1, token="x")
    assert await heartbeat(engine, agent, attempts=[ref, stranger], ended=[]) == ([], [stranger])
    assert await heartbeat(engine, agent, attempts=[], ended=[ref]) == ([], [])
    await agent.finish(agent.started[0])
    await until_finished(engine, run["id"])
    assert await heartbeat(engine, agent, attempts=[], ended=[ref, stranger]) == ([ref, stranger], [])
    assert await heartbeat(engine, agent, attempts=[ref], ended=[]) == ([], [ref])


async def test_an_attempt_that_the_agent_has_forgotten_is_lost(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    agent.started.clear()
    await heartbeat(engine, agent, attempts=[], ended=[])
    assert not agent.queries, "an attempt that was just started may be missing from a beat"
    control_database.psql("UPDATE control.attempts SET started_at = now() - interval '1 minute'")
    await heartbeat(engine, agent, attempts=[], ended=[])
    done = await until_finished(engine, run["id"])
    assert (done["result"], (await step_of(engine, run["id"]))["reason"]) == ("error", "agent_forgot")


# -- ends before the time -----------------------------------------------------------------------------------------


async def test_cancel_kills_and_says_that_the_tree_is_gone(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    asked = await call(engine, "run.cancel", run=run["id"])
    assert asked["state"] in {"cancelling", "finished"}
    done = await until_finished(engine, run["id"])
    step = await step_of(engine, run["id"])
    assert (done["result"], step["result"], step["tree_gone"]) == ("cancelled", "cancelled", True)
    assert [order.cause for order in agent.cancels] == ["cancelled"]
    assert (await call(engine, "run.cancel", run=run["id"]))["state"] == "finished"


async def test_cancel_of_a_waiting_step_is_immediate(engine: Engine, agent: FakeAgent) -> None:
    for _ in range(2):
        await submit(engine, host="h1")
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "waiting")
    done = await call(engine, "run.cancel", run=run["id"])
    assert (done["state"], done["result"], done["steps"]) == ("finished", "cancelled", {"cancelled": 1})


async def test_a_kill_that_nobody_confirms_is_unconfirmed(quick: Engine, agent: FakeAgent) -> None:
    agent.silent_cancel = True
    run = await submit(quick, host="h1")
    await until_step(quick, run["id"], "running")
    await call(quick, "run.cancel", run=run["id"])
    done = await until_finished(quick, run["id"], 20)
    step = await step_of(quick, run["id"])
    assert (done["result"], step["result"], step["reason"]) == ("cancelled", "cancelled", "unconfirmed")
    assert step["tree_gone"] is None
    assert len(agent.cancels) > 1, "an order to stop is repeated"
    # The agent still has it: its next heartbeat tells it to let go.
    assert (await heartbeat(quick, agent, attempts=agent.alive(), ended=[]))[1] == agent.alive()


async def test_an_attempt_over_its_time_is_killed_by_the_watchdog(quick: Engine, agent: FakeAgent) -> None:
    run = await submit(quick, host="h1", timeout_s=0.1)
    await until_step(quick, run["id"], "running")
    done = await until_finished(quick, run["id"], 20)
    step = await step_of(quick, run["id"])
    assert (done["result"], step["result"]) == ("failed", "timed_out")
    assert agent.cancels[0].cause == "timed_out"


async def test_a_run_over_its_time_ends(
    engine: Engine, quick: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    control_database.psql("UPDATE control.runs SET deadline = now(), due_at = now()")
    done = await until_finished(quick, run["id"])
    assert (done["result"], done["reason"]) == ("timed_out", "the run's timeout has passed")


async def test_the_engine_survives_a_dead_bus(nats: NatsAccount, rows: AsyncEngine, control_database: Database) -> None:
    """Orders of a controller that has lost its bus are sent again when it is back."""
    async with bus_to(nats, "agent") as agents_bus:
        agent = await FakeAgent(agents_bus, control_database).join()
        cut = bus_to(nats, "cut")
        engine = make_runs_engine(rows, cut, QUICK)
        run = await submit(engine, host="h1")
        await engine.tasks.drain(0.3)
        assert (await step_of(engine, run["id"]))["state"] == "dispatched"
        assert not agent.seen
        async with cut, watched(engine):
            await until_step(engine, run["id"], "running")
        await engine.close()
