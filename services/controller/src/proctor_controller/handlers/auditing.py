"""Writing down what a caller has done."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common.messages.calls.operation import Actor
from proctor_controller.db.audit import write_audit


async def note(
    connection: AsyncConnection, actor: Actor, action: str, object: str, detail: dict[str, Any] | None = None
) -> None:
    """Write the deed into the audit, in its own transaction."""
    await write_audit(
        connection,
        actor=actor.name,
        role=actor.role.value,
        token=actor.token,
        action=action,
        object=object,
        detail=detail,
    )
