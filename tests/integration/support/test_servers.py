"""The servers that other tests stand on: they start, survive a kill with their data, and leave nothing."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import asyncssh
import nats as nats_py
import pytest

from support.folders import run_folder, sweep
from support.nats import NatsAccount, NatsAccounts, NatsServer
from support.postgres import Database, PostgresServer
from support.processes import Processes, is_alive
from support.sshd import OpenSshServer, SshTarget
from support.wait import NeverHappenedError, eventually, eventually_sync


async def test_accounts_of_the_shared_nats_server_do_not_see_each_other(
    nats: NatsAccount, nats_accounts: NatsAccounts
) -> None:
    other = nats_accounts.take()
    one, two = await nats_py.connect(nats.url), await nats_py.connect(other.url)
    await one.jetstream().add_stream(name="S", subjects=["s.>"])
    await two.jetstream().add_stream(name="S", subjects=["s.>"])
    await one.jetstream().publish("s.a", b"1")
    assert (await one.jetstream().stream_info("S")).state.messages == 1
    assert (await two.jetstream().stream_info("S")).state.messages == 0
    await one.close()
    await two.close()


async def test_nats_keeps_its_store_over_a_kill(nats_server: NatsServer) -> None:
    client = await nats_py.connect(nats_server.url)
    await client.jetstream().add_stream(name="S", subjects=["s.>"])
    await client.jetstream().publish("s.a", b"1")
    await client.close()
    nats_server.restart()
    client = await nats_py.connect(nats_server.url)
    assert (await client.jetstream().stream_info("S")).state.messages == 1
    await client.close()


async def test_postgres_keeps_its_data_over_a_kill(postgres_server: PostgresServer) -> None:
    database = postgres_server.create_database()
    connection = await asyncpg.connect(database.dsn)
    await connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
    postgres_server.restart()
    again = await asyncpg.connect(database.dsn)
    assert await again.fetchval("SELECT n FROM t") == 7
    await again.close()
    connection.terminate()


def test_a_template_is_prepared_once_and_copied(postgres: PostgresServer) -> None:
    calls: list[str] = []

    async def prepare(database: Database) -> None:
        calls.append(database.name)
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("CREATE TABLE marker (n int)")
        await connection.close()

    copies = [postgres.create_database(postgres.template("test", prepare)) for _ in range(2)]
    copies[0].psql("INSERT INTO marker VALUES (1)")
    assert [copy.psql("SELECT count(*) FROM marker") for copy in copies] == ["1", "0"]
    assert len(calls) == 1


async def test_openssh_runs_a_command_and_checks_its_host_key(openssh_server: OpenSshServer) -> None:
    target = openssh_server.target

    async def run() -> str:
        async with connect(target) as connection:
            return str((await connection.run("echo hi", check=True)).stdout)

    assert await run() == "hi\n"
    openssh_server.new_host_key()
    openssh_server.restart()
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await run()


async def test_both_kinds_of_ssh_server_run_a_command(ssh_target: SshTarget) -> None:
    async with connect(ssh_target) as connection:
        done = await connection.run("echo hi; exit 3")
    assert (done.stdout, done.exit_status) == ("hi\n", 3)


@asynccontextmanager
async def connect(target: SshTarget) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        target.host,
        target.port,
        username=target.user,
        client_keys=[str(target.key)],
        known_hosts=str(target.known_hosts),
        agent_path=None,
        config=[],
    ) as connection:
        yield connection


async def test_what_a_session_started_in_its_own_session_is_found(openssh_server: OpenSshServer) -> None:
    async with connect(openssh_server.target) as connection:
        await connection.run("setsid sleep 300 >/dev/null 2>&1 & echo", check=True)
    await eventually(lambda: any("sleep 300" in line for line in openssh_server.sessions().values()))
    openssh_server.kill()
    assert openssh_server.sessions() == {}


def test_grandchildren_are_found_and_ended(processes: Processes) -> None:
    processes.start(["sh", "-c", "setsid sleep 300 & exit 0"]).wait()
    with pytest.raises(AssertionError, match=r"left running: .*sleep 300"):
        processes.assert_no_leftovers(timeout=0)
    processes.end_all()
    processes.assert_no_leftovers()


def test_children_die_with_a_killed_pytest_and_the_next_run_removes_its_folders() -> None:
    script = textwrap.dedent("""
        import time
        from support.folders import run_folder
        from support.nats import NatsServer
        from support.postgres import PostgresServer
        servers = NatsServer().start(), PostgresServer(durable=False).start()
        print(servers[0].child.pid, servers[1].child.pid, run_folder(), flush=True)
        time.sleep(60)
    """)
    with _run(script) as killed, _run(script) as beside:
        assert killed.stdout is not None and beside.stdout is not None
        nats_pid, postgres_pid, left = killed.stdout.readline().split()
        *pids, used = beside.stdout.readline().split()
        kept = sorted(Path(used).iterdir())
        killed.kill()
        eventually_sync(lambda: not is_alive(int(nats_pid)) and not is_alive(int(postgres_pid)), what="their end")
        with _run("from support.folders import run_folder; print(run_folder())") as following:
            assert following.stdout is not None
            own = following.stdout.readline().strip()
            assert following.wait(20) == 0
        eventually_sync(lambda: not Path(left).exists(), what="the end of the folder")
        assert not Path(own).exists(), "who ends in peace removes its own"
        assert sorted(Path(used).iterdir()) == kept, "of a run beside it nothing is touched"
        assert all(is_alive(int(pid)) for pid in pids)
    sweep()
    eventually_sync(lambda: not Path(used).exists(), what="the end of the folder")
    assert run_folder().is_dir()


@contextmanager
def _run(script: str) -> "Iterator[subprocess.Popen[str]]":
    """A test run beside this one."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True) as run:
        try:
            yield run
        finally:
            run.kill()


async def test_waiting_names_what_did_not_come() -> None:
    with pytest.raises(NeverHappenedError, match=r"waited 0.05 s for the moon; last value: 0"):
        await eventually(lambda: 0, 0.05, "the moon")

    async def never() -> bool:
        await asyncio.sleep(60)
        return True

    with pytest.raises(NeverHappenedError, match="for a slow answer"):
        await eventually(never, 0.05, "a slow answer")
