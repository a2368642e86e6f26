"""What is refused, with the documented error, and leaves nothing behind; who sees what."""

from typing import Any

import pytest

from proctor_common.bus import Bus
from proctor_common.errors import ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role, StepResult
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, submit, until_finished, until_step
from support.postgres import Database

LAB_A = Actor(name="a", role=Role.RUNNER, groups=["lab-a"])
LAB_B = Actor(name="b", role=Role.RUNNER, groups=["lab-b"])
BOTH = Actor(name="ab", role=Role.RUNNER, groups=["lab-a", "lab-b"])


async def refused_only(engine: Engine, actor: Actor | None = None, **body: Any) -> ProctorError:
    with pytest.raises(ProctorError) as caught:
        await submit(engine, *([actor] if actor else []), **body)
    return caught.value


async def refused(engine: Engine, actor: Actor | None = None, **body: Any) -> ProctorError:
    fault = await refused_only(engine, actor, **body)
    assert engine_is_empty(await call(engine, "run.list"))
    return fault


def engine_is_empty(listing: Any) -> bool:
    return listing == {"items": [], "next": None}


MISSING: list[tuple[dict[str, Any], str, str]] = [
    ({"host": "nobody"}, "host", "nobody"),
    ({"host": "../../etc"}, "host", "../../etc"),
    ({"host": "h1", "plugin": "nix"}, "plugin", "nix"),
    ({"host": "h1", "method": "nix"}, "method", "shell.nix"),
    ({"host": "h1", "target": "nix"}, "target", "nix"),
    ({"group": "nix"}, "group", "nix"),
    ({"host": "h1", "group": "nix"}, "group", "nix"),
    ({"labels": {"os": "nix"}}, "agent", "an agent with labels os=nix"),
]


async def test_what_is_not_there_is_named(engine: Engine, agent: FakeAgent) -> None:
    for body, what, name in MISSING:
        error = await refused(engine, **body)
        assert (error.status, error.details["what"], error.details["name"]) == (404, what, name)


BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"host": "h1", "labels": {"os": "debian"}}, "host"),
    ({}, "host"),
    ({"host": "h1", "parameters": {}}, "parameters"),
    ({"host": "h1", "parameters": {"command": 1}}, "parameters.command"),
    ({"host": "h1", "parameters": {"command": "x", "args": "'"}}, "parameters.args"),
    ({"host": "h1", "parameters": {"command": "x", "name": "UPPER"}}, "parameters.name"),
    ({"host": "h1", "timeout_s": -1}, "timeout"),
    ({"host": "h1", "timeout_s": float("nan")}, "timeout"),
    ({"host": "h1", "run": "no id"}, "run"),
    ({"host": "h1", "name": "x" * 300}, "name"),
]


async def test_bad_bodies_name_the_path(engine: Engine, agent: FakeAgent) -> None:
    for body, path in BAD_BODIES:
        error = await refused(engine, **body)
        assert error.status == 422
        assert [fault["path"] for fault in error.details["errors"]] == [path]


@pytest.mark.parametrize(
    ("change", "reason"),
    [("state = 'lost'", "its heartbeats stopped"), ("draining = true", "it is drained"),
     ("state = 'enrolled', instance = NULL, plugins = '{}'", "it has not connected yet")],
)  # fmt: skip
async def test_an_agent_that_is_away_refuses_its_test_cases(
    engine: Engine, agent: FakeAgent, control_database: Database, change: str, reason: str
) -> None:
    control_database.psql(f"UPDATE control.agents SET {change}")
    error = await refused(engine, host="h1")
    assert (error.status, error.code, error.details["reason"]) == (409, "agent_unavailable", reason)


