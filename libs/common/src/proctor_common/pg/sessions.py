"""A connection of the pool, spoken to directly: a single statement is one round trip, and commits alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.pg.engine import database_unavailable, is_database_down

KEPT = 4
"""Connections that stay at hand instead of going back to the pool and coming out of it for each statement."""


class Session(Protocol):
    """What is used of a connection."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> Any: ...
    def transaction(self) -> Any: ...


class _Kept:
    """Connections at hand for one engine, and how many wait for one of the pool's meanwhile."""

    def __init__(self) -> None:
        self.idle: list[tuple[AsyncConnection, Any]] = []
        self.waiting = 0


_kept: "WeakKeyDictionary[AsyncEngine, _Kept]" = WeakKeyDictionary()


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[Session]:
    """A connection, for others again at the end. Raises ProctorError ``database_unavailable``.

    Up to KEPT of them stay with this module instead of going back to the pool and coming out of it each time;
    :func:`close_sessions` gives them back.
    """
    kept = _kept.setdefault(engine, _Kept())
    try:
        connection, driver = await _take(engine, kept)
    except Exception as fault:
        if _is_away(fault):
            raise database_unavailable() from fault
        raise
    try:
        yield driver
    except (ProctorError, asyncpg.PostgresError) as fault:
        # An answer of the server, or our own: the connection is as good as before, if there still is one.
        if is_database_down(fault):
            await _drop(connection)
            raise database_unavailable() from fault
        await _put_back(kept, connection, driver)
        raise
    except BaseException as fault:
        # Whatever it was, it may have left an operation on the connection that nobody waits for.
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
    """Give the connections that were kept back to the pool, before it is disposed of."""
    kept = _kept.pop(engine, _Kept())
    for connection, _ in kept.idle:
        await connection.close()


def _is_away(fault: Exception) -> bool:
    return is_database_down(fault) or isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError)


async def _take(engine: AsyncEngine, kept: _Kept) -> tuple[AsyncConnection, Any]:
    while kept.idle:
        connection, driver = kept.idle.pop()
        if not driver.is_closed():
            return connection, driver
        await _drop(connection)
    kept.waiting += 1
    try:
        connection = await engine.connect()
    finally:
        kept.waiting -= 1
    try:
        return connection, (await connection.get_raw_connection()).driver_connection
    except BaseException:
        await connection.close()
        raise


async def _put_back(kept: _Kept, connection: AsyncConnection, driver: Any) -> None:
    if len(kept.idle) < KEPT and not kept.waiting and not driver.is_closed() and not driver.is_in_transaction():
        kept.idle.append((connection, driver))
    else:
        await connection.close()


async def _drop(connection: AsyncConnection) -> None:
    await connection.invalidate()
    await connection.close()
