"""``run.artefacts``, ``run.artefact``: files that steps left on their targets, listed and read. No SQL."""

import structlog

from proctor_common import subjects
from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.messages.base import BadMessage, Encoded, decode
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import ArtefactList, ArtefactRead
from proctor_common.messages.orders import MAX_PIECE, ReadOrder, ReadOutcome, ReadReply
from proctor_common.messages.pages import ArtefactsPage
from proctor_common.messages.views import ArtefactPiece
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.artefacts import MOST, FoundArtefact, PlaceInRun, find_artefact, list_artefacts
from proctor_controller.db.session import session
from proctor_controller.handlers.access import visible_run

log = structlog.get_logger(__name__)

READ_SECONDS = 10.0
MOST_DIGITS = 9


async def get_artefacts(context: ProcessContext, actor: Actor, body: ArtefactList) -> Encoded[ArtefactsPage]:
    """The files that the run's steps left, in the order of the steps."""
    after = PlaceInRun() if body.cursor is None else _place(body.cursor)
    if after is None:
        raise invalid("is not a cursor of this list", path="cursor")
    view = await visible_run(context, actor, body.run)
    async with session(context.database) as db:
        found = await list_artefacts(db, view.id, after)
    views = [each.view for each in found]
    attempts = len({(each.place.step, each.place.attempt) for each in found})
    following = views[-1].id if views and attempts >= MOST else None
    return ArtefactsPage.of(views, body.limit, lambda last: last.id, following)


async def read_artefact(context: ProcessContext, actor: Actor, body: ArtefactRead) -> ArtefactPiece:
    """A part of one of them, as it is on the target now."""
    place = _place(body.artefact)
    view = await visible_run(context, actor, body.run)
    found = None
    if place is not None:
        async with session(context.database) as db:
            found = await find_artefact(db, view.id, place)
    if found is None:
        raise not_found("artefact", body.artefact[:100])
    reply = await _read(context, found, body.offset)
    if reply.outcome is ReadOutcome.UNREACHABLE:
        raise ProctorError(Code.AGENT_UNAVAILABLE, f"{found.view.host} cannot read it just now: {reply.reason}")
    if reply.outcome is ReadOutcome.GONE or reply.size != found.view.size:
        how = "is gone from" if reply.outcome is ReadOutcome.GONE else "has changed on"
        raise ProctorError(Code.CONFLICT, f"{found.view.path} {how} its target since the step ended")
    return ArtefactPiece(artefact=found.view, data=reply.data)


async def _read(context: ProcessContext, found: FoundArtefact, offset: int) -> ReadReply:
    length = max(0, min(MAX_PIECE, found.view.size - offset))
    order = ReadOrder(target=found.target, path=found.view.path, offset=offset, length=length)
    try:
        subject = subjects.order(found.agent, "read")
        return decode(ReadReply, await context.bus.request(subject, order.encode(), timeout=READ_SECONDS))
    except (BusError, BadMessage) as fault:
        host = found.view.host or "the host"
        log.info("artefact_not_read", host=host, error=str(fault))
        raise ProctorError(
            Code.AGENT_UNAVAILABLE, f"{host} keeps the file, and its agent does not answer: try again when it is back"
        ) from None


def _place(text: str) -> PlaceInRun | None:
    parts = text.split("-")
    if len(parts) != len(PlaceInRun._fields):
        return None
    if not all(part.isascii() and part.isdecimal() and len(part) <= MOST_DIGITS for part in parts):
        return None
    return PlaceInRun(*(int(part) for part in parts))
