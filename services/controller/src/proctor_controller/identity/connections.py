"""Agents' open connections: listing and closing them, by requests to the system account."""

import json
from dataclasses import dataclass
from typing import Any

import structlog

from proctor_common import subjects
from proctor_common.bus import Bus, BusError

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 2.0
PAGE = 1024


@dataclass(frozen=True, slots=True)
class AgentConnection:
    """One open connection of an agent; ``name``: the client's own."""

    server: str
    cid: int
    name: str


async def list_clients(system: Bus, agent: str) -> list[AgentConnection] | None:
    """The agent's open connections; None if they are unknown."""
    query = json.dumps({"auth": True, "user": agent, "limit": PAGE}).encode()
    try:
        answers = await system.gather(subjects.PING_CONNECTIONS, query, timeout=ANSWER_SECONDS)
    except BusError as fault:
        log.warning("connections_unknown", agent=agent, error=str(fault))
        return None
    found: list[AgentConnection] = []
    for answer in answers:
        found.extend(_clients(answer, agent))
    return found


def _clients(answer: bytes, agent: str) -> list[AgentConnection]:
    document: Any = json.loads(answer)
    data = document.get("data") or {}
    return [
        AgentConnection(server=str(data["server_id"]), cid=int(entry["cid"]), name=str(entry.get("name") or ""))
        for entry in data.get("connections") or []
        if entry.get("authorized_user") == agent
    ]


async def is_connected(system: Bus | None, agent: str, instance: str) -> bool | None:
    """Whether this instance of the agent has an open connection; None if that is unknown."""
    if system is None:
        return None
    clients = await list_clients(system, agent)
    return None if clients is None else any(instance in client.name for client in clients)


async def close_clients(system: Bus | None, agent: str) -> int | None:
    """Close all connections of the agent; returns how many were open, None if that is unknown."""
    if system is None:
        log.warning("connections_not_closed", agent=agent, error="system_nkey is not set")
        return None
    clients = await list_clients(system, agent)
    if clients is None:
        return None
    for client in clients:
        try:
            await system.request(
                subjects.kick(client.server), json.dumps({"cid": client.cid}).encode(), timeout=ANSWER_SECONDS
            )
        except BusError as fault:
            log.warning("connection_not_closed", agent=agent, server=client.server, cid=client.cid, error=str(fault))
            return None
    if clients:
        log.info("connections_closed", agent=agent, connections=len(clients))
    return len(clients)
