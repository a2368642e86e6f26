"""SQL of enrolments: an admin's permission for a new agent, and its use. Only the token's hash is stored."""

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One permission for a new agent."""

    id: str
    host: str
    groups: list[str]
    bound: list[str] | None
    """The groups that the admin who gave it was bound to; None: to none."""
    labels: dict[str, str]
    fresh: bool
    """Whether it has not expired, by the database's clock."""
    used_key: str | None
    agent: str | None


async def insert_enrolment(
    connection: AsyncConnection,
    enrolment: str,
    *,
    token_hash: str,
    host: str,
    groups: list[str],
    bound: list[str] | None,
    labels: dict[str, str],
    created_by: str,
    lifetime: float,
) -> datetime:
    """Store a permission for ``lifetime`` seconds; returns when it ends. Deletes an unused one for the same host."""
    await connection.execute(
        text("DELETE FROM control.enrolments WHERE host = :host AND used_at IS NULL"), {"host": host}
    )
    ends = await connection.scalar(
        text("""INSERT INTO control.enrolments (id, token_hash, host, groups, bound, labels, created_by,
             expires_at) VALUES
             (:id, :hash, :host, :groups, :bound, :labels, :by, now() + make_interval(secs => :lifetime))
             RETURNING expires_at"""),
        {
            "id": enrolment,
            "hash": token_hash,
            "host": host,
            "groups": groups,
            "bound": bound,
            "labels": json.dumps(labels),
            "by": created_by,
            "lifetime": lifetime,
        },
    )
    assert isinstance(ends, datetime)
    return ends


async def pending_groups(connection: AsyncConnection, host: str) -> list[str] | None:
    """The groups of the host's unused permission; None if there is none."""
    groups: list[str] | None = await connection.scalar(
        text("""SELECT groups FROM control.enrolments WHERE host = :host AND used_at IS NULL AND expires_at > now()
             LIMIT 1"""),
        {"host": host},
    )
    return groups


async def lock_enrolment(connection: AsyncConnection, token_hash: str) -> Enrolment | None:
    """The permission of a token, locked until the transaction ends, so that it is not used twice at once."""
    row = (
        await connection.execute(
            text("""SELECT id, host, groups, bound, labels, expires_at > now() AS fresh, used_key, agent_id
                 FROM control.enrolments WHERE token_hash = :hash FOR UPDATE"""),
            {"hash": token_hash},
        )
    ).first()
    if row is None:
        return None
    return Enrolment(
        id=str(row.id),
        host=row.host,
        groups=list(row.groups),
        bound=row.bound,
        labels=row.labels,
        fresh=row.fresh,
        used_key=row.used_key,
        agent=None if row.agent_id is None else str(row.agent_id),
    )


async def use_enrolment(connection: AsyncConnection, enrolment: str, *, public_key: str, agent: str) -> None:
    """Store who used it. The row must be locked and unused."""
    await connection.execute(
        text("""UPDATE control.enrolments SET used_at = now(), used_key = :key, agent_id = :agent
             WHERE id = :id AND used_at IS NULL"""),
        {"id": enrolment, "key": public_key, "agent": agent},
    )
