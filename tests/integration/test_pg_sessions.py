"""The connections that the engine keeps at hand."""

import asyncio

import pytest

from proctor_common.errors import ProctorError
from proctor_common.pg import make_engine
from proctor_common.pg.sessions import KEPT, close_sessions, session
from support.postgres import Database, PostgresServer


async def test_nobody_starves_while_connections_are_kept(control_database: Database) -> None:
    engine = make_engine(control_database.dsn, application_name="test", pool_size=2, max_overflow=KEPT, pool_timeout=20)

    async def use(number: int) -> int:
        async with session(engine) as db:
            return int(await db.fetchval("SELECT $1::int FROM pg_sleep(0.002)", number))

    assert await asyncio.gather(*(use(number) for number in range(300))) == list(range(300))
    await close_sessions(engine)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_broken_statement_leaves_no_broken_connection(control_database: Database) -> None:
    engine = make_engine(control_database.dsn, application_name="test")
    for _ in range(20):
        with pytest.raises(Exception, match="division by zero"):
            async with session(engine) as db:
                await db.fetchval("SELECT 1 / 0")
    async with session(engine) as db:
        assert await db.fetchval("SELECT 1") == 1
    await close_sessions(engine)
    await engine.dispose()


async def test_a_database_that_dies_and_comes_back(postgres_server: PostgresServer) -> None:
    engine = make_engine(postgres_server.create_database().dsn, application_name="test")
    async with session(engine) as db:
        assert await db.fetchval("SELECT 1") == 1
    postgres_server.kill()
    with pytest.raises(ProctorError) as caught:
        async with session(engine) as db:
            await db.fetchval("SELECT 1")
    assert caught.value.code == "database_unavailable"
    postgres_server.start()
    async with session(engine) as db:
        assert await db.fetchval("SELECT 1") == 1
    await close_sessions(engine)
    await engine.dispose()
