"""SQL of webhooks: one outbox row for each run, added by a trigger in the transaction that ends the run."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_controller.db.session import clean

_OF_ONE_URL = 4
"""Deliveries to one URL at once, so that a receiver that hangs does not block all the others."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A call to be made."""

    id: str
    run: str
    url: str
    tries: int
    sealed: str | None
    """The run's sealed values, among them the secret."""
    signed: bool
    age_s: float
    """Since the run's end."""


async def load_due(connection: AsyncConnection, limit: int) -> list[Delivery]:
    """Calls to be made now, longest due first."""
    rows = await connection.execute(
        text("""SELECT w.*, r.sealed, coalesce((r.wants #>> '{webhook,signed}')::boolean, false) AS signed
             FROM (SELECT id, run_id, url, tries, next_at,
                     extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s,
                     row_number() OVER (PARTITION BY url ORDER BY next_at) AS place
                   FROM control.webhooks WHERE state = 'waiting' AND next_at <= clock_timestamp()) w
             JOIN control.runs r ON r.id = w.run_id
             WHERE w.place <= :most ORDER BY w.next_at LIMIT :limit"""),
        {"most": _OF_ONE_URL, "limit": limit},
    )
    return [
        Delivery(
            id=str(row.id),
            run=str(row.run_id),
            url=row.url,
            tries=row.tries,
            sealed=row.sealed,
            signed=row.signed,
            age_s=row.age_s,
        )
        for row in rows
    ]


async def mark_taken(connection: AsyncConnection, delivery: Delivery, status: int) -> bool:
    """The receiver accepted it; False if another controller has stored the outcome of this try."""
    done = await connection.execute(
        text("""UPDATE control.webhooks SET state = 'taken', tries = tries + 1, status = :status, reason = '',
             ended_at = now() WHERE id = :id AND state = 'waiting' AND tries = :tries"""),
        {"id": delivery.id, "tries": delivery.tries, "status": status},
    )
    return bool(done.rowcount)


async def mark_failed(
    connection: AsyncConnection, delivery: Delivery, *, status: int | None, reason: str, again_in: timedelta | None
) -> bool:
    """The receiver did not accept it: repeat it, or (None) give up. False: as for :func:`mark_taken`."""
    done = await connection.execute(
        text("""UPDATE control.webhooks SET tries = tries + 1, status = :status, reason = :reason,
               state = CASE WHEN :again THEN 'waiting' ELSE 'given_up' END,
               ended_at = CASE WHEN :again THEN NULL ELSE now() END,
               next_at = clock_timestamp() + make_interval(secs => :seconds)
             WHERE id = :id AND state = 'waiting' AND tries = :tries"""),
        {
            "id": delivery.id,
            "tries": delivery.tries,
            "status": status,
            "reason": clean(reason, 500),
            "again": again_in is not None,
            "seconds": 0.0 if again_in is None else again_in.total_seconds(),
        },
    )
    return bool(done.rowcount)
