"""SQL of the audit: who did what, when. Written in the transaction of the action."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_controller.db.session import clean


async def write_audit(
    connection: AsyncConnection,
    *,
    actor: str,
    action: str,
    object: str = "",
    role: str = "",
    token: str | None = None,
    detail: dict[str, Any] | None = None,
) -> tuple[int, datetime]:
    """Add an entry; returns its id and time. ``token``: the token's id, never the token."""
    row = (
        await connection.execute(
            text("""INSERT INTO control.audit (actor, role, token, action, object, detail)
                 VALUES (:actor, :role, :token, :action, :object, :detail) RETURNING id, at"""),
            {
                "actor": clean(actor),
                "role": role,
                "token": token,
                "action": clean(action),
                "object": clean(object),
                "detail": json.dumps(detail or {}).replace(r"\u0000", r"\ufffd"),
            },
        )
    ).one()
    return row.id, row.at


async def list_audit(connection: AsyncConnection, *, before: int, limit: int) -> list[RowMapping]:
    """Entries with an id below ``before``, newest first."""
    query = "SELECT * FROM control.audit WHERE id < :before ORDER BY id DESC LIMIT :limit"
    return list((await connection.execute(text(query), {"before": before, "limit": limit})).mappings())