async def test_a_host_that_was_fit_a_moment_ago_is_asked_again(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    for _ in range(2):
        await submit(engine, host="h1")
    assert (await submit(engine, host="h1"))["steps"] == {"waiting": 1}
    control_database.psql("UPDATE control.agents SET draining = true")
    with pytest.raises(ProctorError) as caught:
        await submit(engine, host="h1")
    assert caught.value.status == 409


async def test_a_plan_waits_for_an_agent_that_is_away(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    control_database.psql("UPDATE control.agents SET draining = true")
    run = await call(engine, "run.submit", run=new_id(), plan=plan(("one", "host: h1", [])))
    step = await until_step(engine, run["id"], "waiting")
    assert step["waiting_for"] == "host h1: it is drained"
    control_database.psql("UPDATE control.agents SET draining = false")
    await engine.queue.serve(agent.id)  # unless the engine's own look at the queue, after the submission, came first
    await until_step(engine, run["id"], "running")


def plan(*steps: tuple[str, str, list[str]]) -> str:
    lines = ['testplan_version: "2026-12-01"', "name: p", "steps:"]
    for name, place, after in steps:
        lines.append(f"  {name}: {{uses: shell.run, runs_on: {{{place}}}, with: {{command: x}}, depends_on: {after}}}")
    return "\n".join(lines)


async def test_a_plan_of_several_steps_in_order(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    text = plan(
        ("a", "host: h1", []), ("b", "host: h1", ["a"]), ("c", "host: h1", ["a"]), ("d", "host: h1", ["b", "c"])
    )
    run = await call(engine, "run.submit", run=new_id(), plan=text)
    done = await until_finished(engine, run["id"])
    assert (done["result"], done["steps"], done["plan"], done["kind"]) == ("passed", {"passed": 4}, "p", "plan")
    names = [order.step_name for order in agent.started]
    assert (names[0], set(names[1:3]), names[3]) == ("a", {"b", "c"}, "d")
    index = await call(engine, "run.log_index", run=run["id"])
    assert [attempt["index"] for attempt in index["attempts"]] == [1, 2, 3, 4]


async def test_what_follows_a_failure_is_not_run(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.FAILED
    run = await call(
        engine,
        "run.submit",
        run=new_id(),
        plan=plan(("a", "host: h1", []), ("b", "host: h1", ["a"]), ("c", "host: h1", ["b"])),
    )
    done = await until_finished(engine, run["id"])
    assert (done["result"], done["steps"]) == ("failed", {"failed": 1, "upstream_failed": 2})
    assert len(agent.started) == 1


async def test_a_wrong_plan_names_every_fault_with_its_line(engine: Engine, agent: FakeAgent) -> None:
    text = plan(("a", "host: nobody", []), ("b", "host: h1", [])).replace(
        "with: {command: x}", "with: {command: [5], z: 1}"
    )
    with pytest.raises(ProctorError) as caught:
        await call(engine, "run.submit", run=new_id(), plan=text)
    found = [(fault["line"], fault["path"]) for fault in caught.value.details["errors"]]
    assert found == [
        (4, "steps.a.runs_on"),
        (4, "steps.a.with.command"),
        (4, "steps.a.with.z"),
        (5, "steps.b.with.command"),
        (5, "steps.b.with.z"),
    ]
    assert engine_is_empty(await call(engine, "run.list"))


async def test_a_stored_plan_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(ProctorError) as caught:
        await call(engine, "run.submit", run=new_id(), plan="smoke@3")
    assert (caught.value.status, caught.value.details["what"]) == (404, "plan")


async def test_groups_keep_apart(engine: Engine, bus: Bus, control_database: Database) -> None:
    at_a = await FakeAgent(bus, control_database, host="ha").join(groups=("lab-a",))
    at_b = await FakeAgent(bus, control_database, host="hb").join(groups=("lab-b",))
    at_a.ends = at_b.ends = StepResult.PASSED

    error = await refused(engine, LAB_A, host="hb")
    assert (error.status, error.details) == (404, {"what": "host", "name": "hb"})
    assert (await refused(engine, LAB_A, group="lab-b")).status == 404

    nobodys = await submit(engine, host="ha")
    mine = await submit(engine, LAB_A, host="ha")
    assert mine["group"] == "lab-a"
    unnamed = await refused_only(engine, BOTH, host="ha")
    assert (unnamed.status, unnamed.message) == (422, "name one of your groups: lab-a, lab-b")
    assert (await submit(engine, BOTH, host="ha", group="lab-a"))["group"] == "lab-a"
    assert (await refused_only(engine, BOTH, host="ha", group="lab-b")).details == {"what": "host", "name": "ha"}
    theirs = await submit(engine, LAB_B, group="lab-b")
    both = await submit(engine, BOTH, host="hb", group="lab-b")
    assert (nobodys["group"], both["group"]) == (None, "lab-b")
    for run in (mine, theirs, nobodys, both):
        await until_finished(engine, run["id"])

    of_a = {run["id"] for run in (await call(engine, "run.list", LAB_A))["items"]}
    of_both = {run["id"] for run in (await call(engine, "run.list", BOTH))["items"]}
    assert mine["id"] in of_a
    assert of_both == of_a | {theirs["id"], both["id"]}
    assert len((await call(engine, "run.list"))["items"]) == len(of_both) + 1 == 5
    for op in ("run.get", "run.cancel", "run.steps", "run.events", "run.log_index"):
        for hidden in (theirs["id"], str(theirs["number"]), nobodys["id"]):
            with pytest.raises(ProctorError) as caught:
                await call(engine, op, LAB_A, run=hidden)
            assert caught.value.status == 404
    seen = {event["run"] for event in (await call(engine, "run.events", LAB_A))["items"]}
    assert seen == of_a


async def test_runs_that_are_not_there(engine: Engine) -> None:
    for run in ("x", "0", "-1", "99999999999999999999", "٣", new_id(), "1e3"):
        for op in ("run.get", "run.cancel", "run.steps", "run.events", "run.log_index"):
            with pytest.raises(ProctorError) as caught:
                await call(engine, op, run=run)
            assert (caught.value.status, caught.value.details["what"]) == (404, "run")


BAD_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("run.list", {"cursor": "x"}),
    ("run.list", {"state": "nix"}),
    ("run.list", {"since": "yesterday"}),
    ("run.list", {"plan": "a\0b"}),
    ("run.events", {"after": -1}),
    ("run.events", {"after": 2**70}),
]


async def test_bad_questions(engine: Engine) -> None:
    for op, body in BAD_QUESTIONS:
        with pytest.raises(ProctorError) as caught:
            await call(engine, op, **body)
        assert caught.value.status == 422
