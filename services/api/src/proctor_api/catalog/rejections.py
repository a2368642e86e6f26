"""SQL of rejections: records that could not be stored, kept with the reason until they can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.messages.views import RecordView
from proctor_common.pg import Session, session

MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that could not be stored. ``at``: when, ISO 8601 in UTC."""

    item: RecordView
    reason: str
    at: str

    def view(self) -> dict[str, Any]:
        """As users see it."""
        item = self.item
        about = {"run": item.run, "run_number": item.run_number, "step": item.step_name, "attempt": item.attempt}
        return {"id": item.id, **about, "reason": self.reason, "rejected_at": self.at, "record": item.body}


class Rejections:
    """Raises ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, item: RecordView, reason: str) -> bool:
        """Store a rejection, or its newest reason. Returns whether it is new. No effect if the result is stored."""
        text = to_json(item).decode()
        async with session(self._engine) as connection:
            new = await connection.fetchval(
                "INSERT INTO catalog.rejections AS r (run, step, attempt, id, owner_group, item, reason)"
                " SELECT $1, $2, $3, $4, $5, $6::text::json, $7 WHERE NOT EXISTS"
                " (SELECT FROM catalog.results WHERE run = $1 AND step = $2 AND attempt = $3)"
                " ON CONFLICT (run, step, attempt) DO UPDATE SET reason = EXCLUDED.reason RETURNING xmax = 0",
                item.run,
                item.step,
                item.attempt,
                item.id,
                item.group,
                text,
                reason.replace("\0", "\ufffd")[:MAX_REASON],
            )
        return bool(new)

    async def settle(self, connection: Session, item: RecordView) -> None:
        """Delete the rejection of a record that is stored now."""
        await connection.execute(
            "DELETE FROM catalog.rejections WHERE run = $1 AND step = $2 AND attempt = $3",
            item.run,
            item.step,
            item.attempt,
        )

    async def list(self, groups: Sequence[str] | None, after: int, limit: int) -> list[Rejection]:
        """Rejections with an id above ``after``, oldest first; ``groups`` None: of any group."""
        async with session(self._engine) as connection:
            rows = await connection.fetch(
                "SELECT item::text AS item, reason, at"
                " FROM catalog.rejections WHERE id > $1 AND ($2::text[] IS NULL OR owner_group = ANY($2))"
                " ORDER BY id LIMIT $3",
                after,
                None if groups is None else list(groups),
                limit,
            )
        return [
            Rejection(RecordView.model_validate_json(row["item"]), row["reason"], row["at"].isoformat()) for row in rows
        ]

    async def count(self) -> int:
        """The number of rejections."""
        async with session(self._engine) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM catalog.rejections"))
