"""SQL of agents: reading them, letting them register, removing them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common.ids import is_id
from proctor_common.messages.events import Registration
from proctor_common.states import AgentState
from proctor_controller.domain.hosts.agent import Agent

_SELECT = """
SELECT a.*, coalesce(g.names, '{}') AS groups,
    (SELECT count(*) FROM control.leases l WHERE l.agent_id = a.id AND l.token IS NOT NULL) AS used_slots,
    (SELECT count(DISTINCT o.run_id) FROM control.allocations o JOIN control.runs r ON r.id = o.run_id
     WHERE o.agent_id = a.id AND r.state <> 'finished') AS leases
FROM control.agents a
LEFT JOIN LATERAL (
    SELECT array_agg(group_name ORDER BY group_name) AS names FROM control.group_agents WHERE agent_id = a.id
) g ON true
"""
_JSON = {name: JSONB for name in ("labels", "plugins", "load_errors", "targets")}
_MAX_NUMBER = 2**31 - 1
KNOCK_SECONDS = 10.0
"""After so many seconds nobody is let in any more with a key that was found good before it was revoked: a server waits
5 s for the answer.
"""


def _agent(row: RowMapping) -> Agent:
    fields = {name: value for name, value in row.items() if name in Agent.__dataclass_fields__}
    return Agent(**{**fields, "id": str(row["id"]), "state": AgentState(row["state"]), "groups": list(row["groups"])})


async def _read(connection: AsyncConnection, rest: str, values: Mapping[str, Any]) -> list[Agent]:
    query = text(_SELECT + rest).columns(**_JSON)
    return [_agent(row) for row in (await connection.execute(query, dict(values))).mappings()]


async def load_agent(connection: AsyncConnection, agent: str) -> Agent | None:
    """The agent with this id, removed ones included."""
    return next(iter(await _read(connection, "WHERE a.id = :id", {"id": agent})), None)


async def find_agent(connection: AsyncConnection, name: str) -> Agent | None:
    """The agent by its id, its number as text, or its host's name; by the last, only one that is not removed.

    If a host is named like another agent's number, the name takes precedence.
    """
    if is_id(name):
        return await load_agent(connection, name)
    number = int(name) if name.isascii() and name.isdecimal() and len(name) <= 10 else -1
    rest = """WHERE (a.host = :name AND a.revoked_at IS NULL) OR a.number = :number
        ORDER BY (a.host = :name AND a.revoked_at IS NULL) DESC LIMIT 1"""
    values = {"name": name.replace("\0", ""), "number": number if number <= _MAX_NUMBER else -1}
    return next(iter(await _read(connection, rest, values)), None)


async def find_host(connection: AsyncConnection, host: str, *, lock: bool = False) -> Agent | None:
    """The agent of a host, unless removed. ``lock``: lock its row until the transaction ends."""
    rest = "WHERE a.host = :host AND a.revoked_at IS NULL" + (" FOR UPDATE OF a" if lock else "")
    return next(iter(await _read(connection, rest, {"host": host})), None)


async def lock_agent(connection: AsyncConnection, agent: str) -> tuple[Agent, datetime] | None:
    """The agent, its row locked until the transaction ends, and the database's time."""
    found = await _read(connection, "WHERE a.id = :id FOR UPDATE OF a", {"id": agent})
    now = await connection.scalar(text("SELECT clock_timestamp()"))
    return (found[0], now) if found else None


async def list_agents(
    connection: AsyncConnection, *, groups: Sequence[str] | None, after: str, limit: int
) -> list[Agent]:
    """Agents that are not removed, by host name, after ``after``; only those in one of ``groups`` (None: all)."""
    rest = """WHERE a.revoked_at IS NULL AND a.host COLLATE "C" > :after
        AND (:all OR EXISTS (SELECT 1 FROM control.group_agents s
                             WHERE s.agent_id = a.id AND s.group_name = ANY(:groups)))
        ORDER BY a.host COLLATE "C" LIMIT :limit"""
    values = {"after": after, "all": groups is None, "groups": list(groups or []), "limit": limit}
    return await _read(connection, rest, values)


async def insert_agent(
    connection: AsyncConnection, agent: str, *, host: str, public_key: str, labels: dict[str, str]
) -> None:
    """Store a new agent. Unique indexes require a free host and an unknown key."""
    await connection.execute(
        text("INSERT INTO control.agents (id, host, public_key, labels) VALUES (:id, :host, :key, :labels)"),
        {"id": agent, "host": host, "key": public_key, "labels": json.dumps(labels)},
    )


