"""State changes that controllers announce on NATS: one subscription per process, passed to tails and event websockets.

Notifications may be lost. A tail recovers by asking for its run; the websockets for all runs recover when an event's
``seq`` leaves a gap, and by asking the controllers at intervals.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable

import structlog

from proctor_api.controller_client import SELF, ControllerClient
from proctor_common import subjects
from proctor_common.bus import Bus, Message
from proctor_common.errors import ProctorError
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.calls.runs import GET_RUN, LIST_EVENTS, EventList, RunRef
from proctor_common.messages.views import EventView, RunChanged

log = structlog.get_logger(__name__)

Listener = Callable[[RunChanged], None]
WAITING = 1000
REMEMBERED = 10_000
MOST_PAGES = 20


class Subscriber:
    """A websocket that watches all runs. ``queue`` has (group, event); ``late``: an event did not fit into it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str | None, EventView]] = asyncio.Queue(WAITING)
        self.late = False

    def put(self, group: str | None, event: EventView) -> None:
        """Queue an event, or set ``late`` if WAITING are queued."""
        try:
            self.queue.put_nowait((group, event))
        except asyncio.QueueFull:
            self.late = True

    async def next(self, timeout: float) -> tuple[str | None, EventView] | None:
        """The next event with its run's group; None if none came within ``timeout`` seconds."""
        if self.queue.empty():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    return await self.queue.get()
            return None
        return self.queue.get_nowait()


class Watch:
    """The subscription, its listeners per run, and its subscribers to all runs."""

    def __init__(self, bus: Bus, controllers: ControllerClient) -> None:
        self._bus = bus
        self._controllers = controllers
        self._listeners: dict[str, list[Listener]] = {}
        self._subscribers: set[Subscriber] = set()
        self._changes: asyncio.Queue[RunChanged] = asyncio.Queue(WAITING)
        self._seen: OrderedDict[str, tuple[int, str | None]] = OrderedDict()
        self._newest = 0

    async def start(self) -> None:
        """Subscribe. Raises BusError."""
        await self._bus.subscribe(subjects.ALL_WAKES, self._on_wake)

    def add(self, run: str, listener: Listener) -> None:
        """Call ``listener`` for each announced change of a run."""
        self._listeners.setdefault(run, []).append(listener)

    def remove(self, run: str, listener: Listener) -> None:
        """Stop calling it."""
        left = [known for known in self._listeners.get(run, []) if known != listener]
        if left:
            self._listeners[run] = left
        else:
            self._listeners.pop(run, None)

    def subscribe(self) -> Subscriber:
        """A new subscriber to all runs, from now on."""
        subscriber = Subscriber()
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End a subscription."""
        self._subscribers.discard(subscriber)

    def _on_wake(self, message: Message) -> None:
        listeners = self._listeners.get(message.subject.rpartition(".")[2], [])
        if not listeners and not self._subscribers:
            return
        try:
            change = decode(RunChanged, message.data)
        except BadMessage as fault:
            log.warning("bad_wake", subject=message.subject, error=str(fault))
            return
        for listener in list(listeners):
            listener(change)
        if self._subscribers:
            try:
                self._changes.put_nowait(change)
            except asyncio.QueueFull:
                log.warning("wake_dropped", run=change.run)

    # -- all runs -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass changes to the subscribers to all runs, in order and each once; runs until cancelled."""
        while True:
            change = await self._changes.get()
            try:
                await self._hand_on(change.run, change.group, change.events)
            except ProctorError as fault:
                log.warning("events_not_read", run=change.run, error=fault.message)

    async def heal(self, every: float) -> None:
        """Ask for events that were not announced, every ``every`` seconds until cancelled.

        Asks for those since the last turn but one, to find also an event that got its number early and was committed
        late.
        """
        asked = 0
        while True:
            before = self._newest
            await asyncio.sleep(every)
            if self._subscribers and asked:
                try:
                    await self._read_from(asked)
                except ProctorError as fault:
                    log.warning("events_not_read", error=fault.message)
            asked = before

    async def _read_from(self, cursor: int) -> None:
        for _ in range(MOST_PAGES):
            page = await self._controllers.ask(LIST_EVENTS, SELF, EventList(after=cursor))
            for event in page.items:
                if event.seq > self._seen.get(event.run, (0, None))[0]:
                    await self._hand_on(event.run, await self.group_of(event.run), [event])
            if page.next is None or not page.next.isdecimal() or int(page.next) <= cursor:
                return
            cursor = int(page.next)

    async def _hand_on(self, run: str, group: str | None, events: list[EventView]) -> None:
        last = self._seen.get(run, (0, None))[0]
        if last and events and events[0].seq > last + 1:
            page = await self._controllers.ask(LIST_EVENTS, SELF, EventList(run=run, after=last))
            events = page.items or events
        for event in events:
            if event.seq <= last:
                continue
            last = event.seq
            self._newest = max(self._newest, event.cursor)
            for subscriber in self._subscribers:
                subscriber.put(group, event)
        self._seen[run] = (last, group)
        self._seen.move_to_end(run)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    async def group_of(self, run: str) -> str | None:
        """The group of a run. Raises ProctorError."""
        known = self._seen.get(run)
        if known is not None:
            return known[1]
        return (await self._controllers.ask(GET_RUN, SELF, RunRef(run=run))).group
