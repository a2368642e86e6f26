"""Test cases from their submission to their end."""

import json
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.views import RunChanged
from proctor_common.states import StepResult
from proctor_controller.db.runs import views
from proctor_controller.db.runs.attempts import load_call
from proctor_controller.db.session import session
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.orders import open_order
from support.engine import FakeAgent, call, make_runs_engine, step_of, submit, until_finished, until_step
from support.postgres import Database
from support.steps import plan, step
from support.steps import run as begin
from support.wait import eventually


async def test_a_test_case_runs_to_its_end(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    run = await submit(engine, host="h1", parameters={"command": "echo", "args": "a 'b c'"})
    assert run["state"] == "running"
    assert run["steps"] == {"dispatched": 1}

    done = await until_finished(engine, run["id"])

    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["parameters"] == {"command": "echo", "args": ["a", "b c"]}
    assert (done["result"], done["steps"], done["number"]) == ("passed", {"passed": 1}, run["number"])
    (order,) = agent.seen
    assert order.parameters == {"command": "echo", "args": ["a", "b c"]}
    step = await step_of(engine, run["id"])
    assert (step["state"], step["result"], step["exit_code"], step["host"]) == ("finished", "passed", 0, "h1")
    assert (step["log_lines"], step["log_bytes"]) == (1, 3)


async def test_the_answer_to_a_submission_is_the_view_of_the_run(rows: AsyncEngine, bus: Bus, agent: FakeAgent) -> None:
    engine = make_runs_engine(rows, bus, perform=False)
    call_of = {"uses": "shell.run", "runs_on": {"host": "h1"}, "with": {"command": "true"}}
    document = {
        "testplan_version": "2026-12-01",
        "name": "p",
        "steps": {"a": call_of, "b": {**call_of, "depends_on": ["a"]}},
        "always": [call_of],
    }
    concurrency = {"group": "one", "max": 1}
    answers = [await submit(engine, host="h1") for _ in range(agent.slots + 1)]
    for plan_given in (document, {**document, "concurrency": concurrency}, {**document, "concurrency": concurrency}):
        answers.append(await call(engine, "run.submit", run=new_id(), plan=json.dumps(plan_given)))
    assert {answer["state"] for answer in answers} == {"running", "queued"}
    for answer in answers:
        assert answer == await call(engine, "run.get", run=answer["id"])
    first = answers[0]["id"]
    async with session(rows) as db:
        await db.execute("UPDATE control.runs SET state = 'finished', result = 'failed' WHERE id = $1", first)
    again = await call(engine, "run.rerun", run=first, new_run=new_id())
    assert again["rerun_of"] == first
    assert again == await call(engine, "run.get", run=again["id"])


async def test_every_transition_is_an_event_without_holes(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    step = await until_step(engine, run["id"], "running")
    await agent.finish(agent.started[0])
    await until_finished(engine, run["id"])

    events = (await call(engine, "run.events", run=run["id"]))["items"]

    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    of_run = [(event["from"], event["to"]) for event in events if event["kind"] == "run"]
    of_step = [(event["from"], event["to"]) for event in events if event["kind"] == "step"]
    assert of_run == [
        (None, "queued"),
        ("queued", "allocating"),
        ("allocating", "running"),
        ("running", "finalizing"),
        ("finalizing", "finished"),
    ]
    assert of_step == [
        ("pending", "ready"),
        ("ready", "dispatched"),
        ("dispatched", "running"),
        ("running", "finished"),
    ]
    assert {event["step_id"] for event in events if event["kind"] == "step"} == {step["id"]}


async def test_a_step_took_as_long_as_it_ran_however_late_it_is_written_down(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    step = await until_step(engine, run["id"], "running")
    events = (await call(engine, "run.events", run=run["id"]))["items"]
    (noted,) = [event["at"] for event in events if (event["kind"], event["to"]) == ("step", "running")]
    late = datetime.fromisoformat(noted) - datetime.fromisoformat(step["started_at"])
    assert late.total_seconds() >= engine.services.settings.short_step > 0


async def test_full_slots_make_the_next_ones_wait_in_line(engine: Engine, agent: FakeAgent) -> None:
    runs = [(await submit(engine, host="h1"))["id"] for _ in range(5)]
    for run in runs[:2]:
        await until_step(engine, run, "running")
    for run in runs[2:]:
        step = await step_of(engine, run)
        assert step["state"] == "waiting"
        assert "free slot on host h1" in step["waiting_for"]

    while len(agent.ended) < 5:
        await agent.finish(agent.alive_orders()[0])
        await eventually(lambda: agent.alive_orders() or len(agent.ended) == 5, what="the next start")
    for run in runs:
        await until_finished(engine, run)

    assert [order.run for order in agent.started] == runs, "first come, first served"
    assert agent.most_at_once == 2


async def test_a_new_step_does_not_overtake_those_that_wait(engine: Engine, agent: FakeAgent) -> None:
    runs = [(await submit(engine, host="h1"))["id"] for _ in range(4)]
    await agent.finish(agent.alive_orders()[0])
    late = (await submit(engine, host="h1"))["id"]
    while len(agent.ended) < 5:
        await eventually(lambda: agent.alive_orders() or len(agent.ended) == 5, what="the next start")
        await agent.finish(agent.alive_orders()[0])
    await until_finished(engine, late)
    assert [order.run for order in agent.started] == [*runs, late]


async def test_the_same_submission_twice_is_one_run(engine: Engine, agent: FakeAgent) -> None:
    same = new_id()
    first, second = await submit(engine, host="h1", run=same), await submit(engine, host="h1", run=same)
    assert first["id"] == second["id"] == same
    assert first["number"] == second["number"]
    assert len((await call(engine, "run.list"))["items"]) == 1
    await until_step(engine, same, "running")
    assert len(agent.seen) == 1


async def test_hidden_parameters_are_sealed_masked_and_listed(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    run = await submit(engine, host="h1", parameters={"command": "login", "password": "geheim-1"})
    step = await until_step(engine, run["id"], "running")

    (order,) = agent.seen
    assert order.parameters["password"] == "geheim-1"
    assert order.secrets == ["geheim-1"]
    assert step["parameters"]["password"] == "***"
    dump = control_database.psql("SELECT s, r FROM control.steps s JOIN control.runs r ON r.id = s.run_id")
    assert "login" in dump
    assert "geheim-1" not in dump

    # The order of a step whose first one was lost is put together from the database.
    async with session(engine.database) as db:
        found = await load_call(db, order.step)
    assert found is not None
    again = open_order(*found, engine.services.seal)
    assert (again.parameters, again.secrets) == (order.parameters, order.secrets)


async def test_numbers_and_lists(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.FAILED
    runs = [await submit(engine, host="h1", name=f"run {n}") for n in range(3)]
    for run in runs:
        await until_finished(engine, run["id"])
    by_number = await call(engine, "run.get", run=str(runs[1]["number"]))
    assert by_number["id"] == runs[1]["id"]
    page = await call(engine, "run.list", limit=2, result="failed")
    assert [run["name"] for run in page["items"]] == ["run 2", "run 1"]
    rest = await call(engine, "run.list", limit=2, result="failed", cursor=page["next"])
    assert [run["name"] for run in rest["items"]] == ["run 0"]
    assert rest["next"] is None
    assert (await call(engine, "run.list", result="passed"))["items"] == []
    assert len((await call(engine, "run.list", host="h1"))["items"]) == 3


async def test_events_of_all_runs_by_one_cursor(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    runs = [await submit(engine, host="h1") for _ in range(3)]
    for run in runs:
        await until_finished(engine, run["id"])
    seen: list[tuple[str, int]] = []
    after, following = 0, "0"
    while following is not None:
        page = await call(engine, "run.events", after=after, limit=5)
        seen += [(event["run"], event["seq"]) for event in page["items"]]
        following = page["next"]
        after = int(following or 0)
    for run in runs:
        own = [seq for of, seq in seen if of == run["id"]]
        assert own == list(range(1, len((await call(engine, "run.events", run=run["id"]))["items"]) + 1))
    assert len(seen) == len(set(seen))


async def test_wakes_carry_the_events(engine: Engine, agent: FakeAgent, bus: Bus) -> None:
    heard: list[RunChanged] = []
    await bus.subscribe(subjects.ALL_WAKES, lambda message: heard.append(decode(RunChanged, message.data)))
    agent.ends = StepResult.PASSED
    run = await submit(engine, host="h1")
    await until_finished(engine, run["id"])
    stored = (await call(engine, "run.events", run=run["id"]))["items"]

    def all_there() -> bool:
        events = sorted((event for wake in heard for event in wake.events), key=lambda event: event.seq)
        assert [json.loads(event.encode()) for event in events] == stored
        return True

    await eventually(all_there)


async def test_log_index_names_each_attempt(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    step = await until_step(engine, run["id"], "running")
    index = await call(engine, "run.log_index", run=run["id"])
    assert index["attempts"] == [
        {
            "index": 1, "step_id": step["id"], "step": "run", "attempt": 1, "agent": agent.id, "state": "running",
            "result": None, "chunks": None, "lines": None, "bytes": None,
        }
    ]  # fmt: skip
    await agent.finish(agent.started[0], chunks=7, lines=70, bytes=700)
    await until_finished(engine, run["id"])
    index = await call(engine, "run.log_index", run=run["id"])
    assert (index["state"], index["attempts"][0]["chunks"]) == ("finished", 7)


async def test_output_of_any_text_is_kept(engine: Engine, agent: FakeAgent) -> None:
    run = await submit(engine, host="h1")
    await until_step(engine, run["id"], "running")
    output = {"stdout": "nul \0 emoji 😀 bidi \u202e", "n": 2**70}
    await agent.finish(agent.started[0], StepResult.FAILED, output=output, reason="nul \0 here")
    done = await until_finished(engine, run["id"])
    step = await step_of(engine, run["id"])
    assert done["result"] == "failed"
    assert step["output"] == output
    assert step["reason"] == "nul \ufffd here"


async def test_labels_choose_the_agent(engine: Engine, bus: Bus, control_database: Database) -> None:
    await FakeAgent(bus, control_database, host="plain").join(labels={"os": "alpine"})
    wanted = await FakeAgent(bus, control_database, host="wanted").join(labels={"os": "debian", "disk": "ssd"})
    run = await submit(engine, labels={"os": "debian"})
    assert (await until_step(engine, run["id"], "running"))["host"] == "wanted"
    assert len(wanted.started) == 1


async def test_the_log_index_comes_in_pages(engine: Engine, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_INDEXED", 2)
    agent.ends = StepResult.PASSED
    spec = plan(*(step(f"s{number}") for number in range(5)))
    await begin(engine, spec)
    await until_finished(engine, spec.id)
    pages, after = [], 0
    while True:
        page = await call(engine, "run.log_index", run=spec.id, after=after)
        pages.append([attempt["index"] for attempt in page["attempts"]])
        if page["next"] is None:
            break
        after = page["next"]
    assert pages == [[1, 2], [3, 4], [5]]
