"""SQL of records for the Test API: written with the end of a step, fetched by the api's recorder."""

from collections.abc import Sequence

from proctor_common.messages.views import RecordView
from proctor_controller.db.session import Session

LARGEST = 512 * 1024
"""Bytes of JSON; a larger body is not sent, only the fact that there is one."""

_PENDING = """
SELECT c.id, c.run_id, r.number, r.group_name, c.step_id, c.attempt, s.name, s.instance, coalesce(s.host, '') AS host,
    CASE WHEN octet_length(c.body::text) <= $2 THEN c.body END AS body,
    (SELECT json_agg(json_build_object('key', v.key, 'name', v.name, 'type', v.type, 'size_gb', v.size_gb,
        'id', v.backend_id) ORDER BY v.key) FROM control.volumes v
        WHERE v.run = c.run_id AND v.state NOT IN ('failed', 'leaked')) AS volume
FROM control.records c JOIN control.runs r ON r.id = c.run_id JOIN control.steps s ON s.id = c.step_id
WHERE c.taken_at IS NULL ORDER BY c.id LIMIT $1
"""


async def pending_records(session: Session, limit: int) -> list[RecordView]:
    """Records that nobody has fetched yet, oldest first."""
    return [
        RecordView(
            id=row["id"],
            run=str(row["run_id"]),
            run_number=row["number"],
            group=row["group_name"],
            step=str(row["step_id"]),
            step_name=f"{row['name']}[{row['instance']}]" if row["instance"] else row["name"],
            attempt=row["attempt"],
            host=row["host"] or None,
            volume=row["volume"] or [],
            body=row["body"],
        )
        for row in await session.fetch(_PENDING, limit, LARGEST)
    ]


async def confirm_records(session: Session, ids: Sequence[int]) -> None:
    """Mark them as fetched; no effect on those that are."""
    await session.execute(
        "UPDATE control.records SET taken_at = now() WHERE id = ANY($1::bigint[]) AND taken_at IS NULL", list(ids)
    )
