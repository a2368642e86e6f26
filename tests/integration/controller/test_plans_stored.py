"""Stored plans: versions, groups, and runs of them."""

import pytest

from proctor_common.errors import Code, ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role, StepResult
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, until_finished
from support.postgres import Database

PLAN = """testplan_version: "2026-12-01"
name: hello
steps:
  hello:
    uses: shell.run
    runs_on: {host: h1}
    with: {command: "true"}
"""
BOUND = Actor(name="ann", role=Role.RUNNER, groups=["lab-a"])


async def test_a_changed_text_is_a_new_version_and_the_same_text_is_none(engine: Engine) -> None:
    first = await call(engine, "plan.put", name="hello", plan=PLAN)
    again = await call(engine, "plan.put", name="hello", plan=PLAN)
    second = await call(engine, "plan.put", name="hello", plan=PLAN + "# changed\n")

    assert (first["version"], again["version"], second["version"]) == (1, 1, 2)
    assert (await call(engine, "plan.get", name="hello", version=1))["plan"] == PLAN
    newest = await call(engine, "plan.get", name="hello")
    assert (newest["plan"], newest["versions"]) == (PLAN + "# changed\n", [1, 2])
    (listed,) = (await call(engine, "plan.list"))["items"]
    assert (listed["name"], listed["version"], listed["plan"]) == ("hello", 2, None)


async def test_a_deleted_plan_is_gone_and_its_numbers_are_not_used_again(engine: Engine) -> None:
    await call(engine, "plan.put", name="hello", plan=PLAN)
    await call(engine, "plan.delete", name="hello")
    for op in ("plan.get", "plan.delete"):
        with pytest.raises(ProctorError) as refused:
            await call(engine, op, name="hello")
        assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(ProctorError, match="no such plan: hello@1"):
        await call(engine, "run.submit", run=new_id(), plan="hello@1")
    assert (await call(engine, "plan.put", name="hello", plan=PLAN))["version"] == 2


async def test_a_stored_plan_runs_by_its_name_and_by_a_version(
    engine: Engine, agent: FakeAgent, database: Database
) -> None:
    agent.ends = StepResult.PASSED
    await call(engine, "plan.put", name="hello", plan=PLAN)
    await call(engine, "plan.put", name="hello", plan=PLAN + "# changed\n")

    old = await call(engine, "run.submit", run=new_id(), plan="hello@1")
    new = await call(engine, "run.submit", run=new_id(), plan="hello")

    assert [(await until_finished(engine, run["id"]))["plan"] for run in (old, new)] == ["hello", "hello"]
    with pytest.raises(ProctorError, match="no such plan: hello@3"):
        await call(engine, "run.submit", run=new_id(), plan="hello@3")


async def test_a_plan_with_faults_is_not_stored(engine: Engine) -> None:
    with pytest.raises(ProctorError) as refused:
        await call(engine, "plan.put", name="hello", plan=PLAN + "stepz: {}\n")
    (fault,) = refused.value.details["errors"]
    assert (fault["line"], fault["path"]) == (8, "stepz")
    assert (await call(engine, "plan.list"))["items"] == []


async def test_a_plan_of_a_group_is_nobody_elses(engine: Engine) -> None:
    mine = await call(engine, "plan.put", actor=BOUND, name="mine", plan=PLAN)
    await call(engine, "plan.put", name="shared", plan=PLAN)

    assert mine["group"] == "lab-a"
    assert [plan["name"] for plan in (await call(engine, "plan.list", actor=BOUND))["items"]] == ["mine"]
    assert [plan["name"] for plan in (await call(engine, "plan.list"))["items"]] == ["mine", "shared"]
    for op in ("plan.get", "plan.delete"):
        with pytest.raises(ProctorError) as refused:
            await call(engine, op, actor=BOUND, name="shared")
        assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(ProctorError) as refused:
        await call(engine, "plan.put", actor=BOUND, name="shared", plan=PLAN)
    assert refused.value.code is Code.CONFLICT


async def test_validate_finds_faults_and_starts_nothing(engine: Engine, agent: FakeAgent) -> None:
    assert await call(engine, "plan.validate", plan=PLAN) == {"errors": []}
    bad = PLAN.replace("shell.run", "shell.rum")
    (fault,) = (await call(engine, "plan.validate", plan=bad))["errors"]
    assert (fault["path"], fault["line"]) == ("steps.hello.uses", 5)
    assert (await call(engine, "run.list"))["items"] == []
