"""Engine and migrations against a real PostgreSQL."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import Code, ProctorError
from proctor_common.pg import MigrationChain, check_database, make_engine, migrate, transaction
from proctor_common.service import StartError
from support.postgres import Database, PostgresServer
from support.wait import eventually

FIRST = 'from alembic import op\nrevision = "0001"\ndown_revision = None\n'
SECOND = 'from alembic import op\nrevision: str = "0002"\ndown_revision: str | None = "0001"\n'


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.dsn, application_name="test")
    yield made
    await made.dispose()


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MigrationChain]:
    package = tmp_path / "demo_chain"
    (package / "versions").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    write(MigrationChain("demo_chain", ()), "0001", FIRST, "CREATE TABLE demo.a (n int)")
    yield MigrationChain("demo_chain", ("demo", "other"))
    sys.modules.pop("demo_chain", None)


def write(chain: MigrationChain, name: str, head: str, sql: str) -> None:
    (chain.versions / f"{name}.py").write_text(f"{head}def upgrade():\n    op.execute({sql!r})\n")


async def test_times_are_utc_and_the_service_is_named(database: Database) -> None:
    engine = make_engine(database.url, application_name="proctor-demo")
    query = "SELECT current_setting('timezone'), application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    async with transaction(engine) as connection:
        assert tuple((await connection.execute(text(query))).one()) == ("UTC", "proctor-demo")
    await engine.dispose()


async def test_a_transaction_is_all_or_nothing(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("CREATE TABLE t (n int PRIMARY KEY)"))

    async def insert_twice() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.execute(text("INSERT INTO t VALUES (1)"))

    with pytest.raises(IntegrityError):
        await insert_twice()
    async with transaction(engine) as connection:
        assert await connection.scalar(text("SELECT count(*) FROM t")) == 0


async def test_a_restart_of_postgresql_heals_by_itself(postgres_server: PostgresServer) -> None:
    engine = make_engine(postgres_server.create_database().dsn, application_name="test")

    async def sleep() -> None:
        async with transaction(engine) as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    async def use(count: int) -> None:
        await asyncio.gather(*(check_database(engine) for _ in range(count)))

    await use(5)
    sleeping = asyncio.create_task(sleep())

    async def sleeps() -> bool:
        async with transaction(engine) as connection:
            query = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            return (await connection.scalar(text(query))) is not None

    await eventually(sleeps, what="the query to run")
    postgres_server.kill()
    with pytest.raises(ProctorError) as caught:
        await sleeping
    assert caught.value.code == Code.DATABASE_UNAVAILABLE
    with pytest.raises(ProctorError) as caught:
        await check_database(engine)
    assert caught.value.status == 503
    postgres_server.start()
    await use(5)
    # Restarted while nobody asked: not one of the pool's dead connections costs a failure.
    await asyncio.to_thread(postgres_server.kill)
    await asyncio.to_thread(postgres_server.start)
    await use(5)
    await engine.dispose()


async def test_replicas_that_migrate_at_once(database: Database, chain: MigrationChain) -> None:
    engines = [make_engine(database.dsn, application_name=f"replica-{n}") for n in range(3)]
    await asyncio.gather(*(migrate(engine, chain) for engine in engines))
    assert database.psql("SELECT version_num FROM demo.alembic_version").strip() == "0001"
    assert database.psql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('demo', 'other')").strip() == "2"
    write(chain, "0002", SECOND, "CREATE TABLE other.b (n int)")
    await asyncio.gather(*(migrate(engine, chain) for engine in engines))
    assert database.psql("SELECT version_num FROM demo.alembic_version").strip() == "0002"
    for engine in engines:
        await engine.dispose()


async def test_a_role_that_may_create_no_schema_uses_those_it_was_given(
    database: Database, chain: MigrationChain
) -> None:
    database.psql(
        "CREATE ROLE demo_owner LOGIN; CREATE SCHEMA demo AUTHORIZATION demo_owner; "
        "CREATE SCHEMA other AUTHORIZATION demo_owner"
    )
    try:
        engine = make_engine(database.dsn.replace("postgres@", "demo_owner@"), application_name="test")
        await migrate(engine, chain)
        assert database.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'a'").strip() == "demo_owner"
        await engine.dispose()
    finally:
        database.psql("DROP SCHEMA demo, other CASCADE; DROP ROLE demo_owner")


async def test_a_service_older_than_its_schema_refuses(engine: AsyncEngine, chain: MigrationChain) -> None:
    write(chain, "0002", SECOND, "CREATE TABLE other.b (n int)")
    await migrate(engine, chain)
    (chain.versions / "0002.py").unlink()
    with pytest.raises(StartError, match="older than its database") as caught:
        await migrate(engine, chain)
    assert "\n" not in caught.value.message
    assert caught.value.code == 1


async def test_a_revision_that_fails_changes_nothing(engine: AsyncEngine, chain: MigrationChain) -> None:
    write(chain, "0002", SECOND, "CREATE TABLE demo.a (n int)")
    with pytest.raises(StartError, match="already exists") as caught:
        await migrate(engine, chain)
    assert "\n" not in caught.value.message
    async with transaction(engine) as connection:
        assert await connection.scalar(text("SELECT count(*) FROM pg_namespace WHERE nspname = 'demo'")) == 0


async def test_a_chain_that_branches_is_refused(engine: AsyncEngine, chain: MigrationChain) -> None:
    write(chain, "0002", SECOND, "SELECT 1")
    write(chain, "0003", SECOND.replace("0002", "0003"), "SELECT 1")
    with pytest.raises(StartError, match="no chain"):
        await migrate(engine, chain)


async def test_a_database_that_is_not_there(chain: MigrationChain, tmp_path: Path) -> None:
    engine = make_engine(f"postgresql://u@/d?host={tmp_path}", application_name="test")
    with pytest.raises(StartError, match="cannot reach the database") as caught:
        await migrate(engine, chain, wait=0.3)
    assert "\n" not in caught.value.message
