"""``run.document``: the exact text that a run was made from. No SQL."""

from collections.abc import Mapping

from proctor_common.errors import not_found
from proctor_common.messages.calls import Actor, RunRef
from proctor_common.messages.views import DocumentView
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.documents import find_document
from proctor_controller.db.session import session
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.runs.views import key_of


async def get_document(context: ProcessContext, actor: Actor, body: RunRef) -> DocumentView:
    """``run.document``"""
    async with session(context.database) as db:
        view = await find_document(db, key_of(body.run), actor.groups)
    if view is None:
        raise not_found("run", body.run)
    return view


HANDLERS: Mapping[str, CallHandler] = {"run.document": get_document}
