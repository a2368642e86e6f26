"""SQL of claims: a spare goes to one claimant, in one statement, oldest first."""

# ruff: noqa: S608 - only constants of these modules stand in the text; every value is a parameter

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpg import UniqueViolationError

from proctor_common.ids import new_id
from proctor_controller.db.pool.volumes import COLUMNS, volume_of
from proctor_controller.db.session import Session
from proctor_controller.domain.volumes.volume import Volume

SPARES = """SELECT id, created_at FROM control.volumes WHERE state = 'ready' AND type = $1 AND size_gb >= $2
    ORDER BY created_at, id LIMIT $3 FOR UPDATE SKIP LOCKED"""


@dataclass(frozen=True, slots=True)
class Demand:
    """A VNF that wants a volume. ``id``: of the VNF."""

    id: str
    name: str
    by: str = ""


class MadeMeanwhileError(Exception):
    """Another controller has just made one of the VNFs; nothing was claimed."""


async def claim_for_vnfps(db: Session, type: str, size_gb: int, demands: Sequence[Demand]) -> dict[str, bool]:
    """Make the VNFs, each with a spare at least as large, or with an intent if no spare is left.

    One statement, one commit. Returns VNF id -> whether it got a spare; existing VNFs are left out. Raises
    MadeMeanwhileError.
    """
    try:
        rows = await db.fetch(CLAIM, *_values(type, size_gb, demands))
    except UniqueViolationError as fault:
        raise MadeMeanwhileError from fault
    return {str(row["id"]): row["hit"] for row in rows}


CLAIM = f"""WITH asked AS (
            SELECT a.vnfp, a.fresh, a.name, a.by, row_number() OVER () AS n
            FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[]) AS a (vnfp, fresh, name, by)
            WHERE NOT EXISTS (SELECT 1 FROM control.vnfps o WHERE o.id = a.vnfp)
        ), spare AS (
            SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM ({SPARES}) s
        ), taken AS (
            UPDATE control.volumes v SET state = 'claimed', vnfp = a.vnfp, name = a.name, claimed_at = now(),
                version = v.version + 1
            FROM spare s JOIN asked a USING (n) WHERE v.id = s.id RETURNING v.id, v.vnfp
        ), made AS (
            INSERT INTO control.volumes (id, type, size_gb, name, state, from_pool, vnfp)
            SELECT a.fresh, $1, $2, a.name, 'intent', false, a.vnfp
            FROM asked a LEFT JOIN taken t ON t.vnfp = a.vnfp WHERE t.id IS NULL
        )
        INSERT INTO control.vnfps (id, name, type, size_gb, state, volume_id, created_by)
        SELECT a.vnfp, a.name, $1, $2, CASE WHEN t.id IS NULL THEN 'creating' ELSE 'active' END,
            coalesce(t.id, a.fresh), a.by
        FROM asked a LEFT JOIN taken t ON t.vnfp = a.vnfp
        RETURNING id, state = 'active' AS hit"""


def _values(type: str, size_gb: int, demands: Sequence[Demand]) -> tuple[Any, ...]:
    return (
        type,
        size_gb,
        len(demands),
        [demand.id for demand in demands],
        [new_id() for _ in demands],
        [demand.name for demand in demands],
        [demand.by for demand in demands],
    )


async def hand_over(db: Session, waiting: Volume) -> bool:
    """Give a spare that became ready to the owner of an intent that the backend was not asked for yet."""
    row = await db.fetchrow(
        """WITH spare AS (
            SELECT id FROM control.volumes WHERE state = 'ready' AND type = $1 AND size_gb >= $2
            ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
        ), dropped AS (
            UPDATE control.volumes SET state = 'deleted', gone_at = now(), reason = 'a spare came first',
                version = version + 1
            WHERE id = $3 AND version = $4 AND state = 'intent' AND posted_at IS NULL AND EXISTS (SELECT 1 FROM spare)
            RETURNING vnfp, run, key, name
        ), taken AS (
            UPDATE control.volumes v SET state = 'claimed', vnfp = d.vnfp, run = d.run, key = d.key, name = d.name,
                claimed_at = now(), version = v.version + 1
            FROM spare s, dropped d WHERE v.id = s.id RETURNING v.id, v.vnfp
        ), told AS (
            UPDATE control.vnfps n SET volume_id = t.id, state = 'active', reason = ''
            FROM taken t WHERE n.id = t.vnfp AND n.state = 'creating' RETURNING n.id
        )
        SELECT id FROM taken""",
        waiting.type,
        waiting.size_gb,
        waiting.id,
        waiting.version,
    )
    return row is not None


