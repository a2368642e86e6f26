"""SQL of volumes: reading them, storing intents, guarded updates."""

# ruff: noqa: S608 - only constants of these modules stand in the text; every value is a parameter

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proctor_common.ids import new_id
from proctor_common.states import VolumeState
from proctor_controller.db.column import CHANGING, Column, Columns, When, maybe_text, member_of, reader
from proctor_controller.db.duties import Held
from proctor_controller.db.session import Row, Session, clean
from proctor_controller.domain.volumes.volume import VOLUME_TRANSITIONS, Volume

READ = When.READ
VOLUMES = Columns(
    (
        Column("id", "uuid", READ, read=str),
        Column("type", "text", READ),
        Column("size_gb", "integer", READ),
        Column("name", "text", READ),
        Column("named", "text", CHANGING),
        Column("state", "text", CHANGING, read=member_of(VolumeState)),
        Column("from_pool", "boolean", READ),
        Column("backend_id", "text", CHANGING),
        Column("path", "text", CHANGING),
        Column("vnfp", "uuid", CHANGING, read=maybe_text),
        Column("run", "uuid", READ, read=maybe_text),
        Column("key", "text", READ),
        Column("retain", "boolean", CHANGING),
        Column("tries", "integer", READ),
        Column("evictions", "integer", CHANGING),
        Column("reason", "text", CHANGING),
        Column("created_at", "timestamptz", READ),
        Column("posted_at", "timestamptz", READ),
        Column("gone_at", "timestamptz", READ),
        Column("version", "bigint", READ),
    )
)
"""Of a :class:`Volume`."""
COLUMNS = VOLUMES.select("v") + ", clock_timestamp() AS now"
volume_of: Callable[[Row], Volume] = reader(Volume, Columns((*VOLUMES, Column("now", "timestamptz", READ))))
"""A volume from a row with COLUMNS."""
WORK = """(v.state IN ('intent', 'creating', 'claimed', 'deleting')
    OR (v.state = 'failed' AND v.gone_at IS NULL) OR (v.state = 'in_use' AND v.name <> v.named))"""
KEPT_FOR = "7 days"
"""How long the rows of volumes that are gone are kept."""


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


async def insert_volume(db: Session, **values: Any) -> str:
    """Store an intent for a volume with these values of its columns; returns its id."""
    fresh, columns = new_id(), VOLUMES.only("id", *values)
    await db.execute(
        f"""INSERT INTO control.volumes ({columns.names}, state, from_pool)
            VALUES ({columns.insert_arguments(1)}, 'intent', false)""",
        fresh,
        *values.values(),
    )
    return fresh


async def insert_again(db: Session, failed: Volume) -> str:
    """Store an intent for another volume in place of a failed one; returns its id."""
    kept = {name: getattr(failed, name) for name in ("type", "size_gb", "name", "vnfp", "run", "key")}
    return await insert_volume(db, **kept, tries=failed.tries + 1)


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
    sets = [VOLUMES.at(When.UPDATE).only(*changes).set_arguments(5)] if changes else []
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
    return maybe_text(found)


async def purge_old(db: Session) -> None:
    """Delete rows of volumes and VNFs that have been gone for KEPT_FOR."""
    await db.execute(
        f"DELETE FROM control.vnfps WHERE state = 'deleted' AND deleted_at < now() - interval '{KEPT_FOR}'"
    )
    await db.execute(
        f"""DELETE FROM control.volumes v WHERE v.gone_at < now() - interval '{KEPT_FOR}'
            AND NOT EXISTS (SELECT 1 FROM control.vnfps n WHERE n.volume_id = v.id)"""
    )