async def agent_of_key(connection: AsyncConnection, public_key: str) -> str | None:
    """The id of the agent with this key; None if it is unknown or revoked."""
    query = "SELECT id FROM control.agents WHERE public_key = :key AND revoked_at IS NULL"
    found = await connection.scalar(text(query), {"key": public_key})
    return None if found is None else str(found)


async def rekey_agent(connection: AsyncConnection, agent: str, *, public_key: str, labels: dict[str, str]) -> None:
    """Give an agent another key. What its former process registered is forgotten, and it leaves its groups."""
    await connection.execute(
        text("""UPDATE control.agents SET public_key = :key, labels = :labels, state = 'enrolled', instance = NULL,
            last_heartbeat = NULL, rival = NULL, rival_at = NULL, forged = 0, leftovers = false, settling = false,
            draining = false, cut_at = now() + make_interval(secs => :settled)
            WHERE id = :id AND revoked_at IS NULL"""),
        {"id": agent, "key": public_key, "labels": json.dumps(labels), "settled": KNOCK_SECONDS},
    )
    await connection.execute(text("DELETE FROM control.group_agents WHERE agent_id = :id"), {"id": agent})


async def save_registration(connection: AsyncConnection, agent: str, brought: Registration) -> None:
    """Store a registration; the agent is online from now on. The row must be locked and not removed."""
    dumped = brought.model_dump(mode="json")
    await connection.execute(
        text("""UPDATE control.agents SET boot_id = :boot_id, instance = :instance, slots = :slots, version = :version,
            plugins = :plugins, load_errors = :load_errors, targets = :targets, default_target = :default_target,
            leftovers = :leftovers OR (instance = :instance AND (settling OR state = 'lost')) IS TRUE,
            settling = NOT :leftovers AND (instance = :instance AND (settling OR state = 'lost')) IS TRUE,
            registered_at = now(), last_heartbeat = now(), state = 'online',
            rival = NULL, rival_at = NULL
            WHERE id = :id AND revoked_at IS NULL"""),
        {
            "id": agent,
            "boot_id": brought.boot_id,
            "instance": brought.instance,
            "slots": brought.slots,
            "version": brought.version,
            "plugins": json.dumps(dumped["plugins"]),
            "load_errors": json.dumps(brought.load_errors),
            "targets": json.dumps(dumped["targets"]),
            "default_target": brought.default_target,
            "leftovers": bool(brought.leftovers),
        },
    )


async def release_remains(connection: AsyncConnection, agent: str) -> None:
    """What is left on its targets now no longer prevents leases."""
    await connection.execute(text("UPDATE control.agents SET released = remains WHERE id = :id"), {"id": agent})


async def save_rival(connection: AsyncConnection, agent: str, rival: str) -> None:
    """Store that a second process uses the agent's key."""
    await connection.execute(
        text("UPDATE control.agents SET rival = :rival, rival_at = now() WHERE id = :id AND revoked_at IS NULL"),
        {"id": agent, "rival": rival},
    )


async def set_draining(connection: AsyncConnection, agent: str, draining: bool) -> bool:
    """Whether this call changed the flag."""
    done = await connection.execute(
        text("""UPDATE control.agents SET draining = :draining
             WHERE id = :id AND revoked_at IS NULL AND draining <> :draining"""),
        {"id": agent, "draining": draining},
    )
    return bool(done.rowcount)


async def revoke_agent(connection: AsyncConnection, agent: str, reason: str) -> bool:
    """Revoke the agent's key and remove it from all groups. Whether this call did it."""
    done = await connection.execute(
        text("""UPDATE control.agents SET state = 'removed', revoked_at = now(), revoked_reason = :reason,
             cut_at = now() + make_interval(secs => :settled) WHERE id = :id AND revoked_at IS NULL"""),
        {"id": agent, "reason": reason, "settled": KNOCK_SECONDS},
    )
    if done.rowcount:
        await connection.execute(text("DELETE FROM control.group_agents WHERE agent_id = :id"), {"id": agent})
    return bool(done.rowcount)


async def count_forged(connection: AsyncConnection, agent: str) -> int:
    """Count one report about an attempt that the agent was never given; returns how many there are now."""
    counted = await connection.scalar(
        text("UPDATE control.agents SET forged = forged + 1 WHERE id = :id RETURNING forged"), {"id": agent}
    )
    return int(counted or 0)


async def bind_groups(connection: AsyncConnection, agent: str, groups: Iterable[str]) -> None:
    """Put the agent into those of the groups that exist."""
    await connection.execute(
        text("""INSERT INTO control.group_agents (group_name, agent_id)
             SELECT name, :id FROM control.groups WHERE name = ANY(:groups) ON CONFLICT DO NOTHING"""),
        {"id": agent, "groups": list(groups)},
    )
