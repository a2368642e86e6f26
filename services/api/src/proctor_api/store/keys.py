"""SQL of idempotency keys: a hash of the request, the run's id, the answer. Kept for 24 hours."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.pg import transaction

_DROP_OLD = text(
    "DELETE FROM access.idempotency_keys"
    " WHERE owner = :owner AND key = :key AND created_at < now() - interval '24 hours'"
)
# A row is taken over only for the same request, if it has no answer and its hold has expired.
_TAKE = text(
    "INSERT INTO access.idempotency_keys AS k (owner, key, request_hash, run, held_until)"
    " VALUES (:owner, :key, :hash, CAST(:run AS uuid), now() + interval '60 seconds')"
    " ON CONFLICT (owner, key) DO UPDATE SET held_until = now() + interval '60 seconds'"
    " WHERE k.answer IS NULL AND k.request_hash = :hash AND coalesce(k.held_until <= now(), true)"
    " RETURNING request_hash, run"
)
_READ = text(
    "SELECT request_hash, run, status, location, answer FROM access.idempotency_keys"
    " WHERE owner = :owner AND key = :key"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The row of a key. ``status``, ``location`` and ``answer`` are None until the request was answered."""

    request_hash: str
    run: str
    mine: bool
    """Whether the caller holds the row now, and must send the request."""
    status: int | None
    location: str | None
    answer: bytes | None


class KeyStore:
    """Each method is one transaction. Raises ProctorError ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def hold(self, owner: str, key: str, request_hash: str, run: str) -> Kept:
        """Insert the row or take over a free one, and hold it for 60 s; else only read it."""
        async with transaction(self._engine) as connection:
            mine = {"owner": owner, "key": key, "hash": request_hash, "run": run}
            await connection.execute(_DROP_OLD, mine)
            taken = (await connection.execute(_TAKE, mine)).one_or_none()
            if taken is not None:
                return Kept(taken.request_hash, str(taken.run), True, None, None, None)
            row = (await connection.execute(_READ, mine)).one()
            answer = None if row.answer is None else bytes(row.answer)
            return Kept(row.request_hash, str(row.run), False, row.status, row.location, answer)

    async def keep(self, owner: str, key: str, status: int, location: str | None, answer: bytes) -> None:
        """Store the answer."""
        await self._do(
            "UPDATE access.idempotency_keys SET status = :status, location = :location, answer = :answer"
            " WHERE owner = :owner AND key = :key AND answer IS NULL",
            owner=owner,
            key=key,
            status=status,
            location=location,
            answer=answer,
        )

    async def let_go(self, owner: str, key: str) -> None:
        """End the hold, so that a repetition can go on with the same run id at once."""
        await self._do(
            "UPDATE access.idempotency_keys SET held_until = NULL"
            " WHERE owner = :owner AND key = :key AND answer IS NULL",
            owner=owner,
            key=key,
        )

    async def forget(self, owner: str, key: str) -> None:
        """Delete a row that has no answer."""
        await self._do(
            "DELETE FROM access.idempotency_keys WHERE owner = :owner AND key = :key AND answer IS NULL",
            owner=owner,
            key=key,
        )

    async def sweep(self) -> None:
        """Delete rows older than 24 hours."""
        await self._do("DELETE FROM access.idempotency_keys WHERE created_at < now() - interval '24 hours'")

    async def _do(self, sql: str, **values: object) -> None:
        async with transaction(self._engine) as connection:
            await connection.execute(text(sql), values)
