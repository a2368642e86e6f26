"""SQL of pools: targets, stocks, statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctor_controller.db.session import Session
from proctor_controller.domain.volumes.refill import BUCKETS, Stock
from proctor_controller.domain.volumes.settings import PoolType


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A volume type in the pool: its target, its volumes, its use."""

    type: str
    size_gb: int
    target: int
    file_target: int
    version: int
    listed: bool
    ready: int
    creating: int
    intent: int
    failed: int
    leaked: int
    claims: int
    hits: int
    histogram: Sequence[int]

    @property
    def stock(self) -> Stock:
        """The input of the refill; a type that is no longer listed has target 0."""
        return Stock(self.type, self.target if self.listed else 0, self.ready, self.creating, self.intent)


_POOLS = """
SELECT p.*, coalesce(c.ready, 0) AS ready, coalesce(c.creating, 0) AS creating, coalesce(c.intent, 0) AS intent,
    coalesce(c.leaked, 0) AS leaked, coalesce(f.failed, 0) AS failed
FROM control.pools p LEFT JOIN (
    SELECT type, count(*) FILTER (WHERE state = 'ready') AS ready,
        count(*) FILTER (WHERE state = 'creating' AND vnfp IS NULL AND run IS NULL) AS creating,
        count(*) FILTER (WHERE state = 'intent' AND vnfp IS NULL AND run IS NULL) AS intent,
        count(*) FILTER (WHERE state = 'leaked') AS leaked
    FROM control.volumes WHERE gone_at IS NULL GROUP BY type
) c USING (type) LEFT JOIN (
    SELECT type, count(*) AS failed FROM control.volumes
    WHERE state = 'failed' AND (gone_at IS NULL OR gone_at > now() - interval '1 day') GROUP BY type
) f USING (type)
ORDER BY type
"""


async def load_pools(db: Session) -> list[PoolRow]:
    """All types, by name, including those that the file no longer lists."""
    names = PoolRow.__dataclass_fields__
    return [PoolRow(**{name: row[name] for name in names}) for row in await db.fetch(_POOLS)]


async def load_sizes(db: Session) -> dict[str, int]:
    """Type -> size in GB, for types that can be requested."""
    return {
        row["type"]: row["size_gb"] for row in await db.fetch("SELECT type, size_gb FROM control.pools WHERE listed")
    }


_LISTED = """(type, size_gb, target, file_target)
    SELECT type, size, target, target FROM unnest($1::text[], $2::integer[], $3::integer[]) AS f (type, size, target)"""


def _arguments(types: Mapping[str, PoolType]) -> tuple[list[str], list[int], list[int]]:
    """The arguments of _LISTED."""
    listed = types.values()
    return [each.name for each in listed], [each.size_gb for each in listed], [each.target for each in listed]


async def apply_types(db: Session, types: Mapping[str, PoolType]) -> None:
    """Apply the file to the pools. A target that was set by hand is kept until the file's own value changes."""
    await db.execute(
        f"""INSERT INTO control.pools AS p {_LISTED}
           ON CONFLICT (type) DO UPDATE SET listed = true, size_gb = excluded.size_gb,
               target = CASE WHEN p.file_target = excluded.file_target THEN p.target ELSE excluded.target END,
               file_target = excluded.file_target, version = p.version + 1, updated_at = now()
           WHERE NOT p.listed OR p.size_gb <> excluded.size_gb OR p.file_target <> excluded.file_target""",
        *_arguments(types),
    )
    await db.execute(
        """UPDATE control.pools SET listed = false, version = version + 1, updated_at = now()
           WHERE listed AND NOT type = ANY($1)""",
        [each.name for each in types.values()],
    )


async def add_types(db: Session, types: Mapping[str, PoolType]) -> None:
    """Make pools for new types, so that a controller that has just started knows them."""
    await db.execute(f"INSERT INTO control.pools {_LISTED} ON CONFLICT DO NOTHING", *_arguments(types))


async def put_target(db: Session, type: str, target: int) -> bool:
    """Set a target by hand; False if there is no such type."""
    done = await db.execute(
        """UPDATE control.pools SET target = $2, version = version + 1, updated_at = now()
           WHERE type = $1 AND listed""",
        type,
        target,
    )
    return done.endswith(" 1")


async def count_volumes(db: Session) -> int:
    """How many volumes the backend has, or may have."""
    return int(await db.fetchval("SELECT count(*) FROM control.volumes WHERE gone_at IS NULL"))


async def add_figures(db: Session, figures: Sequence[tuple[str, int, int, Sequence[int]]]) -> None:
    """Add claims to the statistics: (type, claims, hits, counts by bucket)."""
    for type, claims, hits, counts in figures:
        await db.execute(
            """UPDATE control.pools SET claims = claims + $2, hits = hits + $3, histogram = ARRAY(
                   SELECT coalesce(histogram[i], 0) + coalesce(($4::bigint[])[i], 0) FROM generate_series(1, $5) AS i)
               WHERE type = $1""",
            type,
            claims,
            hits,
            list(counts),
            len(BUCKETS),
        )


async def load_pool_state(db: Session) -> Any:
    """The pool's single row: installation, reload, held_until, held_reason, and now."""
    return await db.fetchrow("SELECT *, clock_timestamp() AS now FROM control.pool_settings")


async def hold_creation(db: Session, seconds: float, reason: str) -> None:
    """Request no more spares for a while: the quota is used up."""
    await db.execute(
        "UPDATE control.pool_settings SET held_until = now() + make_interval(secs => $1::float8), held_reason = $2",
        seconds,
        reason[:500],
    )


async def end_hold(db: Session) -> None:
    """There is room again, or it is time to try."""
    await db.execute(
        "UPDATE control.pool_settings SET held_until = NULL, held_reason = '' WHERE held_until IS NOT NULL"
    )


async def ask_reload(db: Session) -> None:
    """Make every controller read its file again."""
    await db.execute("UPDATE control.pool_settings SET reload = reload + 1")
