"""SQL of the watchdog: runs, nodes and steps that are due. ``now()`` is stable, so that indexes are used."""

from typing import NamedTuple

from proctor_controller.db.session import Session


class Due(NamedTuple):
    """A run, node or step to look at. ``agent``: of a step whose agent is lost."""

    run: str
    node: str | None = None
    step: str | None = None
    agent: str | None = None


async def find_due_steps(session: Session, limit: int) -> list[Due]:
    """Due steps, longest overdue first."""
    rows = await session.fetch(
        """SELECT run_id, id FROM control.steps WHERE due_at <= now() ORDER BY due_at LIMIT $1""", limit
    )
    return [Due(str(row["run_id"]), step=str(row["id"])) for row in rows]


async def find_due_nodes(session: Session, limit: int) -> list[Due]:
    """Nodes whose steps have not been notified of decided edges, except in the last second (in progress)."""
    rows = await session.fetch(
        """SELECT n.run_id, n.name FROM control.nodes n JOIN control.runs r ON r.id = n.run_id
           WHERE n.due_at <= now() - interval '1 second' AND r.phase = n.phase
             AND r.state IN ('running', 'pausing', 'paused', 'rolling_back', 'finalizing')
           ORDER BY n.due_at LIMIT $1""",
        limit,
    )
    return [Due(str(row["run_id"]), node=row["name"]) for row in rows]


async def find_due_runs(session: Session, limit: int) -> list[Due]:
    """Due runs."""
    rows = await session.fetch("""SELECT id FROM control.runs WHERE due_at <= now() ORDER BY due_at LIMIT $1""", limit)
    return [Due(str(row["id"])) for row in rows]


async def find_past_holds(session: Session, limit: int) -> list[str]:
    """Ended runs whose hosts were kept until a time that has passed."""
    rows = await session.fetch(
        """SELECT r.id FROM (SELECT DISTINCT run_id FROM control.allocations) a JOIN control.runs r ON r.id = a.run_id
           WHERE r.state = 'finished' AND r.hold_until <= now() ORDER BY r.hold_until LIMIT $1""",
        limit,
    )
    return [str(row["id"]) for row in rows]


async def find_lost(session: Session, limit: int) -> list[Due]:
    """Steps that count as running on an agent that is lost or removed."""
    rows = await session.fetch(
        """SELECT a.run_id, a.step_id, a.agent_id FROM control.attempts a JOIN control.agents g ON g.id = a.agent_id
           WHERE a.state IN ('dispatched', 'running') AND g.state IN ('lost', 'removed') LIMIT $1""",
        limit,
    )
    return [Due(str(row["run_id"]), step=str(row["step_id"]), agent=str(row["agent_id"])) for row in rows]


async def is_lost(session: Session, agent: str) -> bool:
    """Whether the agent has been silent for so long that its steps are lost."""
    return bool(
        await session.fetchval("SELECT state IN ('lost', 'removed') FROM control.agents WHERE id = $1::uuid", agent)
    )


async def is_anyone_waiting(session: Session) -> bool:
    """Whether a step waits for a slot."""
    return bool(await session.fetchval("SELECT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting')"))
