"""Operations on runs that only read: runs, their documents, steps, state changes, the index of their logs. No SQL."""

from datetime import UTC, datetime

from proctor_common.errors import invalid, not_found
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import EventList, LogIndex, RunList, RunRef, StepList
from proctor_common.messages.pages import EventsPage, RunPage, StepPage
from proctor_common.messages.views import DocumentView, RunLogIndex, RunView
from proctor_common.states import RunResult, RunState
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.reruns import find_document
from proctor_controller.db.runs.views import (
    RunFilter,
    StepAfter,
    events_of_all,
    events_of_run,
    list_runs,
    list_steps,
    load_log_index,
    parse_key,
)
from proctor_controller.db.session import session
from proctor_controller.handlers.access import key_of, visible_run

MAX_FILTER = 200
MAX_CURSOR = 2**63 - 1
MAX_SEQ = 2**31 - 1


async def get_run(context: ProcessContext, actor: Actor, body: RunRef) -> RunView:
    """One run."""
    return await visible_run(context, actor, body.run)


async def get_document(context: ProcessContext, actor: Actor, body: RunRef) -> DocumentView:
    """The exact text that a run was made from."""
    async with session(context.database) as db:
        view = await find_document(db, key_of(body.run), actor.groups)
    if view is None:
        raise not_found("run", body.run)
    return view


async def get_log_index(context: ProcessContext, actor: Actor, body: LogIndex) -> RunLogIndex:
    """A page of what a tail of the run works from."""
    async with session(context.database) as db:
        index = await load_log_index(db, key_of(body.run), actor.groups, body.after)
    if index is None:
        raise not_found("run", body.run)
    return index


async def get_runs(context: ProcessContext, actor: Actor, body: RunList) -> Encoded[RunPage]:
    """Runs, newest first."""
    wanted = RunFilter(
        state=_word(body.state, RunState, "state"),
        result=_word(body.result, RunResult, "result"),
        plan=_text(body.plan, "plan"),
        host=_text(body.host, "host"),
        group=_text(body.group, "group"),
        since=_moment(body.since),
        before=_number(body.cursor),
    )
    async with session(context.database) as db:
        views = await list_runs(db, wanted, actor.groups, body.limit + 1)
    return RunPage.of(views, body.limit, lambda view: str(view.number))


def _word(text: str | None, words: type[RunState] | type[RunResult], path: str) -> str | None:
    if text is None:
        return None
    known = [word.value for word in words]
    if text not in known:
        raise invalid(f"must be one of {', '.join(known)}", path=path)
    return text


def _text(text: str | None, path: str) -> str | None:
    if text is not None and ("\0" in text or len(text) > MAX_FILTER):
        raise invalid(f"must have at most {MAX_FILTER} characters and no NUL", path=path)
    return text


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("is not a time: give it as 2026-12-01T10:00:00Z", path="since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    key = parse_key(cursor)
    if key is None or key.number is None:
        raise invalid("is not a cursor of this list", path="cursor")
    return key.number


async def get_steps(context: ProcessContext, actor: Actor, body: StepList) -> Encoded[StepPage]:
    """The steps of a run, in document order."""
    after = _step_after(body.cursor)
    view = await visible_run(context, actor, body.run)
    async with session(context.database) as db:
        rows = await list_steps(db, view.id, attempts=body.attempts, after=after, limit=body.limit + 1)
    at = {id(step): place for place, step in rows}
    return StepPage.of(
        [step for _, step in rows], body.limit, lambda step: f"{at[id(step)].idx}.{at[id(step)].attempt}"
    )


def _step_after(cursor: str | None) -> StepAfter:
    if cursor is None:
        return StepAfter()
    idx, _, attempt = cursor.partition(".")
    numbers = (idx, attempt)
    if not all(n.isascii() and n.isdecimal() and len(n) <= 9 for n in numbers):
        raise invalid("is not a cursor of this list", path="cursor")
    return StepAfter(int(idx), int(attempt))


async def get_events(context: ProcessContext, actor: Actor, body: EventList) -> Encoded[EventsPage]:
    """Events, oldest first; ``next`` is set while there may be more at once."""
    if body.run is None:
        if not 0 <= body.after <= MAX_CURSOR:
            raise invalid("is out of range", path="after")
        async with session(context.database) as db:
            found = await events_of_all(db, body.after, actor.groups, body.limit)
        return EventsPage.of(found.events, body.limit, lambda view: str(view.cursor), following=found.next)
    if not 0 <= body.after <= MAX_SEQ:
        raise invalid("is out of range", path="after")
    view = await visible_run(context, actor, body.run)
    async with session(context.database) as db:
        rows = await events_of_run(db, view.id, body.after, body.limit + 1)
    return EventsPage.of(rows, body.limit, lambda row: str(row.seq))
