"""SQL of attempts: what agents were given, report late, and list in heartbeats."""

# ruff: noqa: S608 - statements are put together from constants of this package

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_controller.db.runs.columns import CALL_COLUMNS, STEP_COLUMNS, to_step
from proctor_controller.db.session import Row, Session, to_json
from proctor_controller.domain.runs.step import Step
from proctor_controller.domain.runs.step_rules import Rules, rules_of


class MethodCall(NamedTuple):
    """What a step calls, as stored. ``run_number``: of its run; ``parameters``: with hidden values masked, in which
    case ``sealed`` has all of them; ``rules``: of its node.
    """

    run_number: int
    plugin: str
    method: str
    parameters: Mapping[str, Any]
    env: Mapping[str, str]
    target: str | None
    sealed: str | None = None
    rules: Rules | None = None


def to_call(row: Row, rules: Rules | None) -> MethodCall:
    """The call in a row of CALL_COLUMNS."""
    return MethodCall(
        row["number"], row["plugin"], row["method"], row["parameters"], row["env"], row["target"], row["sealed"], rules
    )


async def load_call(session: Session, step: str) -> tuple[Step, MethodCall] | None:
    """A step and its call; None if there is no such step."""
    row = await session.fetchrow(
        f"""SELECT {STEP_COLUMNS}, {CALL_COLUMNS}, n.rules
           FROM control.steps s JOIN control.runs r ON r.id = s.run_id
           JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",
        step,
    )
    return None if row is None else (to_step(row), to_call(row, rules_of(row["rules"])))


async def keep_shown(session: Session, step: str, parameters: Mapping[str, Any]) -> None:
    """Store the filled-in parameters to be shown, with hidden values masked. No decision reads them."""
    await session.execute("UPDATE control.steps SET parameters = $2::json WHERE id = $1", step, to_json(parameters))


class Given(NamedTuple):
    """An attempt that this agent was given. ``current``: the token is the last one."""

    run: str
    current: bool
    ended: bool
    reported: bool


async def find_given(session: Session, agent: str, step: str, attempt: int, token: str) -> Given | None:
    """The attempt, if the agent was ever given it; else None."""
    row = await session.fetchrow(
        """SELECT run_id, token = $4 AS current, state = 'finished' AS ended, reported
           FROM control.attempts WHERE step_id = $2 AND attempt = $3 AND agent_id = $1""",
        agent,
        step,
        attempt,
        token,
    )
    return None if row is None else Given(str(row["run_id"]), row["current"], row["ended"], row["reported"])


async def keep_evidence(session: Session, agent: str, step: str, attempt: int, report: str) -> None:
    """Keep a report that came too late to count, so that the agent may forget it. Only the first is kept."""
    await session.execute(
        """UPDATE control.attempts SET evidence = $4::json, reported = true
           WHERE step_id = $2 AND attempt = $3 AND agent_id = $1 AND state = 'finished' AND NOT reported""",
        agent,
        step,
        attempt,
        report,
    )


class Ref(NamedTuple):
    """An attempt as an agent names it."""

    step: str
    attempt: int
    token: str


class StoredAttempt(NamedTuple):
    """What is stored of an attempt that an agent lists. ``known`` False: the agent was never given it."""

    ref: Ref
    known: bool
    ended: bool
    reported: bool


async def find_stored_attempts(session: Session, agent: str, refs: Sequence[Ref]) -> list[StoredAttempt]:
    """What is stored of the attempts that an agent lists; malformed ids count as unknown."""
    rows = await session.fetch(
        """SELECT x.step::text AS step, x.attempt, x.token, a.step_id IS NOT NULL AS known,
                  coalesce(a.state = 'finished' OR a.token <> x.token, true) AS ended,
                  coalesce(a.reported OR a.token <> x.token, true) AS reported
           FROM unnest($2::uuid[], $3::int[], $4::text[]) AS x(step, attempt, token)
           LEFT JOIN control.attempts a ON a.step_id = x.step AND a.attempt = x.attempt AND a.agent_id = $1""",
        agent,
        [ref.step for ref in refs],
        [ref.attempt for ref in refs],
        [ref.token for ref in refs],
    )
    return [
        StoredAttempt(Ref(row["step"], row["attempt"], row["token"]), row["known"], row["ended"], row["reported"])
        for row in rows
    ]


async def find_over(session: Session, runs: Sequence[str]) -> list[str]:
    """Those of the runs that have ended, with all runs that they are nested in, or are unknown."""
    rows = await session.fetch(
        """SELECT x.id::text AS id FROM unnest($1::uuid[]) AS x(id) WHERE NOT EXISTS (SELECT 1 FROM control.runs r
             WHERE r.id = ANY ((SELECT control.lineage(x.id))::uuid[]) AND r.state <> 'finished')""",
        list(runs),
    )
    return [row["id"] for row in rows]


class Live(NamedTuple):
    """An attempt that an agent holds as far as is stored. ``age``: seconds since it was dispatched."""

    run: str
    step: str
    attempt: int
    token: str
    state: str
    age: float


async def live_attempts(session: Session, agent: str) -> list[Live]:
    """The attempts of an agent that have not ended."""
    rows = await session.fetch(
        """SELECT run_id, step_id, attempt, token, state,
                  extract(epoch FROM now() - coalesce(started_at, dispatched_at))::float8 AS age
           FROM control.attempts WHERE agent_id = $1 AND state <> 'finished' LIMIT 5000""",
        agent,
    )
    return [
        Live(str(row["run_id"]), str(row["step_id"]), row["attempt"], row["token"], row["state"], row["age"])
        for row in rows
    ]


AttemptOf = tuple[str, str, int, str]
"""Run, step, attempt, agent."""


async def find_known(connection: AsyncConnection, asked: Sequence[AttemptOf]) -> set[AttemptOf]:
    """Those that are stored: the agent was given that attempt of that step of that run."""
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
