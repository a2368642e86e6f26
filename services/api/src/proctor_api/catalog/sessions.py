"""A connection spoken to directly: single statements go one round trip each and commit alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.pg import database_unavailable, is_database_down

Connection = Any
"""An asyncpg connection: ``fetch``, ``fetchrow``, ``fetchval``, ``execute``, ``cursor``, ``transaction``."""

KEPT = 3
"""Connections that stay at hand instead of going back to the pool and coming out of it for each statement."""


class _Kept:
    """Connections at hand for one engine, and how many wait for one of the pool's meanwhile."""

    def __init__(self) -> None:
        self.idle: list[tuple[AsyncConnection, Connection]] = []
        self.waiting = 0


_kept: "WeakKeyDictionary[AsyncEngine, _Kept]" = WeakKeyDictionary()


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A connection, for others again at the end. Raises ProctorError ``database_unavailable``."""
    kept = _kept.setdefault(engine, _Kept())
    try:
        connection, driver = await _take(engine, kept)
    except Exception as fault:
        if _is_away(fault):
            raise database_unavailable() from fault
        raise
    try:
        yield driver
    except BaseException as fault:
        if isinstance(fault, ProctorError | asyncpg.PostgresError) and not is_database_down(fault):
            # An answer of the server, or our own: the connection is as good as before.
            await _put_back(kept, connection, driver)
        else:
            # It may have left an operation on the connection that nobody waits for.
            await _drop(connection)
        if isinstance(fault, Exception) and _is_away(fault):
            raise database_unavailable() from fault
        raise
    else:
        await _put_back(kept, connection, driver)


@asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """The same, in one transaction."""
    async with session(engine) as connection, connection.transaction():
        yield connection


async def close_sessions(engine: AsyncEngine) -> None:
    """Give the connections at hand back to the pool, before it is disposed of."""
    kept = _kept.pop(engine, _Kept())
    for connection, _ in kept.idle:
        await connection.close()


def _is_away(fault: Exception) -> bool:
    return is_database_down(fault) or isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError)


async def _take(engine: AsyncEngine, kept: _Kept) -> tuple[AsyncConnection, Connection]:
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


async def _put_back(kept: _Kept, connection: AsyncConnection, driver: Connection) -> None:
    if len(kept.idle) < KEPT and not kept.waiting and not driver.is_closed() and not driver.is_in_transaction():
        kept.idle.append((connection, driver))
    else:
        await connection.close()


async def _drop(connection: AsyncConnection) -> None:
    await connection.invalidate()
    await connection.close()
