"""SQL of the log sweep: which attempts were given to whom."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

Given = tuple[str, str, int, str]
"""Run, step, attempt, agent."""


async def find_known(connection: AsyncConnection, asked: Sequence[Given]) -> set[Given]:
    """Those that stand in the rows: the agent was given that attempt of that step of that run."""
    if not asked:
        return set()
    runs, steps, attempts, agents = (list(column) for column in zip(*asked, strict=True))
    rows = await connection.execute(
        text("""SELECT a.run_id, a.step_id, a.attempt, a.agent_id FROM control.attempts a
             JOIN unnest(CAST(:runs AS uuid[]), CAST(:steps AS uuid[]), CAST(:attempts AS int[]),
                         CAST(:agents AS uuid[])) AS q(run_id, step_id, attempt, agent_id)
             ON a.step_id = q.step_id AND a.attempt = q.attempt AND a.run_id = q.run_id AND a.agent_id = q.agent_id"""),
        {"runs": runs, "steps": steps, "attempts": attempts, "agents": agents},
    )
    return {(str(row.run_id), str(row.step_id), row.attempt, str(row.agent_id)) for row in rows}
