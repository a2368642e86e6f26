"""SQL of pods."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.faults import forbidden, referred, unknown
from proctor_api.catalog.fields import dump
from proctor_api.catalog.record import CatalogRecord, record_of
from proctor_common.pg import session

_COLUMNS = "SELECT id, name, body::text AS body, creation_date FROM catalog.pods"


class Pods:
    """Each method is one statement. Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list(self) -> list[CatalogRecord]:
        """All pods, oldest first."""
        async with session(self._engine) as connection:
            return [record_of(row) for row in await connection.fetch(f"{_COLUMNS} ORDER BY id")]

    async def get(self, name: str) -> CatalogRecord:
        """One pod. Raises 404."""
        async with session(self._engine) as connection:
            row = await connection.fetchrow(f"{_COLUMNS} WHERE name = $1", name)
        if row is None:
            raise unknown("pod", name)
        return record_of(row)

    async def add(self, record: CatalogRecord) -> None:
        """Store a new one. Raises 403 if the name exists."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(
                    "INSERT INTO catalog.pods (id, name, body, creation_date) VALUES ($1, $2, $3::text::json, $4)",
                    record.id,
                    record.name,
                    dump(record.body),
                    record.creation_date,
                )
        except asyncpg.UniqueViolationError:
            raise forbidden(f"the pod {record.name} exists already") from None

    async def delete(self, name: str) -> None:
        """Delete one. Raises 404, and 401 while results refer to it."""
        try:
            async with session(self._engine) as connection:
                done = await connection.execute("DELETE FROM catalog.pods WHERE name = $1", name)
        except asyncpg.ForeignKeyViolationError:
            raise referred(f"results refer to the pod {name}") from None
        if done == "DELETE 0":
            raise unknown("pod", name)
