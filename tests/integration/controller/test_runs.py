"""Test cases from their submission to their end."""

from proctor_common.states import StepResult
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, step_of, submit, until_finished, until_step


async def test_a_test_case_runs_to_its_end(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    run = await submit(engine, host="h1", parameters={"command": "echo", "args": "a 'b c'"})
    assert run["state"] == "running"
    assert run["steps"] == {"dispatched": 1}

    done = await until_finished(engine, run["id"])

    assert (done["result"], done["steps"], done["number"]) == ("passed", {"passed": 1}, run["number"])
    (order,) = agent.seen
    assert order.parameters == {"command": "echo", "args": ["a", "b c"]}
    step = await step_of(engine, run["id"])
    assert (step["state"], step["result"], step["exit_code"], step["host"]) == ("finished", "passed", 0, "h1")
    assert (step["log_lines"], step["log_bytes"]) == (1, 3)


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
