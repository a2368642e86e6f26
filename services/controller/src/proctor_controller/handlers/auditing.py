"""Writes a caller's actions into the audit."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common.messages.calls.operation import Actor
from proctor_controller.db.audit import write_audit


async def note(
    connection: AsyncConnection, actor: Actor, action: str, object: str, detail: dict[str, Any] | None = None
) -> None:
    """Write an action into the audit, in a transaction of its own."""
    await write_audit(
        connection,
        actor=actor.name,
        role=actor.role.value,
        token=actor.token,
        action=action,
        object=object,
        detail=detail,
    )
