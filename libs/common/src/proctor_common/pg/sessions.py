"""Sessions: asyncpg's connections, used directly. A single statement is one round trip with its own commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.pg.engine import KeepingEngine, database_unavailable, is_database_down

KEPT = 4
"""So many connections are kept instead of being returned to the pool after each statement."""


class Session(Protocol):
    """The used methods of a connection."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> Any: ...
    def transaction(self) -> Any: ...


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[Session]:
    """A connection, returned at the end. Raises ProctorError ``database_unavailable``.

    The engine must come from :func:`make_engine`. It keeps up to KEPT of them out of the pool; :func:`close_sessions`
    returns these.
    """
    kept = _keeping(engine)
    try:
        connection, driver = await _take(kept)
    except Exception as fault:
        if _is_away(fault):
            raise database_unavailable() from fault
        raise
    try:
        yield driver
    except (ProctorError, asyncpg.PostgresError) as fault:
        # An error from the server, or our own: the connection can still be used, if it is open.
        if is_database_down(fault):
            await _drop(connection)
            raise database_unavailable() from fault
        await _put_back(kept, connection, driver)
        raise
    except BaseException as fault:
        # Any other exception may have left an unfinished operation on the connection.
        await _drop(connection)
        if isinstance(fault, Exception) and _is_away(fault):
            raise database_unavailable() from fault
        raise
    else:
        await _put_back(kept, connection, driver)


@asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[Session]:
    """The same, in one transaction."""
    async with session(engine) as connection, connection.transaction():
        yield connection


async def close_sessions(engine: AsyncEngine) -> None:
    """Return the kept connections to the pool, before it is disposed of."""
    idle = _keeping(engine).idle
    while idle:
        connection, _ = idle.pop()
        await connection.close()


def _keeping(engine: AsyncEngine) -> KeepingEngine:
    if not isinstance(engine, KeepingEngine):
        raise TypeError("a session needs an engine of make_engine")
    return engine


def _is_away(fault: Exception) -> bool:
    return is_database_down(fault) or isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError)


async def _take(engine: KeepingEngine) -> tuple[AsyncConnection, Any]:
    while engine.idle:
        connection, driver = engine.idle.pop()
        if not driver.is_closed():
            return connection, driver
        await _drop(connection)
    engine.waiting += 1
    try:
        connection = await engine.connect()
    finally:
        engine.waiting -= 1
    try:
        return connection, (await connection.get_raw_connection()).driver_connection
    except BaseException:
        await connection.close()
        raise


async def _put_back(engine: KeepingEngine, connection: AsyncConnection, driver: Any) -> None:
    if len(engine.idle) < KEPT and not engine.waiting and not driver.is_closed() and not driver.is_in_transaction():
        engine.idle.append((connection, driver))
    else:
        await connection.close()


async def _drop(connection: AsyncConnection) -> None:
    await connection.invalidate()
    await connection.close()
