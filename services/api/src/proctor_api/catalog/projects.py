"""SQL of projects."""

from collections.abc import Callable

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.faults import forbidden, referred, unknown
from proctor_api.catalog.fields import dump
from proctor_api.catalog.record import CatalogRecord, record_of
from proctor_common.pg import changing, session

_COLUMNS = "SELECT id, name, body::text AS body, creation_date FROM catalog.projects"
RENAMING_SECONDS = 900
RENAMING = f"SET LOCAL statement_timeout = '{RENAMING_SECONDS}s'"
"""A new name is written to every result of the project, which can take long."""


class Projects:
    """Each method is one transaction. Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(self) -> list[CatalogRecord]:
        """All projects, oldest first."""
        async with session(self._engine) as connection:
            return [record_of(row) for row in await connection.fetch(f"{_COLUMNS} ORDER BY id")]

    async def get(self, name: str) -> CatalogRecord:
        """One project. Raises 404."""
        async with session(self._engine) as connection:
            row = await connection.fetchrow(f"{_COLUMNS} WHERE name = $1", name)
        if row is None:
            raise unknown("project", name)
        return record_of(row)

    async def add(self, record: CatalogRecord) -> None:
        """Store a new one. Raises 403 if the name exists."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(
                    "INSERT INTO catalog.projects (id, name, body, creation_date) VALUES ($1, $2, $3::text::json, $4)",
                    record.id,
                    record.name,
                    dump(record.body),
                    record.creation_date,
                )
        except asyncpg.UniqueViolationError:
            raise _exists(record.name) from None

    async def change(self, name: str, change: Callable[[CatalogRecord], CatalogRecord]) -> CatalogRecord:
        """Store what ``change`` makes of the record. Returns it. Raises 404; 403 if the new name exists."""
        try:
            async with changing(self._engine) as connection:
                row = await connection.fetchrow(f"{_COLUMNS} WHERE name = $1 FOR UPDATE", name)
                if row is None:
                    raise unknown("project", name)
                made = change(record_of(row))
                await connection.execute(RENAMING)
                await connection.execute(
                    "UPDATE catalog.projects SET name = $2, body = $3::text::json WHERE id = $1",
                    made.id,
                    made.name,
                    dump(made.body),
                    timeout=RENAMING_SECONDS,
                )
        except asyncpg.UniqueViolationError:
            raise _exists(made.name) from None
        return made

    async def delete(self, name: str) -> None:
        """Delete one. Raises 404, and 401 while test cases refer to it."""
        try:
            async with session(self._engine) as connection:
                done = await connection.execute("DELETE FROM catalog.projects WHERE name = $1", name)
        except asyncpg.ForeignKeyViolationError:
            raise referred(f"test cases refer to the project {name}") from None
        if done == "DELETE 0":
            raise unknown("project", name)


def _exists(name: str) -> Exception:
    return forbidden(f"the project {name} exists already")
