"""The three websockets: the log of a run, its state changes, and the state changes of all runs."""

import base64
from collections.abc import AsyncIterator

from starlette.websockets import WebSocket

from proctor_api.auth import Caller
from proctor_api.context import ApiContext
from proctor_api.logs import frames
from proctor_api.logs.cursor import BadCursor, Cursor, binding, decode, encode
from proctor_api.logs.feeds import Feed
from proctor_api.logs.index import load_index, require_step
from proctor_api.logs.viewer import Kind, Viewer
from proctor_api.sockets import TooSlow, parameter, serve
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls.runs import LIST_EVENTS, EventList
from proctor_common.messages.views import EventView, RunLogIndex
from proctor_common.states import RunState

QUIET = 1.0
"""Seconds without an event after which a websocket checks whether a heartbeat is due."""


async def tail_log(socket: WebSocket) -> None:
    """``WS /v1/runs/{run}/logs/tail?after=&step=``."""

    async def texts(context: ApiContext, caller: Caller) -> AsyncIterator[str | None]:
        step, after = parameter(socket, "step"), parameter(socket, "after")
        index = await _index(context, caller, socket)
        await _require_step(context, caller, index, step)
        async with context.feeds.open(index.run) as feed:
            viewer = Viewer(feed, context.bus, step=step)
            await viewer.open(after)
            counted = context.figures.log_bytes
            async for frame in viewer.frames():
                if frame.piece is not None:
                    counted.inc(len(frame.piece.chunk.data))
                yield None if frame.kind is Kind.IDLE else frame.text

    await serve(socket, texts)


async def tail_run_events(socket: WebSocket) -> None:
    """``WS /v1/runs/{run}/events?after=``: every state change of one run, then ``end``."""

    async def texts(context: ApiContext, caller: Caller) -> AsyncIterator[str | None]:
        after = parameter(socket, "after")
        index = await _index(context, caller, socket)
        bound = binding(index.run, "events")
        seen = decode(after, bound).event if after is not None else 0
        async with context.feeds.open(index.run) as feed:
            async for event in _events(feed, seen):
                if event is None:
                    if index.state is RunState.FINISHED:
                        # A client that lost its connection just before the end frame resumes after the last event.
                        yield frames.end_frame(index.result)
                        return
                    yield None
                    continue
                yield frames.event_frame(encode(Cursor(event=event.seq), bound), event)
                if event.kind == "run" and event.new == "finished":
                    yield frames.end_frame(event.result)
                    return

    await serve(socket, texts)


async def _events(feed: Feed, seen: int) -> AsyncIterator[EventView | None]:
    """Events of a run with a ``seq`` above ``seen``; None when there are none right now."""
    first = True
    quiet = 0
    while True:
        wakes = feed.wakes
        events: list[EventView] = []
        try:
            # Notifications may be lost: after a long silence, ask a controller.
            events = await feed.events.after(seen, ask=first or quiet >= 15)
            first = False
            quiet = 0 if events or quiet >= 15 else quiet + 1
        except ProctorError:
            if first:
                raise
        for event in events:
            seen = event.seq
            yield event
        if not events:
            yield None
            await feed.wait(wakes, QUIET)


async def tail_all_events(socket: WebSocket) -> None:
    """``WS /v1/events?after=``: the state changes of all runs that the caller may see, from now on or from a cursor."""

    async def texts(context: ApiContext, caller: Caller) -> AsyncIterator[str | None]:
        after = _global_cursor(parameter(socket, "after"))
        subscriber = context.watch.subscribe()
        try:
            seen: dict[str, int] = {}
            while after is not None:
                began = after
                page = await context.controllers.ask(LIST_EVENTS, caller.actor, EventList(after=after))
                for event in page.items:
                    after = max(after, event.cursor)
                    seen[event.run] = event.seq
                    yield frames.event_frame(_global_text(event.cursor), event)
                if page.next is None or not page.next.isdecimal() or int(page.next) <= began:
                    break
                # A page may hold no event that the caller may see.
                after = int(page.next)
            while True:
                got = await subscriber.next(QUIET)
                if subscriber.late:
                    raise TooSlow
                if got is None:
                    yield None
                    continue
                group, event = got
                if event.seq <= seen.get(event.run, 0) or not caller.actor.sees(group):
                    continue
                yield frames.event_frame(_global_text(event.cursor), event)
        finally:
            context.watch.unsubscribe(subscriber)

    await serve(socket, texts)


def _global_text(cursor: int) -> str:
    return base64.urlsafe_b64encode(b"E" + cursor.to_bytes(8)).rstrip(b"=").decode()


def _global_cursor(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise BadCursor("not a cursor") from None
    if len(data) != 9 or data[:1] != b"E" or data[1] >= 0x80:
        raise BadCursor("not a cursor")
    return int.from_bytes(data[1:])


async def _index(context: ApiContext, caller: Caller, socket: WebSocket) -> RunLogIndex:
    """The attempts of the run. Raises 404 if the caller may not see it."""
    run = socket.path_params["run"]
    return await load_index(context.controllers, caller.actor, run)


async def _require_step(context: ApiContext, caller: Caller, index: RunLogIndex, step: str | None) -> None:
    """Raises 400 for a step that the run does not have: close code 4404 means that the run is unknown."""
    try:
        await require_step(context.controllers, caller.actor, index, step)
    except ProctorError as fault:
        if fault.details.get("what") != "step":
            raise
        raise ProctorError(Code.BAD_REQUEST, fault.message) from fault
