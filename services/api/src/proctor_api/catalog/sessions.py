"""A connection spoken to directly: single statements go one round trip each and commit alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.pg import database_unavailable, is_database_down

Connection = Any
"""An asyncpg connection: ``fetch``, ``fetchrow``, ``fetchval``, ``execute``, ``cursor``, ``transaction``."""


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A connection of the pool, for others again at the end. Raises ProctorError ``database_unavailable``."""
    try:
        connection = await engine.connect()
    except Exception as fault:
        if _is_away(fault):
            raise database_unavailable() from fault
        raise
    try:
        yield (await connection.get_raw_connection()).driver_connection
    except BaseException as fault:
        if not isinstance(fault, ProctorError | asyncpg.PostgresError) or is_database_down(fault):
            # It may have left an operation on the connection that nobody waits for.
            await connection.invalidate()
        if isinstance(fault, Exception) and _is_away(fault):
            raise database_unavailable() from fault
        raise
    finally:
        await connection.close()


@asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """The same, in one transaction."""
    async with session(engine) as connection, connection.transaction():
        yield connection


def _is_away(fault: Exception) -> bool:
    return is_database_down(fault) or isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError)
