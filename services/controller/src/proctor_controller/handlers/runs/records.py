"""``record.pending`` and ``record.confirm``: records that the api's recorder moves into the Test API. No SQL."""

from proctor_common.errors import Code, ProctorError
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import RecordsConfirm, RecordsPending
from proctor_common.messages.pages import RecordPage
from proctor_common.messages.views import Done
from proctor_common.states import Role
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.records import confirm_records, pending_records
from proctor_controller.db.session import session


async def get_pending(context: ProcessContext, actor: Actor, body: RecordsPending) -> Encoded[RecordPage]:
    """``record.pending``: records stay until they are confirmed, so a lost answer loses nothing."""
    _require_service(actor)
    async with session(context.database) as db:
        found = await pending_records(db, body.limit + 1)
    return RecordPage.of(found, body.limit, lambda view: str(view.id))


async def confirm(context: ProcessContext, actor: Actor, body: RecordsConfirm) -> Done:
    """``record.confirm``"""
    _require_service(actor)
    async with session(context.database) as db:
        await confirm_records(db, body.ids)
    return Done()


def _require_service(actor: Actor) -> None:
    if actor.role is not Role.ADMIN or actor.groups is not None:
        raise ProctorError(Code.FORBIDDEN, "records are taken by the api itself")
