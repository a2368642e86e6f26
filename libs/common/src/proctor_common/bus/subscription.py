"""Subscriptions that survive their connection: each is a row of the bus's table."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from proctor_common.bus.errors import BusError
from proctor_common.bus.shapes import Message

if TYPE_CHECKING:
    from proctor_common.bus.connection import Connection

log = structlog.get_logger(__name__)

Handler = Callable[[Message], Awaitable[bytes | None]]
Callback = Callable[[Message], None]
WAITING_LIMIT = 65_536
CLOSE_TIMEOUT = 5.0


class SubscriptionOwner(Protocol):
    """What a subscription needs of its bus."""

    handler_failures: int

    async def reply(self, to: str, payload: bytes, *, fault: str | None = None) -> None: ...
    async def forget(self, subscription: "Subscription") -> None: ...
    def run_callback(self, callback: Callable[..., None], *args: Any) -> None: ...


class Subscription:
    """Interest in a subject. Made by :meth:`Bus.serve` and :meth:`Bus.subscribe`."""

    def __init__(self, owner: SubscriptionOwner, subject: str, queue: str | None) -> None:
        self.subject = subject
        self.queue = queue
        self._owner = owner
        self._declared: tuple[Connection, Any] | None = None

    async def declare(self, connection: "Connection") -> None:
        """Declare it on a connection; the caller makes the barrier."""
        handle = await connection.subscribe(self.subject, self.queue, self.receive, limit=WAITING_LIMIT)
        self._declared = (connection, handle)

    async def withdraw(self, connection: "Connection") -> None:
        """Undeclare it on ``connection`` if it was declared there."""
        if self._declared is not None and self._declared[0] is connection:
            await connection.unsubscribe(self._declared[1])
        self._declared = None

    async def receive(self, message: Message) -> None:
        """Called for each message, one after another."""
        raise TypeError("a subscription is either Served or Watched")

    async def close(self) -> None:
        """Unsubscribe. Never raises for a dead connection."""
        await self._owner.forget(self)


class Watched(Subscription):
    """Calls a plain function for each message."""

    def __init__(self, owner: SubscriptionOwner, subject: str, callback: Callback) -> None:
        super().__init__(owner, subject, None)
        self._callback = callback

    async def receive(self, message: Message) -> None:
        self._owner.run_callback(self._callback, message)


class Served(Subscription):
    """Answers requests, a bounded number at once."""

    def __init__(
        self, owner: SubscriptionOwner, subject: str, queue: str | None, handler: Handler, concurrency: int
    ) -> None:
        super().__init__(owner, subject, queue)
        self._handler = handler
        self._free = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[None]] = set()

    async def receive(self, message: Message) -> None:
        await self._free.acquire()
        task = asyncio.create_task(self._answer(message), name=f"serve {self.subject}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.release()

    async def _answer(self, message: Message) -> None:
        fault = None
        answer: bytes | None = b""
        try:
            answer = await self._handler(message)
        except Exception:
            # Expected faults are in the handler's answer; this one is unexpected, and its reason is only logged.
            self._owner.handler_failures += 1
            log.exception("bus_handler_failed", subject=message.subject)
            fault = "the handler failed; its log says why"
        if message.reply is None or answer is None:
            return
        try:
            await self._owner.reply(message.reply, answer, fault=fault)
        except BusError as error:
            log.warning("bus_reply_lost", subject=message.subject, error=str(error))

    async def close(self) -> None:
        """Take no more requests; running handlers get 5 s to answer, then they are cancelled."""
        await super().close()
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
