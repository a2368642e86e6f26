"""What a plan asks of its steps, on a real database and bus: conditions, verdicts, outputs, orders, gates, records."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.events import MethodError
from proctor_common.states import Role, StepResult
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step import Retry, StepKind
from proctor_controller.domain.runs.step_rules import Gate, Rules
from proctor_controller.domain.runs.submission import NodeSpec
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.settings import EngineSettings
from support.engine import FakeAgent, call, hearing_engine, until_finished
from support.postgres import Database
from support.steps import fan_out, filled, plan, run, step, steps_of, until_there
from support.wait import eventually


async def ends(agent: FakeAgent, engine: Engine, run: str, **outputs: dict[str, Any]) -> Any:
    """End each attempt as it starts, with what `outputs` says of its step; the run when it has ended."""
    done: set[str] = set()

    async def finish_some() -> Any:
        for order in list(agent.alive_orders()):
            if order.token not in done:
                done.add(order.token)
                given = {"result": StepResult.PASSED, **outputs.get(order.step_name, {})}
                await agent.finish(order, **given)
        view = await call(engine, "run.get", run=run)
        assert view["state"] == "finished", view
        return view

    return await eventually(finish_some, 15, f"the end of run {run}")


def args_of(agent: FakeAgent, name: str) -> list[Any]:
    return [order.parameters.get("args") for order in agent.started if order.step_name == name]


async def test_outputs_reach_the_steps_that_name_them(engine: Engine, agent: FakeAgent) -> None:
    rules = {
        "build": Rules(outputs={"artifact": "${{ result.last }}", "code": "${{ result.exit_code }}"}),
        "deploy": Rules(
            parameters={
                "command": "cp",
                "args": ["${{ steps.build.outputs.artifact }}", "n=${{ matrix.n }} ${{ host }}"],
            },
            schema=filled({}).schema,
            refs=("build",),
        ),
    }
    spec = plan(step("build"), *fan_out("deploy", 2), rules=rules, edges="build -> deploy")
    view = await ends(agent, engine, await run(engine, spec), build={"output": {"last": "a b.img"}})

    assert view["result"] == "passed"
    found = await steps_of(engine, spec.id)
    assert found["build"]["outputs"] == {"artifact": "a b.img", "code": 0}
    assert sorted(args_of(agent, "deploy")) == [["a b.img", "n=0 h1"], ["a b.img", "n=1 h1"]]
    assert found["deploy[n=1]"]["parameters"]["args"] == ["a b.img", "n=1 h1"], "what was filled in is shown"


async def test_a_fanned_out_step_gives_lists(engine: Engine, agent: FakeAgent) -> None:
    rules = {
        "each": Rules(outputs={"n": "${{ matrix.n * 10 }}"}),
        "after": Rules(
            parameters={
                "command": "${{ string(steps.each.outputs.n[1]) }}",
                "args": ["${{ steps.each.hosts }}", "${{ steps.each.result[2].verdict }}"],
            },
            schema=filled({}).schema,
            refs=("each",),
        ),
    }
    spec = plan(*fan_out("each", 3), step("after"), rules=rules, edges="each -> after")
    await ends(agent, engine, await run(engine, spec))
    order = next(order for order in agent.started if order.step_name == "after")
    assert order.parameters == {"command": "10", "args": ["h1", "h1", "h1", "passed"]}


async def test_a_false_if_skips_and_satisfies(engine: Engine, agent: FakeAgent) -> None:
    rules = {
        "off": Rules(condition="params.image == 'other'", outputs={"path": "${{ result.path }}"}),
        "after": Rules(
            condition="steps.off.outputs.path == null && steps.off.result.verdict == 'skipped'", refs=("off",)
        ),
        "some": Rules(condition="matrix.n != 1"),
    }
    steps = (step("off"), step("after"), *fan_out("some", 3), step("last"))
    spec = plan(*steps, rules=rules, edges="off -> after, some -> last", parameters={"image": "this"})
    view = await ends(agent, engine, await run(engine, spec))
    assert view["result"] == "passed"
    found = await steps_of(engine, spec.id)
    assert {name: one["result"] for name, one in found.items()} == {
        "off": "skipped", "after": "passed", "last": "passed",
        "some[n=0]": "passed", "some[n=1]": "skipped", "some[n=2]": "passed",
    }  # fmt: skip
    assert found["off"]["outputs"] == {"path": None}


async def test_verdicts_are_the_plans(engine: Engine, agent: FakeAgent) -> None:
    rules = {
        "three": Rules(failed_when="!(result.exit_code in [0, 3])"),
        "fault": Rules(failed_when="result.nothing"),
        "big": Rules(outputs={"big": "${{ result.text }}"}),
        "just_so": Rules(expect={"kind": "qmp", "class": "GenericError", "contains": "medium"}),
        "not_so": Rules(expect={"kind": "qmp"}),
    }
    error = {"kind": "qmp", "message": "no medium", "data": {"class": "GenericError"}}
    ended: dict[str, dict[str, Any]] = {
        "three": {"result": StepResult.FAILED, "exit_code": 3},
        "big": {"output": {"text": "x" * 65600}},
        "just_so": {"result": StepResult.ERROR, "error": error},
    }
    spec = plan(*(step(name) for name in rules), rules=rules)
    view = await ends(agent, engine, await run(engine, spec), **ended)
    assert view["result"] == "error"
    found = await steps_of(engine, spec.id)
    assert {name: one["result"] for name, one in found.items()} == {
        "three": "passed", "fault": "error", "big": "error", "just_so": "passed", "not_so": "failed",
    }  # fmt: skip
    assert "failed_when: result has no member nothing (at 1 of the expression" in found["fault"]["reason"]
    assert "outputs.big: has 65602 bytes as JSON; an output holds at most 65536" in found["big"]["reason"]
    assert 'expected an error kind "qmp", but the method passed' in found["not_so"]["reason"]


def _has_started(agent: FakeAgent, count: int) -> bool:
    return len(agent.started) == count


async def test_until_is_tried_again(engine: Engine, agent: FakeAgent) -> None:
    spec = plan(step("s", retry=Retry(attempts=5, delay_s=0.01)), rules={"s": Rules(until="result.n == 3")})
    await run(engine, spec)
    for number in range(1, 4):
        await eventually(partial(_has_started, agent, number))
        await agent.finish(agent.started[-1], output={"n": number})
    view = await until_finished(engine, spec.id)
    assert (view["result"], len(agent.started)) == ("passed", 3)


@pytest.mark.parametrize(
    ("result", "gone", "idempotent", "again"),
    [
        (StepResult.ERROR, None, False, False),
        (StepResult.ERROR, False, False, False),
        (StepResult.ERROR, True, False, True),
        (StepResult.ERROR, None, True, True),
        (StepResult.TIMED_OUT, None, False, False),
        (StepResult.TIMED_OUT, True, False, True),
    ],
)
async def test_what_may_live_on_is_not_tried_again_beside_it(
    engine: Engine, agent: FakeAgent, result: StepResult, gone: bool | None, idempotent: bool, again: bool
) -> None:
    spec = plan(step("s", retry=Retry(attempts=2), idempotent=idempotent))
    await run(engine, spec)
    await eventually(partial(_has_started, agent, 1))
    error = MethodError(kind="connection_lost", message="gone") if result is StepResult.ERROR else None
    await agent.finish(agent.started[0], result, error=error, reason="gone", tree_gone=gone)
    if again:
        await eventually(partial(_has_started, agent, 2))
        await agent.finish(agent.started[1])
    view = await until_finished(engine, spec.id)
    assert (view["result"], len(agent.started)) == (("passed", 2) if again else (view["result"], 1))
    assert again or view["result"] != "passed"
    said = (await steps_of(engine, spec.id))["s"]["reason"]
    assert ("gone; not tried again: what this attempt left may still run" in said) is not again


async def test_what_cannot_be_filled_in_is_never_sent(engine: Engine, agent: FakeAgent) -> None:
    rules = {
        "fault": filled({"command": "${{ params.list[4] }}"}),
        "type": filled({"command": "x", "name": "${{ params.name }}"}),
    }
    parameters = {"list": [1], "name": "NOT LOWER"}
    spec = plan(step("fault", retry=Retry(attempts=3)), step("type"), rules=rules, parameters=parameters)
    await run(engine, spec)
    await until_finished(engine, spec.id)
    found = await steps_of(engine, spec.id)
    assert (found["fault"]["result"], found["fault"]["attempt"]) == ("error", 1)
    assert "a list has fewer elements (at 1 of the expression params.list[4])" in found["fault"]["reason"]
    assert found["type"]["result"] == "error"
    assert "name" in found["type"]["reason"]
    assert "NOT LOWER" not in found["type"]["reason"]
    assert agent.seen == []


async def test_hidden_values_are_nowhere_in_clear(engine: Engine, agent: FakeAgent, control_database: Database) -> None:
    rules = {
        "s": Rules(
            parameters={"command": "login", "password": "${{ params.token }}"},
            env={"TOKEN": "t=${{ params.token }}", "N": "${{ 1 + 1 }}"},
            schema=filled({}).schema,
        )
    }
    parameters, hidden = {"token": "***", "open": "x"}, {"token": "geheim-7"}
    spec = plan(step("s"), rules=rules, parameters=parameters, hidden=hidden)
    await ends(agent, engine, await run(engine, spec))
    (order,) = agent.started
    assert order.parameters["password"] == "geheim-7"
    assert order.env == {"TOKEN": "t=geheim-7", "N": "2"}
    assert order.secrets == ["geheim-7"]
    assert (await steps_of(engine, spec.id))["s"]["parameters"] == {"command": "login", "password": "***"}
    for table in ("runs", "steps", "nodes", "attempts", "run_events", "records"):
        dump = control_database.psql(f"SELECT t::text FROM control.{table} t")
        assert "geheim-7" not in dump


async def test_secrets_come_from_the_controllers_folder(
    rows: AsyncEngine, bus: Bus, agent: FakeAgent, tmp_path: Path
) -> None:
    (tmp_path / "lab.key").write_text("geheim-8\n")
    rules = {
        "has": Rules(env={"KEY": "k=${{ secrets.K }}"}, secrets={"K": "lab.key"}),
        "not": Rules(env={"KEY": "${{ secrets.K }}"}, secrets={"K": "../lab.key"}),
    }
    spec = plan(step("has"), step("not"), rules=rules)
    async with hearing_engine(rows, bus, EngineSettings(secrets_dir=tmp_path)) as engine:
        await ends(agent, engine, await run(engine, spec))
        found = (await steps_of(engine, spec.id))["not"]
    (order,) = agent.started
    assert (order.env, order.secrets) == ({"KEY": "k=geheim-8"}, ["geheim-8"])
    assert (found["result"], "is not a secret's name" in found["reason"]) == ("error", True)


async def test_at_most_so_many_instances_at_once(engine: Engine, agent: FakeAgent) -> None:
    agent.slots = 16
    nodes = (NodeSpec("s", max_parallel=2),)
    spec = plan(*fan_out("s", 7), step("after"), nodes=nodes, edges="s -> after")
    view = await ends(agent, engine, await run(engine, spec))
    assert view["result"] == "passed"
    assert agent.most_at_once <= 2
    assert len(agent.started) == 8


async def test_the_first_failure_stops_the_others(engine: Engine, agent: FakeAgent) -> None:
    nodes = (NodeSpec("s", fail_fast=True),)
    spec = plan(*fan_out("s", 5), step("other", place=Placement(host="h1")), nodes=nodes)
    await run(engine, spec)
    await eventually(lambda: len(agent.started) == 2)
    await agent.finish(next(order for order in agent.started if order.step_name == "s"), StepResult.FAILED)

    async def stopped() -> bool:
        found = await steps_of(engine, spec.id)
        return all(one["state"] == "finished" for name, one in found.items() if name != "other")

    await eventually(stopped)
    view = await ends(agent, engine, spec.id)
    assert view["result"] == "failed"
    assert view["steps"] == {"failed": 1, "cancelled": 4, "passed": 1}


async def gate_plan(engine: Engine, **gate: Any) -> str:
    rules = {"gate": Rules(gate=Gate(**gate))}
    gate_step = step("gate", kind=StepKind.GATE, plugin="", method="", place=Placement(), parameters={})
    return await run(engine, plan(step("a"), gate_step, step("b"), rules=rules, edges="a -> gate, gate -> b"))


async def test_a_gate_is_approved_once(engine: Engine, agent: FakeAgent, control_database: Database) -> None:
    agent.ends = StepResult.PASSED
    at = await gate_plan(engine, roles=("runner",), timeout_s=60)
    with pytest.raises(ProctorError, match="no such step"):
        await call(engine, "run.approve", run=at, step="nothing")
    waiting = await until_there(engine, at, "gate", "running")
    assert waiting["gate"]["roles"] == ["runner"]
    assert waiting["gate"]["deadline"]
    assert waiting["waiting_for"] == "the approval of runner"
    with pytest.raises(ProctorError) as refused:
        await call(engine, "run.approve", Actor(name="eva", role=Role.VIEWER), run=at, step="gate")
    assert refused.value.code is Code.FORBIDDEN
    with pytest.raises(ProctorError, match="not a gate"):
        await call(engine, "run.approve", run=at, step="a")

    await call(engine, "run.approve", run=at, step="gate")
    await call(engine, "run.approve", run=at, step="gate")
    view = await until_finished(engine, at)
    assert view["result"] == "passed"
    await call(engine, "run.approve", run=at, step="gate")
    with pytest.raises(ProctorError, match="has been decided: passed"):
        await call(engine, "run.reject", run=at, step="gate")
    audit = control_database.psql("SELECT action, actor, detail FROM control.audit").splitlines()
    assert len([line for line in audit if "run.approve" in line]) == 1


async def test_a_refused_gate_fails_the_run(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    at = await gate_plan(engine)
    await until_there(engine, at, "gate", "running")
    await call(engine, "run.reject", run=at, step="gate")
    view = await until_finished(engine, at)
    assert (view["result"], view["steps"]) == ("failed", {"passed": 1, "failed": 1, "upstream_failed": 1})
    assert "refused by root" in view["reason"]


async def test_a_gate_that_waits_is_cancelled(engine: Engine, agent: FakeAgent) -> None:
    agent.ends = StepResult.PASSED
    at = await gate_plan(engine)
    await until_there(engine, at, "gate", "running")
    await call(engine, "run.cancel", run=at)
    assert (await until_finished(engine, at))["result"] == "cancelled"
    for verb in ("run.approve", "run.reject"):
        with pytest.raises(ProctorError, match="the gate gate has ended: cancelled"):
            await call(engine, verb, run=at, step="gate")


async def test_what_is_to_be_recorded_is_kept_once(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    record = {"project": "functest", "case": "c${{ matrix.n }}", "version": "${{ params.v }}", "details": {"x": 1}}
    spec = plan(*fan_out("s", 2), rules={"s": Rules(record=record)}, parameters={"v": "1.2"})
    await ends(agent, engine, await run(engine, spec))
    rows = control_database.psql("SELECT body FROM control.records ORDER BY body ->> 'case'").splitlines()
    bodies = [json.loads(line) for line in rows]
    assert [body["case"] for body in bodies] == ["c0", "c1"]
    assert {key: bodies[0][key] for key in ("project", "pod", "version", "criteria", "details", "declare")} == {
        "project": "functest", "pod": "h1", "version": "1.2", "criteria": "PASS", "details": {"x": 1}, "declare": False,
    }  # fmt: skip
    assert bodies[0]["start_date"] <= bodies[0]["stop_date"]


async def test_failed_edges_are_followed(engine: Engine, agent: FakeAgent) -> None:
    edges = "a -> b, a -> c: failed, a -> d: completed, b -> e"
    spec = plan(*(step(name) for name in "abcde"), edges=edges)
    view = await ends(agent, engine, await run(engine, spec), a={"result": StepResult.FAILED})
    assert view["result"] == "failed"
    found = {name: one["result"] for name, one in (await steps_of(engine, spec.id)).items()}
    assert found == {"a": "failed", "b": "upstream_failed", "c": "passed", "d": "passed", "e": "upstream_failed"}


async def test_every_step_that_waits_says_what_for(engine: Engine, agent: FakeAgent) -> None:
    nodes = (NodeSpec("many", max_parallel=1),)
    steps = (*fan_out("many", 3), step("a"), step("b"), step("c", place=Placement(host="nowhere")))
    spec = plan(*steps, nodes=nodes, edges="many -> b, a -> b")
    await run(engine, spec)
    await until_there(engine, spec.id, "many[n=0]", "running")
    await until_there(engine, spec.id, "c", "waiting")
    found = {name: one["waiting_for"] for name, one in (await steps_of(engine, spec.id)).items()}
    assert found["many[n=2]"] == "another instance to end: max_parallel is 1"
    assert found["b"] == "the end of a, many"
    assert "there is none" in found["c"]
    assert found["many[n=0]"] is None
