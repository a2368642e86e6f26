"""SQL of groups: named sets of agents."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SELECT = """
SELECT g.name, g.created_at, coalesce(m.hosts, '{}') AS hosts
FROM control.groups g
LEFT JOIN LATERAL (
    SELECT array_agg(a.host ORDER BY a.host) AS hosts
    FROM control.group_agents b JOIN control.agents a ON a.id = b.agent_id
    WHERE b.group_name = g.name AND a.revoked_at IS NULL
) m ON true
"""


@dataclass(frozen=True, slots=True)
class Group:
    """A group with the host names of its agents."""

    name: str
    hosts: list[str]
    created_at: datetime


def _group(row: RowMapping) -> Group:
    return Group(name=row["name"], hosts=list(row["hosts"]), created_at=row["created_at"])


async def load_group(connection: AsyncConnection, name: str) -> Group | None:
    """The group of this name."""
    row = (await connection.execute(text(f"{_SELECT} WHERE g.name = :name"), {"name": name})).mappings().first()
    return _group(row) if row else None


async def list_groups(
    connection: AsyncConnection, *, names: Sequence[str] | None, after: str, limit: int
) -> list[Group]:
    """Groups by name, after ``after``; only those in ``names`` unless that is None."""
    query = f"""{_SELECT} WHERE g.name COLLATE "C" > :after AND (:all OR g.name = ANY(:names))
        ORDER BY g.name COLLATE "C" LIMIT :limit"""
    values = {"after": after, "all": names is None, "names": list(names or []), "limit": limit}
    return [_group(row) for row in (await connection.execute(text(query), values)).mappings()]


async def missing_groups(connection: AsyncConnection, names: Sequence[str]) -> list[str]:
    """The names without a group."""
    known = await connection.scalars(
        text("SELECT name FROM control.groups WHERE name = ANY(:names)"), {"names": list(names)}
    )
    return sorted(set(names) - set(known))


async def insert_group(connection: AsyncConnection, name: str) -> bool:
    """Create a group; False if there is one of this name."""
    done = await connection.execute(
        text("INSERT INTO control.groups (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": name}
    )
    return bool(done.rowcount)


async def delete_group(connection: AsyncConnection, name: str) -> bool:
    """Delete a group; its agents stay, without it."""
    done = await connection.execute(text("DELETE FROM control.groups WHERE name = :name"), {"name": name})
    return bool(done.rowcount)


async def bind_agent(connection: AsyncConnection, name: str, agent: str) -> bool:
    """Put an agent into a group; False if it was in it already."""
    done = await connection.execute(
        text("""INSERT INTO control.group_agents (group_name, agent_id) VALUES (:name, :agent)
             ON CONFLICT DO NOTHING"""),
        {"name": name, "agent": agent},
    )
    return bool(done.rowcount)


async def unbind_agent(connection: AsyncConnection, name: str, agent: str) -> bool:
    """Take an agent out of a group; False if it was not in it."""
    done = await connection.execute(
        text("DELETE FROM control.group_agents WHERE group_name = :name AND agent_id = :agent"),
        {"name": name, "agent": agent},
    )
    return bool(done.rowcount)
