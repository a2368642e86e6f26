"""Migrates a service's own schemas to the version of its code, at its start.

Each service has an Alembic chain: a package with a folder ``versions``, one file for each revision, without branches.
The version is in ``<schema>.alembic_version``. At head, a start costs one query and does not import Alembic.
"""

import ast
import asyncio
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor_common.pg.engine import is_database_down
from proctor_common.service import StartError

log = structlog.get_logger(__name__)

VERSION_TABLE = "alembic_version"
LOCK_WAIT = "120s"
RETRY_SECONDS = 0.25


@dataclass(frozen=True)
class MigrationChain:
    """A service's revisions. ``schemas``: the service's own; the first one has the version table."""

    package: str
    schemas: tuple[str, ...]

    @property
    def versions(self) -> Path:
        """The folder of the revisions."""
        return Path(str(files(self.package))) / "versions"


async def migrate(engine: AsyncEngine, chain: MigrationChain, *, wait: float = 30.0) -> None:
    """Migrate to the newest revision, in one transaction; several replicas may do it at once.

    Waits up to ``wait`` seconds for the database. Raises StartError if it does not come, if the schema is newer than
    this service, or if a revision fails (nothing is changed then).
    """
    revisions = read_revisions(chain.versions)
    head = find_head(revisions)
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        try:
            async with engine.connect() as connection:
                current = await _current(connection, chain)
            break
        except Exception as fault:
            if not is_database_down(fault):
                raise _no_database(fault) from fault
            if asyncio.get_running_loop().time() >= deadline:
                raise _no_database(fault) from fault
            await asyncio.sleep(RETRY_SECONDS)
    if current == head:
        return
    _refuse_newer(chain, current, revisions)
    try:
        async with engine.begin() as connection:
            await _upgrade(connection, chain, revisions, head)
    except SQLAlchemyError as fault:
        raise StartError(f"cannot migrate schema {chain.schemas[0]} to {head}: {_one_line(fault)}") from fault


async def _upgrade(
    connection: AsyncConnection, chain: MigrationChain, revisions: dict[str, str | None], head: str
) -> None:
    schema = chain.schemas[0]
    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"migrate {schema}"})
    current = await _current(connection, chain)
    if current == head:
        return
    _refuse_newer(chain, current, revisions)
    for name in chain.schemas:
        # Check first: CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it exists.
        if await connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": name}) is None:
            await connection.execute(text(f'CREATE SCHEMA "{name}"'))
    await connection.run_sync(_run_alembic, chain)
    log.info("schema_migrated", schema=schema, from_revision=current, to_revision=head)


def _run_alembic(connection: Connection, chain: MigrationChain) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("proctor_common.pg") / "chain"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(chain.versions))
    config.attributes["connection"] = connection
    config.attributes["schema"] = chain.schemas[0]
    command.upgrade(config, "head")


async def _current(connection: AsyncConnection, chain: MigrationChain) -> str | None:
    """The database's revision; None if it has none yet."""
    # Not to_regclass: after a wait for the lock it still answers from an old cache.
    known = "SELECT 1 FROM pg_tables WHERE schemaname = :schema AND tablename = :name"
    schema = chain.schemas[0]
    if await connection.scalar(text(known), {"schema": schema, "name": VERSION_TABLE}) is None:
        return None
    current = await connection.scalar(text(f'SELECT version_num FROM "{schema}".{VERSION_TABLE}'))  # noqa: S608
    return None if current is None else str(current)


def _refuse_newer(chain: MigrationChain, current: str | None, revisions: dict[str, str | None]) -> None:
    if current is not None and current not in revisions:
        raise StartError(
            f"schema {chain.schemas[0]} is at revision {current}, which this version of the service does not know: "
            "it is older than its database; install the newer version"
        )


def _no_database(fault: BaseException) -> StartError:
    return StartError(f"cannot reach the database: {_one_line(fault)}")


def _one_line(fault: BaseException) -> str:
    text = str(getattr(fault, "orig", None) or fault).strip()
    return text.splitlines()[0] if text else type(fault).__name__


def read_revisions(folder: Path) -> dict[str, str | None]:
    """Each revision with the one before it, read from the files without importing them."""
    revisions: dict[str, str | None] = {}
    for path in sorted(folder.glob("*.py")):
        names = _assigned(ast.parse(path.read_text()))
        if "revision" in names:
            revisions[str(names["revision"])] = names.get("down_revision")
    return revisions


def _assigned(module: ast.Module) -> dict[str, Any]:
    """Names at the module's top level with constant values."""
    names: dict[str, Any] = {}
    for node in module.body:
        if isinstance(node, ast.AnnAssign):
            targets: list[ast.expr] = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
                names[target.id] = node.value.value
    return names


def find_head(revisions: dict[str, str | None]) -> str:
    """The revision that no other follows. Raises StartError for a chain that branches or is empty."""
    heads = set(revisions) - {before for before in revisions.values() if before is not None}
    if len(heads) != 1:
        raise StartError(f"the migrations are no chain: heads {sorted(heads)}")
    return heads.pop()
