"""What is to be recorded in the Test API: kept with the end of a step until the api has confirmed it."""

import asyncio

import pytest

from proctor_common import subjects
from proctor_common.errors import ProctorError
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role, StepResult
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, call, submit, until_finished
from support.postgres import Database

RECORD = {"project": "functest", "case": "vPing", "version": "a ${{ b", "details": {"x": ["${{ y }}"]}, "declare": True}


async def test_a_finished_test_case_is_kept_until_it_is_confirmed(
    engine: Engine, agent: FakeAgent, control_database: Database
) -> None:
    told = asyncio.Event()
    await engine.services.bus.subscribe(subjects.records(), lambda message: told.set())
    agent.ends = StepResult.FAILED
    run = await submit(engine, host="h1", record=RECORD)
    await submit(engine, host="h1")
    await until_finished(engine, run["id"])
    async with asyncio.timeout(10):
        await told.wait()
    control_database.psql(
        "INSERT INTO control.volumes (id, type, size_gb, name, named, state, from_pool, run, key, backend_id)"
        f" VALUES (gen_random_uuid(), 'ssd', 5, 'vol', 'vol', 'in_use', true, '{run['id']}', 'data', 'b-1')"
    )
    pending = await call(engine, "record.pending")
    assert pending["next"] is None
    (record,) = pending["items"]
    assert (record["run"], record["run_number"], record["attempt"], record["host"]) == (
        run["id"],
        run["number"],
        1,
        "h1",
    )
    assert record["volume"] == [{"key": "data", "name": "vol", "type": "ssd", "size_gb": 5, "id": "b-1"}]
    body = record["body"]
    assert {key: body[key] for key in (*RECORD, "pod", "criteria")} == {**RECORD, "pod": "h1", "criteria": "FAIL"}
    assert body["start_date"] <= body["stop_date"]
    assert (await call(engine, "record.pending"))["items"] == [record], "it stays until it is confirmed"
    for _ in range(2):
        await call(engine, "record.confirm", ids=[record["id"], 999])
    assert (await call(engine, "record.pending"))["items"] == []


async def test_only_the_api_itself_takes_records(engine: Engine) -> None:
    for actor in (Actor(name="x", role=Role.RUNNER), Actor(name="x", role=Role.ADMIN, groups=["a"])):
        for op, body in (("record.pending", {}), ("record.confirm", {"ids": [1]})):
            with pytest.raises(ProctorError):
                await call(engine, op, actor, **body)
