"""SQL of heartbeats: many of them in one statement, and the agents' states that follow from them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common.states import AgentState


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: the agent that its subject names, and the instance that sent it."""

    agent: str
    instance: str
    remains: tuple[str, ...] = ()
    """What ended attempts may have left running on its targets."""


@dataclass(frozen=True, slots=True)
class AgentBefore:
    """The agent before the heartbeat."""

    state: AgentState
    instance: str | None
    closed: bool
    """It must take no orders: it is drained and no run has leased it."""
    leftovers: bool
    settling: bool
    """It was lost and has returned, and may run attempts that were given up meanwhile."""
    last_heartbeat: datetime | None
    busy: bool
    """It was given attempts that have not ended."""
    now: datetime
    """The database's clock."""


# Rows are locked in the order of their ids, so that two controllers with overlapping batches cannot deadlock. Commits
# do not wait for the disk: if a crash of PostgreSQL loses a beat, the next one replaces it.
_SAVE = """
WITH b AS (
    SELECT * FROM unnest(CAST(:agents AS uuid[]), CAST(:instances AS text[]), CAST(:remains AS text[]))
        AS b(id, instance, remains)
), old AS (
    SELECT a.id, a.state, a.instance, a.draining, a.leftovers, a.settling, a.last_heartbeat
    FROM control.agents a WHERE a.id IN (SELECT id FROM b) ORDER BY a.id FOR UPDATE
), new AS (
    UPDATE control.agents a SET last_heartbeat = now(), state = 'online',
        remains = ARRAY(SELECT jsonb_array_elements_text(CAST(b.remains AS jsonb))),
        leftovers = old.leftovers OR old.state = 'lost',
        settling = old.settling OR (old.state = 'lost' AND NOT old.leftovers)
    FROM old JOIN b ON b.id = old.id
    WHERE a.id = old.id AND a.instance = b.instance AND a.revoked_at IS NULL
    RETURNING a.id
)
SELECT old.*, now() AS now,
    old.draining AND NOT EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = old.id) AS closed,
    EXISTS (SELECT 1 FROM control.attempts t WHERE t.agent_id = old.id AND t.state <> 'finished') AS busy,
    set_config('synchronous_commit', 'off', true) FROM old
"""


async def save_beats(connection: AsyncConnection, beats: Sequence[Beat]) -> dict[str, AgentBefore]:
    """Store heartbeats of registered instances. Unknown agents are left out of the result."""
    values = {"agents": [beat.agent for beat in beats], "instances": [beat.instance for beat in beats]}
    values["remains"] = [json.dumps(beat.remains) for beat in beats]
    rows = await connection.execute(text(_SAVE), values)
    return {
        str(row.id): AgentBefore(
            state=AgentState(row.state),
            instance=row.instance,
            closed=row.closed,
            leftovers=row.leftovers,
            settling=row.settling,
            last_heartbeat=row.last_heartbeat,
            busy=row.busy,
            now=row.now,
        )
        for row in rows
    }


async def mark_settled(connection: AsyncConnection, agent: str, instance: str) -> None:
    """A returned agent runs nothing unwanted any more: it may get work."""
    await connection.execute(
        text("""UPDATE control.agents SET leftovers = false, settling = false
             WHERE id = :id AND instance = :instance AND settling AND state = 'online'"""),
        {"id": agent, "instance": instance},
    )


async def mark_silent(
    connection: AsyncConnection, *, watched: float, suspect_after: float, lost_after: float
) -> tuple[float, list[tuple[str, str, str]]]:
    """Mark agents whose last heartbeat is so many seconds ago; ``watched``: for how long controllers have listened.

    Returns the database's time (seconds since the epoch) and, for each agent that was marked, its id, host and new
    state.
    """
    now = await connection.scalar(text("SELECT extract(epoch FROM now())"))
    marked: list[tuple[str, str, str]] = []
    for state, before, limit in (
        ("lost", ["online", "suspect"], lost_after),
        ("suspect", ["online"], suspect_after),
    ):
        if watched < limit:
            continue
        rows = await connection.execute(
            text("""UPDATE control.agents SET state = :state
                 WHERE state = ANY(:before) AND last_heartbeat < now() - make_interval(secs => :limit)
                 RETURNING id, host"""),
            {"state": state, "before": before, "limit": limit},
        )
        marked.extend((str(row.id), row.host, state) for row in rows)
    return float(now or 0.0), marked


async def forget_rivals(connection: AsyncConnection, after: float) -> None:
    """Forget second processes that have not tried for ``after`` seconds."""
    await connection.execute(
        text("""UPDATE control.agents SET rival = NULL, rival_at = NULL
             WHERE rival_at < now() - make_interval(secs => :after)"""),
        {"after": after},
    )


async def find_cut(connection: AsyncConnection) -> list[str]:
    """Agents whose connections are to be closed now."""
    rows = await connection.scalars(text("SELECT id FROM control.agents WHERE cut_at <= now()"))
    return [str(row) for row in rows]


async def mark_cut(connection: AsyncConnection, agent: str) -> None:
    """Its connections are closed; those that it opens from now on use a valid key."""
    await connection.execute(
        text("UPDATE control.agents SET cut_at = NULL WHERE id = :id AND cut_at <= now()"), {"id": agent}
    )
