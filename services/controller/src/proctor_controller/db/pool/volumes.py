"""SQL of volumes: reading them, storing intents, guarded updates."""

# ruff: noqa: S608 - only constants of these modules stand in the text; every value is a parameter

from collections.abc import Mapping, Sequence
from typing import Any

from proctor_common.ids import new_id
from proctor_common.states import VolumeState
from proctor_controller.db.duties import Held
from proctor_controller.db.session import Row, Session, clean
from proctor_controller.domain.volumes.volume import VOLUME_TRANSITIONS, Volume

COLUMNS = """v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key,
    v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version,
    clock_timestamp() AS now"""
WORK = """(v.state IN ('intent', 'creating', 'claimed', 'deleting')
    OR (v.state = 'failed' AND v.gone_at IS NULL) OR (v.state = 'in_use' AND v.name <> v.named))"""
KEPT_FOR = "7 days"
"""How long the rows of volumes that are gone are kept."""
_CHANGEABLE = {
    "state": "text",
    "backend_id": "text",
    "path": "text",
    "named": "text",
    "reason": "text",
    "evictions": "integer",
    "vnfp": "uuid",
    "retain": "boolean",
}


def volume_of(row: Row) -> Volume:
    """A volume from a row with ``COLUMNS``."""
    return Volume(
        id=str(row["id"]),
        type=row["type"],
        size_gb=row["size_gb"],
        name=row["name"],
        named=row["named"],
        state=VolumeState(row["state"]),
        from_pool=row["from_pool"],
        backend_id=row["backend_id"],
        path=row["path"],
        vnfp=_text(row["vnfp"]),
        run=_text(row["run"]),
        key=row["key"],
        retain=row["retain"],
        tries=row["tries"],
        evictions=row["evictions"],
        reason=row["reason"],
        created_at=row["created_at"],
        posted_at=row["posted_at"],
        gone_at=row["gone_at"],
        version=row["version"],
        now=row["now"],
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


async def load_volume(db: Session, volume: str) -> Volume | None:
    """The row of this id."""
    row = await db.fetchrow(f"SELECT {COLUMNS} FROM control.volumes v WHERE v.id = $1", volume)
    return None if row is None else volume_of(row)


async def load_work(db: Session, limit: int) -> list[Volume]:
    """Volumes with work in the backend: those with owners first, then by age. Without intents that were not requested
    yet (:func:`load_queue`).
    """
    rows = await db.fetch(
        f"""SELECT {COLUMNS} FROM control.volumes v
            WHERE {WORK} AND (v.state <> 'intent' OR v.posted_at IS NOT NULL)
            ORDER BY (v.vnfp IS NULL AND v.run IS NULL), v.created_at, v.id LIMIT $1""",
        limit,
    )
    return [volume_of(row) for row in rows]


async def load_queue(db: Session, without: Sequence[str], limit: int) -> list[Volume]:
    """Intents that were not requested from the backend yet: those with owners before spares, then oldest first."""
    rows = await db.fetch(
        f"""SELECT {COLUMNS} FROM control.volumes v
            WHERE v.state = 'intent' AND v.posted_at IS NULL AND NOT v.id = ANY($1::uuid[])
            ORDER BY (v.vnfp IS NULL AND v.run IS NULL), v.created_at, v.id LIMIT $2""",
        list(without),
        limit,
    )
    return [volume_of(row) for row in rows]


async def load_alive(db: Session) -> list[Volume]:
    """All rows whose volume is not known to be gone."""
    rows = await db.fetch(
        f"SELECT {COLUMNS} FROM control.volumes v WHERE v.gone_at IS NULL ORDER BY v.created_at, v.id"
    )
    return [volume_of(row) for row in rows]


async def insert_spares(db: Session, asked: Mapping[str, int], sizes: Mapping[str, int]) -> list[str]:
    """Store intents for spares; returns their ids. A spare's name contains its type."""
    fresh = [(new_id(), type) for type, count in asked.items() for _ in range(count)]
    if fresh:
        await db.execute(
            """INSERT INTO control.volumes (id, type, size_gb, name, state, from_pool)
               SELECT id, type, size, 'spare-' || type || '-' || id, 'intent', true
               FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS fresh (id, type, size)""",
            [volume for volume, _ in fresh],
            [type for _, type in fresh],
            [sizes[type] for _, type in fresh],
        )
    return [volume for volume, _ in fresh]


async def insert_again(db: Session, failed: Volume) -> str:
    """Store an intent for another volume in place of a failed one; returns its id."""
    fresh = new_id()
    await db.execute(
        """INSERT INTO control.volumes (id, type, size_gb, name, state, from_pool, vnfp, run, key, tries)
           VALUES ($1, $2, $3, $4, 'intent', false, $5, $6, $7, $8)""",
        fresh,
        failed.type,
        failed.size_gb,
        failed.name,
        failed.vnfp,
        failed.run,
        failed.key,
        failed.tries + 1,
    )
    return fresh


async def mark_posted(db: Session, held: Held, volume: Volume) -> Volume | None:
    """Committed before the backend is asked: from then on the volume has to be looked for."""
    return await _change(db, held, volume, "posted_at = now(), named = name", [])


async def mark_not_posted(db: Session, held: Held, volume: Volume, reason: str) -> Volume | None:
    """The backend answered that it made nothing: it may be asked again."""
    return await _change(db, held, volume, "posted_at = NULL, named = '', reason = $5", [clean(reason, 500)])


async def change_volume(
    db: Session, held: Held, volume: Volume, *, gone: bool = False, **changes: Any
) -> Volume | None:
    """Write the changes if the row is unchanged since it was read and the duty still held; else None: read it again.

    ``gone``: the backend does not have it (any more). Raises ValueError for an illegal transition.
    """
    state = changes.get("state")
    if state is not None and state != volume.state and VolumeState(state) not in VOLUME_TRANSITIONS[volume.state]:
        raise ValueError(f"volume {volume.id}: {volume.state} does not become {state}")
    if "reason" in changes:
        changes["reason"] = clean(changes["reason"], 500)
    sets = [f"{name} = ${n}::{_CHANGEABLE[name]}" for n, name in enumerate(changes, 5)]
    if gone:
        sets.append("gone_at = now()")
    if state == VolumeState.READY:
        sets.append("ready_at = now()")
    return await _change(db, held, volume, ", ".join(sets), list(changes.values()))


async def _change(db: Session, held: Held, volume: Volume, sets: str, values: list[Any]) -> Volume | None:
    row = await db.fetchrow(
        f"""UPDATE control.volumes v SET {sets}, version = v.version + 1 WHERE v.id = $1 AND v.version = $2
                AND EXISTS (SELECT 1 FROM control.duties d WHERE d.name = $3 AND d.epoch = $4 AND d.expires_at > now())
            RETURNING {COLUMNS}""",
        volume.id,
        volume.version,
        held.name,
        held.epoch,
        *values,
    )
    return None if row is None else volume_of(row)


async def retire_spares(db: Session, type: str, count: int, reason: str, *, older_than: float | None = None) -> int:
    """Delete idle spares of a type, oldest first; returns how many. Those that are being claimed are skipped."""
    done = await db.execute(
        """UPDATE control.volumes SET state = 'deleting', reason = $3, version = version + 1
           WHERE id IN (SELECT id FROM control.volumes WHERE state = 'ready' AND type = $1
               AND ($4::float8 IS NULL OR ready_at < now() - make_interval(secs => $4))
               ORDER BY created_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        type,
        count,
        reason,
        older_than,
    )
    return int(done.split()[-1])


async def count_old(db: Session, type: str, age: float) -> int:
    """Idle spares that became ready more than ``age`` seconds ago."""
    count = await db.fetchval(
        """SELECT count(*) FROM control.volumes
           WHERE state = 'ready' AND type = $1 AND ready_at < now() - make_interval(secs => $2::float8)""",
        type,
        age,
    )
    return int(count)


async def drop_unasked(db: Session, type: str, count: int) -> int:
    """Delete intents of spares that were never requested from the backend."""
    done = await db.execute(
        """UPDATE control.volumes SET state = 'deleted', gone_at = now(), reason = 'no longer wanted',
               version = version + 1
           WHERE id IN (SELECT id FROM control.volumes WHERE state = 'intent' AND posted_at IS NULL AND type = $1
               AND vnfp IS NULL AND run IS NULL ORDER BY created_at DESC, id DESC LIMIT $2 FOR UPDATE SKIP LOCKED)""",
        type,
        count,
    )
    return int(done.split()[-1])


async def drop_all_unasked(db: Session) -> None:
    """Delete all intents of spares that were never requested from the backend: there is no room for them."""
    await db.execute(
        """UPDATE control.volumes SET state = 'deleted', gone_at = now(), reason = 'no room', version = version + 1
           WHERE state = 'intent' AND posted_at IS NULL AND vnfp IS NULL AND run IS NULL"""
    )


async def make_way(db: Session, demand: Volume) -> str | None:
    """Delete one idle spare of another type, of which there are most, to make room for ``demand``; returns its id. None
    if no spare is left, or if one is being deleted already.
    """
    leaving = await db.fetchval(
        "SELECT id FROM control.volumes WHERE state = 'deleting' AND reason LIKE 'gave way%' LIMIT 1"
    )
    if leaving is not None:
        return str(leaving)
    found = await db.fetchval(
        """UPDATE control.volumes SET state = 'deleting', reason = 'gave way to ' || $2, version = version + 1
           WHERE id = (SELECT v.id FROM control.volumes v WHERE v.state = 'ready'
               AND NOT (v.type = $1 AND v.size_gb >= $3)
               ORDER BY (SELECT count(*) FROM control.volumes w WHERE w.state = 'ready' AND w.type = v.type) DESC,
                   v.created_at, v.id LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING id""",
        demand.type,
        demand.id,
        demand.size_gb,
    )
    return _text(found)


async def purge_old(db: Session) -> None:
    """Delete rows of volumes and VNFs that have been gone for KEPT_FOR."""
    await db.execute(
        f"DELETE FROM control.vnfps WHERE state = 'deleted' AND deleted_at < now() - interval '{KEPT_FOR}'"
    )
    await db.execute(
        f"""DELETE FROM control.volumes v WHERE v.gone_at < now() - interval '{KEPT_FOR}'
            AND NOT EXISTS (SELECT 1 FROM control.vnfps n WHERE n.volume_id = v.id)"""
    )
