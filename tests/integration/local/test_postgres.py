"""The launcher's PostgreSQL: made from the wheel, one role a service, as root too, and after every kind of death."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from proctor_cli.local.folders import may_others_enter, open_data_dir
from proctor_cli.local.postgres import Postgres, find_postgres, find_programs, make_cluster
from proctor_cli.local.processes import Account, Child, has_namespaces
from proctor_cli.local.recovery import find_process
from support.folders import remove_tree, short_dir
from support.processes import is_alive
from support.wait import eventually

PASSWORDS = {"proctor_controller": "c" * 64, "proctor_api": "a" * 64}


@pytest.fixture
def folder() -> Iterator[Path]:
    """What `mktemp -d` makes: as root, a place where nobody else may go."""
    path = short_dir("data")
    yield path
    remove_tree(path)


@asynccontextmanager
async def _running(postgres: Postgres) -> AsyncIterator[Child]:
    await asyncio.to_thread(postgres.clear_way)
    child = Child(postgres.spec())
    try:
        await eventually(lambda: postgres.is_up(child.pid), 20, "PostgreSQL to be up")
        yield child
    finally:
        child.signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await child.ended.wait()


async def _as(postgres: Postgres, role: str, sql: str) -> object:
    connection = await asyncpg.connect(postgres.url(role), password=PASSWORDS[role], timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _try(postgres: Postgres) -> None:
    assert await _as(postgres, "proctor_controller", "CREATE TABLE IF NOT EXISTS control.t (n int)") is None
    assert await _as(postgres, "proctor_api", "CREATE TABLE IF NOT EXISTS catalog.t (n int)") is None
    for role, table in (("proctor_api", "control.t"), ("proctor_controller", "catalog.t")):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _as(postgres, role, f"SELECT count(*) FROM {table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _as(postgres, "proctor_api", "CREATE TABLE public.t (n int)")


async def test_each_role_has_its_own_schemas(folder: Path) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres):
        await _try(postgres)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url("proctor_api"), password="wrong", timeout=10)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(postgres.url("postgres"), timeout=10)
        assert list(postgres.sockets.glob(".s.PGSQL.5432"))
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres):
        assert await _as(postgres, "proctor_controller", "SELECT count(*) FROM control.t") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_root_becomes_nobody_where_others_may_enter(folder: Path) -> None:
    _open_to_others(folder)
    if not may_others_enter(find_programs()):
        pytest.skip("nobody may not enter the environment's folder")
    await _try_as(folder, Account.NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_root_takes_a_namespace_where_others_may_not_enter(folder: Path) -> None:
    if not has_namespaces():
        pytest.skip("this machine has no user namespaces")
    await _try_as(folder, Account.NAMESPACE)


async def _try_as(folder: Path, account: Account) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    assert postgres.account is account
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres):
        await _try(postgres)
    # The next start must be as the same account, whatever the folder's mode is by then.
    _open_to_others(folder)
    assert find_postgres(open_data_dir(folder / "data")).account is account


def _open_to_others(folder: Path) -> None:
    folder.chmod(0o711)


async def test_changed_passwords_are_taken_over(folder: Path) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    make_cluster(postgres, {role: "old" for role in PASSWORDS})
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres):
        await _try(postgres)


async def test_after_sigkill_it_starts_again(folder: Path) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres) as child:
        await _try(postgres)
        os.kill(child.pid, signal.SIGKILL)
        await child.ended.wait()

    async def starts() -> bool:
        try:
            async with _running(postgres):
                return await _as(postgres, "proctor_controller", "SELECT count(*) FROM control.t") == 0
        except AssertionError:
            return False

    await eventually(starts, 30, "a new start")


async def test_a_pid_that_is_another_programs_by_now_does_not_matter(folder: Path) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    make_cluster(postgres, PASSWORDS)
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.data}\n1\n5432\n\n\n\nready\n")
    async with _running(postgres):
        await _try(postgres)
    assert find_process(os.getpid()) is not None


async def test_a_left_over_server_is_ended_first(folder: Path) -> None:
    postgres = find_postgres(open_data_dir(folder / "data"))
    make_cluster(postgres, PASSWORDS)
    async with _running(postgres) as left, _running(postgres) as child:
        assert not is_alive(left.pid)
        assert child.pid != left.pid
        await _try(postgres)


async def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    postgres = find_postgres(open_data_dir(deep / "data"))
    assert len(str(postgres.sockets)) < 60
    make_cluster(postgres, PASSWORDS)
    try:
        async with _running(postgres):
            await _try(postgres)
            mode = postgres.sockets.stat().st_mode & 0o777
            assert mode == 0o700
    finally:
        remove_tree(postgres.sockets)


def test_a_half_made_cluster_is_made_anew(folder: Path) -> None:
    data = open_data_dir(folder / "data")
    (data.root / "postgres.new").mkdir()
    (data.root / "postgres.new" / "PG_VERSION").write_text("18")
    postgres = find_postgres(data)
    make_cluster(postgres, PASSWORDS)
    assert (postgres.data / "PG_VERSION").exists()
    assert not (data.root / "postgres.new").exists()
