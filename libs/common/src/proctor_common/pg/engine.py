"""The database engine: asyncpg with SQLAlchemy. Every wait has a limit; it recovers from a restart of PostgreSQL."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from proctor_common.errors import Code, ProctorError

CONNECT_TIMEOUT = 5.0
STATEMENT_TIMEOUT = 30.0
LOCK_TIMEOUT = 10.0

_DOWN = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    PoolTimeoutError,
    DisconnectionError,
    OSError,
    TimeoutError,
)


class KeepingEngine(AsyncEngine):
    """SQLAlchemy's engine, with the connections that :func:`proctor_common.pg.session` keeps."""

    __slots__ = ("idle", "waiting")

    def __init__(self, sync_engine: Engine) -> None:
        super().__init__(sync_engine)
        self.idle: list[tuple[AsyncConnection, Any]] = []
        """Unused connections, each with its asyncpg connection."""
        self.waiting = 0
        """Number of callers that wait for a connection of the pool."""


def make_engine(
    dsn: str,
    *,
    application_name: str,
    password: str | None = None,
    pool_size: int = 8,
    max_overflow: int = 8,
    pool_timeout: float = 5.0,
    server_settings: Mapping[str, str] | None = None,
) -> KeepingEngine:
    """An engine for ``postgresql://user@host:port/name`` or, by socket, ``postgresql://user@/name?host=/folder``.

    Nothing is connected yet. Timestamps are returned in UTC; a statement may take 30 s, a wait for a lock 10 s. A
    connection whose server died is replaced when it is taken from the pool, without a round trip to test it.
    """
    plain = dsn.replace("postgresql+asyncpg://", "postgresql://", 1)
    settings = {
        "application_name": application_name,
        "timezone": "UTC",
        "jit": "off",
        "statement_timeout": str(round(STATEMENT_TIMEOUT * 1000)),
        "lock_timeout": str(round(LOCK_TIMEOUT * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        **(server_settings or {}),
    }

    async def connect() -> Any:
        return await asyncpg.connect(
            plain,
            password=password,
            timeout=CONNECT_TIMEOUT,
            # The server ends a slow statement first; this limit is for a server that does not answer.
            command_timeout=STATEMENT_TIMEOUT + 5,
            server_settings=settings,
        )

    made = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_timeout,
        connect_args={"prepared_statement_cache_size": 500},
    )
    event.listen(made.sync_engine, "checkout", _refuse_dead)
    return KeepingEngine(made.sync_engine)


def _refuse_dead(connection: Any, record: Any, proxy: Any) -> None:
    """The event loop has seen the socket close: let the pool make another connection."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed the connection")


def is_database_down(fault: BaseException | None) -> bool:
    """Whether a fault means that PostgreSQL cannot be reached, is starting or stopping, or is overloaded or full."""
    seen = 0
    while fault is not None and seen < 10:
        if isinstance(fault, _DOWN):
            return True
        if isinstance(fault, asyncpg.InterfaceError) and "closed" in str(fault):
            return True
        if isinstance(fault, DBAPIError) and fault.connection_invalidated:
            return True
        fault = (fault.orig if isinstance(fault, DBAPIError) else None) or fault.__cause__
        seen += 1
    return False


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction: committed at the end, rolled back on any exception.

    Raises ProctorError ``database_unavailable`` if PostgreSQL cannot be reached; if the connection broke during the
    commit, it may have been committed.
    """
    with _faults_named():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Single statements without a transaction around them: a third of the cost, for single reads.

    Raises as :func:`transaction` does.
    """
    with _faults_named():
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except ProctorError:
        raise
    except Exception as fault:
        if is_database_down(fault):
            raise database_unavailable() from fault
        raise


def database_unavailable() -> ProctorError:
    """The error for users after a fault of :func:`is_database_down`; the fault itself is only logged."""
    return ProctorError(Code.DATABASE_UNAVAILABLE, "the database is unavailable; try again in a moment")


async def check_database(engine: AsyncEngine) -> None:
    """One query, for readiness. Raises ProctorError ``database_unavailable``."""
    async with reading(engine) as connection:
        await connection.exec_driver_sql("SELECT 1")
