"""``run.events``: state changes of one run, or of all that the caller may see. No SQL."""

from collections.abc import Mapping

from proctor_common.errors import invalid
from proctor_common.messages.calls import Actor, EventList
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.views import events_of_all, events_of_run
from proctor_controller.db.session import session
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.pages import page
from proctor_controller.handlers.runs.views import find_visible

MAX_CURSOR = 2**63 - 1
MAX_SEQ = 2**31 - 1


async def get_events(context: ProcessContext, actor: Actor, body: EventList) -> bytes:
    """Events, the oldest first; ``next`` is there while there may be more at once."""
    if body.run is None:
        if not 0 <= body.after <= MAX_CURSOR:
            raise invalid("is out of range", path="after")
        async with session(context.database) as db:
            found = await events_of_all(db, body.after, actor.groups, body.limit)
        return page(found.events, body.limit, lambda view: str(view.cursor), following=found.next)
    if not 0 <= body.after <= MAX_SEQ:
        raise invalid("is out of range", path="after")
    view = await find_visible(context, body.run, actor.groups)
    async with session(context.database) as db:
        rows = await events_of_run(db, view.id, body.after, body.limit + 1)
    return page(rows, body.limit, lambda row: str(row.seq))


HANDLERS: Mapping[str, CallHandler] = {"run.events": get_events}
