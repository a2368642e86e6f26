"""A whole api on a free port over real NATS and PostgreSQL; a responder stands in the controllers' place."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from proctor_api.migrations import CHAIN
from proctor_api.settings import ApiSettings
from proctor_common.bus import Bus, BusOptions
from proctor_common.bus.streams import log_stream
from proctor_common.pg import make_engine, migrate
from support.api_world import FIRST_TOKEN, PLAIN, Api, World, running
from support.nats import NatsAccount
from support.postgres import Database, PostgresServer
from support.processes import free_port


@pytest.fixture
async def bus(nats: NatsAccount) -> AsyncIterator[Bus]:
    """A connection of the test's own, with stream LOG in place."""
    async with Bus(BusOptions(servers=(nats.url,), name="test", start_timeout=10)) as connected:
        await connected.ensure_stream(log_stream(max_bytes=64 * 1024 * 1024))
        yield connected


@pytest.fixture
async def world(bus: Bus) -> World:
    """What stands in the controllers' place."""
    made = World(bus)
    await made.start()
    return made


@pytest.fixture(scope="session")
def _api_database(postgres: PostgresServer) -> Iterator[Database]:
    made = postgres.create_database()

    async def prepare() -> None:
        engine = make_engine(made.dsn, application_name="test")
        await migrate(engine, CHAIN)
        await engine.dispose()

    thread = threading.Thread(target=lambda: asyncio.run(prepare()))
    thread.start()
    thread.join()
    yield made
    postgres.drop_database(made)


@pytest.fixture
async def migrated(_api_database: Database) -> Database:
    """A database with the api's schema and no rows."""
    connection = await asyncpg.connect(_api_database.dsn)
    tables = "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables WHERE tablename"
    where = "<> 'alembic_version' AND schemaname IN ('access', 'catalog')"
    await connection.execute(f"TRUNCATE {await connection.fetchval(f'{tables} {where}')}")
    await connection.close()
    return _api_database


@pytest.fixture
async def start_api(nats: NatsAccount, migrated: Database, world: World) -> AsyncIterator[Any]:
    """Starts apis: ``api = await start_api(slow_viewer=1)``."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Api:
            values: dict[str, Any] = {
                "http": f"127.0.0.1:{free_port()}",
                "database_url": migrated.dsn,
                "nats_urls": (nats.url,),
                "first_token": FIRST_TOKEN,
                "start_timeout": 10,
                "log_tick": 0.2,
            }
            settings = ApiSettings(**{**values, **changes})
            await stack.enter_async_context(running(settings))
            http = httpx.AsyncClient(base_url=f"http://{settings.http}", timeout=20, verify=PLAIN)
            stack.push_async_callback(http.aclose)
            return Api(settings, http, world, migrated, nats)

        yield start


@pytest.fixture
async def api(start_api: Any) -> Api:
    """An api with the usual settings; its client carries the first admin's token."""
    made: Api = await start_api()
    return made
