"""SQL of the pool's two jobs, its breakers and the strays that a sync found."""

# ruff: noqa: S608 - only constants of these modules stand in the text; every value is a parameter

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proctor_controller.db.column import CHANGING, FIXED, Column, Columns, reader, writer
from proctor_controller.db.duties import Held
from proctor_controller.db.session import Row, Session, clean
from proctor_controller.domain.volumes.breaker import Breaker
from proctor_controller.domain.volumes.sync import Seen

BREAKERS = Columns(
    (
        Column("scope", "text", FIXED),
        Column("failures", "integer", CHANGING),
        Column("opened_at", "timestamptz", CHANGING),
        Column("probe_at", "timestamptz", CHANGING),
        Column("reason", "text", CHANGING, write=lambda text: clean(text, 500)),
    )
)
"""Of a :class:`Breaker`."""
_to_breaker: Callable[[Row], Breaker] = reader(Breaker, BREAKERS)
_breaker_values: Callable[[Breaker], tuple[Any, ...]] = writer(BREAKERS)
JOBS = ("replenish", "sync")
_AT_WORK = """j.started_at IS NOT NULL AND (j.finished_at IS NULL OR j.finished_at < j.started_at) AND EXISTS (
    SELECT 1 FROM control.duties d WHERE d.name = 'pool' AND d.epoch = j.epoch AND d.expires_at > now())"""
"""If the job's holder has lost the duty, its run does not count: another one may begin."""


@dataclass(frozen=True, slots=True)
class Job:
    """The last run of a job, and why one was last skipped."""

    name: str
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str
    skipped_at: datetime | None
    skipped: str
    asked_at: datetime | None
    at_work: bool


async def holds_pool(db: Session, held: Held) -> bool:
    """Whether the duty is still held, until this transaction ends. First in every transaction of the keeper."""
    found = await db.fetchval(
        "SELECT 1 FROM control.duties WHERE name = $1 AND epoch = $2 AND expires_at > now() FOR SHARE",
        held.name,
        held.epoch,
    )
    return found is not None


async def load_jobs(db: Session) -> dict[str, Job]:
    """Both jobs by name."""
    rows = await db.fetch(f"SELECT j.*, ({_AT_WORK}) AS at_work FROM control.pool_jobs j")
    return {row["name"]: Job(**{name: row[name] for name in Job.__dataclass_fields__}) for row in rows}


async def start_job(db: Session, name: str, epoch: int) -> bool:
    """Begin a run; False if the former one still runs, which is recorded."""
    done = await db.execute(
        f"""UPDATE control.pool_jobs j SET epoch = $2, started_at = clock_timestamp(), outcome = 'at work',
                asked_at = NULL
            WHERE name = $1 AND NOT ({_AT_WORK})""",
        name,
        epoch,
    )
    if done.endswith(" 1"):
        return True
    await skip_job(db, name)
    return False


async def skip_job(db: Session, name: str) -> None:
    """Record that a run was skipped."""
    await db.execute(
        """UPDATE control.pool_jobs SET skipped_at = clock_timestamp(), asked_at = NULL,
               skipped = 'the run of ' || to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                   || ' is still at work'
           WHERE name = $1""",
        name,
    )


async def finish_job(db: Session, name: str, epoch: int, outcome: str) -> None:
    """Record the end of a run."""
    await db.execute(
        "UPDATE control.pool_jobs SET finished_at = clock_timestamp(), outcome = $3 WHERE name = $1 AND epoch = $2",
        name,
        epoch,
        clean(outcome, 500),
    )


async def end_interrupted(db: Session) -> None:
    """A keeper begins, so no run is in progress, whatever the rows say."""
    await db.execute(
        """UPDATE control.pool_jobs SET finished_at = clock_timestamp(), outcome = 'interrupted'
           WHERE started_at IS NOT NULL AND (finished_at IS NULL OR finished_at < started_at)"""
    )


async def ask_job(db: Session, name: str) -> bool:
    """Request a run now; False if one is in progress, which is recorded."""
    done = await db.execute(
        f"UPDATE control.pool_jobs j SET asked_at = clock_timestamp() WHERE name = $1 AND NOT ({_AT_WORK})", name
    )
    if done.endswith(" 1"):
        return True
    await skip_job(db, name)
    return False


async def load_asked(db: Session) -> list[str]:
    """The jobs that were requested to run now."""
    return [row["name"] for row in await db.fetch("SELECT name FROM control.pool_jobs WHERE asked_at IS NOT NULL")]


async def load_breakers(db: Session) -> dict[str, Breaker]:
    """All breakers by scope; those without failures may be absent."""
    found = map(_to_breaker, await db.fetch("SELECT * FROM control.pool_breakers"))
    return {breaker.scope: breaker for breaker in found}


async def save_breaker(db: Session, breaker: Breaker) -> None:
    """Write one breaker."""
    await db.execute(
        f"""INSERT INTO control.pool_breakers ({BREAKERS.names}) VALUES ({BREAKERS.insert_arguments(1)})
            ON CONFLICT (scope) DO UPDATE SET {BREAKERS.set_arguments(2)}""",
        *_breaker_values(breaker),
    )


async def note_strays(db: Session, strays: Sequence[Seen]) -> dict[str, datetime]:
    """Store the strays that were seen and forget others; returns backend id -> when it was first seen."""
    ids = [stray.backend_id for stray in strays]
    await db.execute("DELETE FROM control.pool_strays WHERE NOT backend_id = ANY($1)", ids)
    await db.execute(
        """INSERT INTO control.pool_strays (backend_id, volume_id)
           SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING""",
        ids,
        [stray.volume_id for stray in strays],
    )
    rows = await db.fetch("SELECT backend_id, first_seen FROM control.pool_strays")
    return {row["backend_id"]: row["first_seen"] for row in rows}
