"""Runs go on after PostgreSQL or NATS was killed and started again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from proctor_common.bus import Bus, BusOptions
from proctor_common.bus.streams import event_consumer, event_stream
from proctor_common.errors import ProctorError
from proctor_common.pg import make_engine, migrate
from proctor_common.states import StepResult
from proctor_controller.context import CHAIN
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.reports import Reports
from support.engine import FakeAgent, make_runs_engine, make_watchdog, submit, until_finished, until_step
from support.nats import NatsServer
from support.postgres import PostgresServer
from support.wait import eventually


@asynccontextmanager
async def controller(nats: NatsServer, postgres: PostgresServer) -> AsyncIterator[tuple[Engine, FakeAgent]]:
    """An engine with its consumer and watchdog, and an agent, on servers that may be killed."""
    database = postgres.create_database()
    rows = make_engine(database.dsn, application_name="test")
    await migrate(rows, CHAIN)
    options = BusOptions(servers=(nats.url,), name="controller", reconnect_wait=(0.05, 0.2))
    async with Bus(options) as bus, Bus(BusOptions(servers=(nats.url,), name="agent")) as agents_bus:
        await bus.ensure_stream(event_stream())
        await bus.ensure_consumer(event_consumer())
        engine = make_runs_engine(rows, bus)
        watchdog = make_watchdog(engine)

        async def watch() -> None:
            while True:
                with suppress(ProctorError):
                    await watchdog.tick()
                await asyncio.sleep(0.2)

        tasks = {
            asyncio.create_task(bus.consume("EVENT", "controllers", Reports(engine.database, engine.feed).take)),
            asyncio.create_task(watch()),
        }
        yield engine, await FakeAgent(agents_bus, database).join()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await engine.close()
    await rows.dispose()


async def test_an_end_reported_while_postgresql_is_away_counts(
    nats_server: NatsServer, postgres_server: PostgresServer
) -> None:
    async with controller(nats_server, postgres_server) as (engine, agent):
        run = await submit(engine, host="h1")
        await until_step(engine, run["id"], "running")
        postgres_server.kill()
        await agent.finish(agent.started[0], StepResult.FAILED)
        with pytest.raises(ProctorError) as caught:
            await submit(engine, host="h1")
        assert caught.value.status == 503
        postgres_server.start()
        assert (await until_finished(engine, run["id"], 30))["result"] == "failed"


async def test_orders_and_ends_outlive_a_restart_of_nats(
    nats_server: NatsServer, postgres_server: PostgresServer
) -> None:
    async with controller(nats_server, postgres_server) as (engine, agent):
        first = await submit(engine, host="h1")
        await until_step(engine, first["id"], "running")
        nats_server.kill()
        second = await submit(engine, host="h1")
        assert second["steps"] == {"dispatched": 1}
        nats_server.start()
        await eventually(lambda: len(agent.started) == 2, 30, "the second order")
        for order in agent.started:
            await eventually(partial(sent, agent, order), 30, "the report", retry_on=(Exception,))
        for run in (first, second):
            assert (await until_finished(engine, run["id"], 30))["result"] == "passed"
        assert len(agent.seen) == len({(order.step, order.attempt) for order in agent.started})


async def sent(agent: FakeAgent, order: object) -> bool:
    await agent.finish(order)  # type: ignore[arg-type]
    return True
