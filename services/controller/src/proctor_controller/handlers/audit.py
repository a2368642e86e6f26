"""Operations on the audit, and the round trip for readiness. No SQL."""

import json

from proctor_common.errors import Code, ProctorError, invalid
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.audit import AuditAdd, AuditList, PingRequest
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.pages import AuditPage
from proctor_common.messages.views import AuditView, Done
from proctor_common.pg import check_database, transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db import audit as rows

MAX_DETAIL = 16 * 1024
MAX_ID = 2**63 - 1


async def add_audit(context: ProcessContext, actor: Actor, body: AuditAdd) -> AuditView:
    """``audit.add``"""
    if len(body.action) > 100 or len(body.object) > 300 or len(json.dumps(body.detail)) > MAX_DETAIL:
        raise invalid(f"an entry has an action of 100, an object of 300 and a detail of {MAX_DETAIL} characters")
    async with transaction(context.database) as connection:
        number, at = await rows.write_audit(
            connection,
            actor=actor.name,
            role=actor.role.value,
            token=actor.token,
            action=body.action,
            object=body.object,
            detail=body.detail,
        )
    return AuditView(
        id=number,
        at=at,
        actor=actor.name,
        role=actor.role.value,
        action=body.action,
        object=body.object,
        detail=body.detail,
    )


async def list_audit(context: ProcessContext, actor: Actor, body: AuditList) -> Encoded[AuditPage]:
    """``audit.list``: newest first; the cursor is the last entry's number. Not for tokens bound to groups."""
    if actor.groups is not None:
        raise ProctorError(Code.FORBIDDEN, "a token bound to groups may not read the audit")
    before = body.cursor or str(MAX_ID)
    if not (before.isascii() and before.isdecimal() and len(before) <= 19 and int(before) <= MAX_ID):
        raise invalid("cursor: not one of this list", path="cursor")
    async with transaction(context.database) as connection:
        found = await rows.list_audit(connection, before=int(before), limit=body.limit + 1)
    return AuditPage.of([AuditView.model_validate(dict(row)) for row in found], body.limit, lambda view: str(view.id))


async def ping(context: ProcessContext, actor: Actor, body: PingRequest) -> Done:
    """``ping``: makes a query and returns nothing."""
    await check_database(context.database)
    return Done()