async def lock_run(db: Session, run: str) -> None:
    """Allow only one claim or settling of a run at a time, until the transaction ends."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('volumes ' || $1::text, 0))", run)


async def load_of_run(db: Session, run: str) -> list[Volume]:
    """All volumes that the run has or had, oldest first."""
    rows = await db.fetch(
        f"SELECT {COLUMNS} FROM control.volumes v WHERE v.run = $1 ORDER BY v.created_at, v.tries, v.id", run
    )
    return [volume_of(row) for row in rows]


async def claim_spare_for_run(db: Session, run: str, key: str, name: str, *, type: str, size_gb: int) -> Volume | None:
    """The oldest spare that is large enough; None if there is none."""
    row = await db.fetchrow(
        f"""UPDATE control.volumes v SET state = 'claimed', run = $4, key = $5, name = $6, claimed_at = now(),
                version = v.version + 1
            WHERE v.id = (SELECT id FROM ({SPARES}) s) RETURNING {COLUMNS}""",
        type,
        size_gb,
        1,
        run,
        key,
        name,
    )
    return None if row is None else volume_of(row)


async def settle_run(db: Session, run: str, ends: Mapping[str, str]) -> int:
    """Delete the run's volumes, except those whose key has the end ``retain``; returns the number of deleted ones."""
    kept = [key for key, end in ends.items() if end == "retain"]
    await db.execute(
        """UPDATE control.volumes SET retain = true, version = version + 1
           WHERE run = $1 AND key = ANY($2) AND NOT retain AND state IN ('creating', 'claimed', 'in_use')""",
        run,
        kept,
    )
    done = await db.execute(
        """UPDATE control.volumes SET state = 'deleting', reason = 'its run is over', version = version + 1
           WHERE run = $1 AND NOT retain AND state IN ('intent', 'creating', 'claimed', 'in_use')""",
        run,
    )
    return int(done.split()[-1])


async def find_unsettled(db: Session, limit: int) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Ended runs that still hold volumes that are not retained: id, stored wants, and whether they ever began."""
    rows = await db.fetch(
        """SELECT r.id, r.wants, r.started_at IS NOT NULL AS began FROM control.runs r
           WHERE r.state = 'finished' AND r.finished_at < now() - interval '5 seconds' AND r.id IN (
             SELECT v.run FROM control.volumes v
             WHERE v.run IS NOT NULL AND NOT v.retain AND v.state IN ('intent', 'creating', 'claimed', 'in_use'))
           ORDER BY r.number LIMIT $1""",
        limit,
    )
    return [(str(row["id"]), row["wants"], row["began"]) for row in rows]


async def settle_orphans(db: Session) -> list[str]:
    """Delete the volumes of runs that no longer exist, except retained ones; returns the runs' ids."""
    rows = await db.fetch(
        """UPDATE control.volumes v SET state = 'deleting', reason = 'its run is gone', version = v.version + 1
           WHERE v.run IS NOT NULL AND NOT v.retain AND v.state IN ('intent', 'creating', 'claimed', 'in_use')
             AND coalesce(v.claimed_at, v.created_at) < now() - interval '5 minutes'
             AND NOT EXISTS (SELECT 1 FROM control.runs r WHERE r.id = v.run)
           RETURNING v.run"""
    )
    return sorted({str(row["run"]) for row in rows})
