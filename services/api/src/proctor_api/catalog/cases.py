"""SQL of test cases, which are identified by project and name."""

from collections.abc import Callable

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.faults import forbidden, referred, unknown
from proctor_api.catalog.fields import dump
from proctor_api.catalog.projects import RENAMING, RENAMING_SECONDS
from proctor_api.catalog.record import CatalogRecord, record_of
from proctor_common.pg import changing, session

_COLUMNS = "SELECT id, project_name, name, body::text AS body, creation_date FROM catalog.cases"


class Cases:
    """Each method is one transaction. Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(self, project: str) -> list[CatalogRecord]:
        """The test cases of a project, oldest first; an empty list if the project is unknown."""
        async with session(self._engine) as connection:
            rows = await connection.fetch(f"{_COLUMNS} WHERE project_name = $1 ORDER BY id", project)
            return [record_of(row) for row in rows]

    async def get(self, project: str, name: str) -> CatalogRecord:
        """One test case. Raises 404."""
        async with session(self._engine) as connection:
            row = await connection.fetchrow(f"{_COLUMNS} WHERE project_name = $1 AND name = $2", project, name)
        if row is None:
            raise unknown("test case", f"{project}/{name}")
        return record_of(row)

    async def add(self, record: CatalogRecord) -> None:
        """Store a new one. Raises 403 if the project is unknown or has a test case of this name."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(
                    "INSERT INTO catalog.cases (id, project_name, name, body, creation_date)"
                    " VALUES ($1, $2, $3, $4::text::json, $5)",
                    record.id,
                    record.project,
                    record.name,
                    dump(record.body),
                    record.creation_date,
                )
        except asyncpg.PostgresError as fault:
            raise _refusal(record, fault) from None

    async def change(self, project: str, name: str, change: Callable[[CatalogRecord], CatalogRecord]) -> CatalogRecord:
        """Store what ``change`` makes of the record. Returns it. Raises 404; 403 for a bad project or name."""
        try:
            async with changing(self._engine) as connection:
                query = f"{_COLUMNS} WHERE project_name = $1 AND name = $2 FOR UPDATE"
                row = await connection.fetchrow(query, project, name)
                if row is None:
                    raise unknown("test case", f"{project}/{name}")
                made = change(record_of(row))
                await connection.execute(RENAMING)
                await connection.execute(
                    "UPDATE catalog.cases SET project_name = $2, name = $3, body = $4::text::json WHERE id = $1",
                    made.id,
                    made.project,
                    made.name,
                    dump(made.body),
                    timeout=RENAMING_SECONDS,
                )
        except asyncpg.IntegrityConstraintViolationError as fault:
            raise _refusal(made, fault) from None
        return made

    async def delete(self, project: str, name: str) -> None:
        """Delete one. Raises 404, and 401 while results refer to it."""
        try:
            async with session(self._engine) as connection:
                query = "DELETE FROM catalog.cases WHERE project_name = $1 AND name = $2"
                done = await connection.execute(query, project, name)
        except asyncpg.ForeignKeyViolationError:
            raise referred(f"results refer to the test case {project}/{name}") from None
        if done == "DELETE 0":
            raise unknown("test case", f"{project}/{name}")


def _refusal(record: CatalogRecord, fault: asyncpg.PostgresError) -> Exception:
    if isinstance(fault, asyncpg.ForeignKeyViolationError):
        return forbidden(f"no such project: {record.project}")
    if isinstance(fault, asyncpg.UniqueViolationError):
        return forbidden(f"the test case {record.project}/{record.name} exists already")
    raise fault
