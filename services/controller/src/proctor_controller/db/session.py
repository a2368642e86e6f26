"""A connection of the pool, spoken to directly: the engine's few statements go one round trip each and commit alone."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.pg import database_unavailable, is_database_down


class Row(Protocol):
    """A row: columns by name."""

    def __getitem__(self, name: str) -> Any: ...


class Session(Protocol):
    """What is used of a connection."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    async def execute(self, query: str, *args: Any) -> str: ...
    def transaction(self) -> Any: ...


@asynccontextmanager
async def session(engine: AsyncEngine) -> AsyncIterator[Session]:
    """A connection, back in the pool at the end. Raises ProctorError ``database_unavailable``."""
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            yield driver
    except ProctorError:
        raise
    except Exception as fault:
        if is_database_down(fault):
            raise database_unavailable() from fault
        raise


def to_json(value: Any) -> str:
    """JSON text for a column of type json or jsonb; the driver gives such columns back as values."""
    return json.dumps(value, separators=(",", ":"))


def clean(text: str, limit: int = 2000) -> str:
    """Text as PostgreSQL can store it: without NUL and lone surrogates, cut to ``limit`` characters."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def rows_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for json_to_recordset; times as ISO text."""
    return json.dumps(list(rows), separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    return value.isoformat()
