"""SQL of VNFs and of lists of volumes."""

# ruff: noqa: S608 - only constants of these modules stand in the text; every value is a parameter

from collections.abc import Sequence
from typing import Any

from proctor_common.states import VnfpState
from proctor_controller.db.pool.volumes import VOLUMES
from proctor_controller.db.session import Row, Session, clean
from proctor_controller.domain.volumes.volume import Volume

_SHOWN = VOLUMES.only(
    "id", "name", "type", "size_gb", "state", "from_pool", "backend_id", "vnfp", "run", "reason", "created_at"
)
_VOLUME = ", ".join(f"v.{column.name} AS v_{column.name}" for column in _SHOWN)
_VNFPS = f"""SELECT n.id, n.name, n.type, n.size_gb, n.state, n.reason, n.created_at, {_VOLUME}
    FROM control.vnfps n JOIN control.volumes v ON v.id = n.volume_id"""
_SEEN = """($1::text[] IS NULL OR EXISTS (
    SELECT 1 FROM control.runs r WHERE r.id = v.run AND r.group_name = ANY($1)))"""


async def load_vnfps(db: Session, ids: Sequence[str]) -> list[Row]:
    """The VNFs of these ids, each with its volume (``v_…``)."""
    return await db.fetch(f"{_VNFPS} WHERE n.id = ANY($1::uuid[])", list(ids))


async def list_vnfps(db: Session, *, state: str | None, after: str | None, limit: int) -> list[Row]:
    """VNFs, newest first, after the id ``after``; deleted ones only if ``state`` asks for them."""
    return await db.fetch(
        f"""{_VNFPS} WHERE ($1::text IS NULL AND n.state <> 'deleted' OR n.state = $1)
            AND ($2::uuid IS NULL OR n.id < $2) ORDER BY n.id DESC LIMIT $3""",
        state,
        after,
        limit,
    )


async def list_volumes(
    db: Session, *, groups: Sequence[str] | None, state: str | None, type: str | None, after: str | None, limit: int
) -> list[Row]:
    """Volumes, newest first, after the id ``after``; deleted ones only if ``state`` asks for them. ``groups``: only
    those of runs of these groups.
    """
    return await db.fetch(
        f"""SELECT {_VOLUME} FROM control.volumes v WHERE {_SEEN}
            AND ($2::text IS NULL AND v.state <> 'deleted' OR v.state = $2)
            AND ($3::text IS NULL OR v.type = $3) AND ($4::uuid IS NULL OR v.id < $4)
            ORDER BY v.id DESC LIMIT $5""",
        None if groups is None else list(groups),
        state,
        type,
        after,
        limit,
    )


async def load_volume_row(db: Session, volume: str) -> Row | None:
    """One volume, for a view."""
    row: Row | None = await db.fetchrow(f"SELECT {_VOLUME} FROM control.volumes v WHERE v.id = $1", volume)
    return row


async def release_volume(db: Session, volume: str) -> bool:
    """Delete a volume that a run has retained; False if it is not retained."""
    done = await db.execute(
        """UPDATE control.volumes SET state = 'deleting', reason = 'deleted by hand', version = version + 1
           WHERE id = $1 AND retain AND state IN ('creating', 'claimed', 'in_use')""",
        volume,
    )
    return done.endswith(" 1")


async def delete_vnfp(db: Session, vnfp: str) -> bool:
    """Begin to delete a VNF and its volume; False if there is no such VNF (any more)."""
    async with db.transaction():
        # Lock volumes first, as the keeper does: otherwise they could deadlock.
        await db.execute("SELECT 1 FROM control.volumes WHERE vnfp = $1 ORDER BY id FOR UPDATE", vnfp)
        found: Any = await db.fetchval(
            """WITH gone AS (
                UPDATE control.vnfps SET reason = '', state = CASE WHEN EXISTS (
                        SELECT 1 FROM control.volumes v WHERE v.id = volume_id AND v.state IN
                            ('intent', 'creating', 'claimed', 'in_use', 'deleting'))
                    THEN 'deleting' ELSE 'deleted' END,
                    deleted_at = now()
                WHERE id = $1 AND state IN ('creating', 'active', 'error') RETURNING id, volume_id
            ), ended AS (
                UPDATE control.volumes v SET state = 'deleting', reason = 'its VNF was deleted', version = v.version + 1
                FROM gone g WHERE v.vnfp = g.id AND v.state IN ('intent', 'creating', 'claimed', 'in_use')
            )
            SELECT coalesce((SELECT id FROM gone),
                (SELECT id FROM control.vnfps WHERE id = $1 AND state = 'deleting'))""",
            vnfp,
        )
    return found is not None


async def tell_vnfp(db: Session, volume: Volume, state: VnfpState, reason: str = "") -> None:
    """Set the VNF of a volume to active or error, if it still waits for or has that volume."""
    old = ("creating",) if state is VnfpState.ACTIVE else ("creating", "active")
    await db.execute(
        "UPDATE control.vnfps SET state = $3, reason = $4 WHERE id = $1 AND volume_id = $2 AND state = ANY($5)",
        volume.vnfp,
        volume.id,
        state.value,
        clean(reason, 500),
        list(old),
    )


async def end_vnfp(db: Session, volume: Volume) -> None:
    """The volume of a VNF that is being deleted is gone: so is the VNF."""
    await db.execute(
        "UPDATE control.vnfps SET state = 'deleted', deleted_at = now() WHERE id = $1 AND state = 'deleting'",
        volume.vnfp,
    )


async def point_vnfp(db: Session, failed: Volume, fresh: str) -> None:
    """Let a VNF wait for another volume than the failed one."""
    await db.execute(
        """UPDATE control.vnfps SET volume_id = $3, state = 'creating', reason = $4
           WHERE id = $1 AND volume_id = $2 AND state IN ('creating', 'active')""",
        failed.vnfp,
        failed.id,
        fresh,
        clean(f"another volume is made: {failed.reason}", 500),
    )


async def explain_wait(db: Session, vnfp: str, reason: str) -> None:
    """Store what a VNF waits for."""
    await db.execute(
        "UPDATE control.vnfps SET reason = $2 WHERE id = $1 AND state = 'creating' AND reason <> $2",
        vnfp,
        clean(reason, 500),
    )
