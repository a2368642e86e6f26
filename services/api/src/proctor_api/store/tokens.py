"""SQL of tokens and sessions. Only hashes of secrets are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.ids import is_id, new_id, token_hash
from proctor_common.pg import transaction
from proctor_common.states import Role


@dataclass(frozen=True, slots=True)
class Token:
    """A token. ``groups`` None: not bound to groups; ``expires_at`` None: never; ``last_use`` None: not used yet."""

    id: str
    name: str
    role: Role
    groups: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_use: datetime | None


def _token(row: Any) -> Token:
    return Token(
        id=str(row.id),
        name=row.name,
        role=Role(row.role),
        groups=None if row.groups is None else tuple(row.groups),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        last_use=row.last_use,
    )


class TokenStore:
    """Each method is one transaction. Raises ProctorError ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, hash_: str) -> Token | None:
        """The token with this hash; None if there is none or it has expired."""
        return await self._one(
            "SELECT * FROM access.tokens WHERE hash = :hash AND (expires_at IS NULL OR expires_at > now())", hash=hash_
        )

    async def find_by_session(self, hash_: str) -> Token | None:
        """The token of the session with this hash; None if one of the two has expired."""
        return await self._one(
            "SELECT * FROM access.tokens WHERE (expires_at IS NULL OR expires_at > now()) AND id = "
            "(SELECT token_id FROM access.sessions WHERE hash = :hash AND expires_at > now())",
            hash=hash_,
        )

    async def get(self, token: str) -> Token | None:
        """The token with this id, expired or not; None if there is none."""
        if not is_id(token):
            return None
        return await self._one("SELECT * FROM access.tokens WHERE id = CAST(:id AS uuid)", id=token)

    async def list(self, limit: int, after: str | None, groups: Sequence[str] | None) -> list[Token]:
        """Tokens in the order of their creation, after the id ``after``. ``groups``: only those that are bound to some
        of these and to no other; None: all.
        """
        async with transaction(self._engine) as connection:
            rows = await connection.execute(
                text(
                    "SELECT * FROM access.tokens"
                    " WHERE (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid))"
                    " AND (:all OR groups <@ CAST(:groups AS text[]))"
                    " ORDER BY id LIMIT :limit"
                ),
                {"after": after, "limit": limit, "all": groups is None, "groups": list(groups or ())},
            )
            return [_token(row) for row in rows]

    async def add(
        self,
        *,
        name: str,
        role: Role,
        groups: Sequence[str] | None,
        secret: str,
        created_by: str,
        expires_at: datetime | None,
    ) -> Token:
        """Store a new token's hash."""
        made = await self._one(
            "INSERT INTO access.tokens (id, name, role, groups, hash, created_by, expires_at)"
            " VALUES (CAST(:id AS uuid), :name, :role, :groups, :hash, :by, :expires) RETURNING *",
            id=new_id(),
            name=name,
            role=role.value,
            groups=None if groups is None else [*groups],
            hash=token_hash(secret),
            by=created_by,
            expires=expires_at,
        )
        if made is None:
            raise RuntimeError("INSERT … RETURNING gave no row")
        return made

    async def add_first(self, secret: str) -> bool:
        """Store ``secret`` as an admin's token if there is no valid one. Returns whether it was stored."""
        async with transaction(self._engine) as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('access.tokens first'))"))
            done = await connection.execute(
                text(
                    "INSERT INTO access.tokens (id, name, role, hash, created_by)"
                    " SELECT CAST(:id AS uuid), 'first', 'admin', :hash, 'init'"
                    " WHERE NOT EXISTS (SELECT 1 FROM access.tokens"
                    " WHERE role = 'admin' AND (expires_at IS NULL OR expires_at > now()))"
                    " ON CONFLICT (hash) DO NOTHING"
                ),
                {"id": new_id(), "hash": token_hash(secret)},
            )
            return done.rowcount > 0

    async def delete(self, token: str) -> Token | None:
        """Delete a token and its sessions. Returns the token; None if there was none."""
        if not is_id(token):
            return None
        return await self._one("DELETE FROM access.tokens WHERE id = CAST(:id AS uuid) RETURNING *", id=token)

    async def note_use(self, uses: Mapping[str, datetime]) -> None:
        """Store when tokens were last used, by id. Never moves a time back."""
        async with transaction(self._engine) as connection:
            await connection.execute(
                text(
                    "UPDATE access.tokens t SET last_use = u.at"
                    " FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS u(id, at)"
                    " WHERE t.id = u.id AND (t.last_use IS NULL OR t.last_use < u.at)"
                ),
                {"ids": list(uses), "times": list(uses.values())},
            )

    async def open_session(self, secret: str, token: str, expires_at: datetime) -> None:
        """Store the hash of a session, and delete expired sessions."""
        async with transaction(self._engine) as connection:
            await connection.execute(text("DELETE FROM access.sessions WHERE expires_at < now()"))
            await connection.execute(
                text(
                    "INSERT INTO access.sessions (hash, token_id, expires_at)"
                    " VALUES (:hash, CAST(:id AS uuid), :expires)"
                ),
                {"hash": token_hash(secret), "id": token, "expires": expires_at},
            )

    async def close_session(self, hash_: str) -> None:
        """Delete a session. No effect if there is none."""
        async with transaction(self._engine) as connection:
            await connection.execute(text("DELETE FROM access.sessions WHERE hash = :hash"), {"hash": hash_})

    async def _one(self, sql: str, **values: Any) -> Token | None:
        async with transaction(self._engine) as connection:
            row = (await connection.execute(text(sql), values)).one_or_none()
            return None if row is None else _token(row)
