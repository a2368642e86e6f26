"""``record.pending`` and ``record.confirm``: what the api's recorder takes into the Test API. No SQL."""

from collections.abc import Mapping

from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls import Actor, RecordsConfirm, RecordsPending
from proctor_common.states import Role
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.records import confirm_records, pending_records
from proctor_controller.db.session import session
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.pages import page


async def get_pending(context: ProcessContext, actor: Actor, body: RecordsPending) -> bytes:
    """``record.pending``: what is there stays until it is confirmed, so a lost answer loses nothing."""
    _require_service(actor)
    async with session(context.database) as db:
        found = await pending_records(db, body.limit + 1)
    return page(found, body.limit, lambda view: str(view.id))


async def confirm(context: ProcessContext, actor: Actor, body: RecordsConfirm) -> bytes:
    """``record.confirm``"""
    _require_service(actor)
    async with session(context.database) as db:
        await confirm_records(db, body.ids)
    return b"{}"


def _require_service(actor: Actor) -> None:
    if actor.role is not Role.ADMIN or actor.groups is not None:
        raise ProctorError(Code.FORBIDDEN, "records are taken by the api itself")


HANDLERS: Mapping[str, CallHandler] = {"record.pending": get_pending, "record.confirm": confirm}
"""Operations on records."""
