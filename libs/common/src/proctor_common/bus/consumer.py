"""The loop that passes a durable consumer's messages to a handler: pull, handle, acknowledge.

One pull request is outstanding at a time, with its own inbox on the connection it was made on; with a new connection
the loop starts again. The server delivers messages again that were not acknowledged.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from proctor_common.bus.connection import STATUS, Connection
from proctor_common.bus.errors import BusError, BusUnavailable
from proctor_common.bus.jetstream import API, NANO
from proctor_common.bus.shapes import RETRY, Message, StreamMessage, Verdict

log = structlog.get_logger(__name__)

Handler = Callable[[StreamMessage], Awaitable[Verdict]]
PULL_SECONDS = 5.0
PULL_GRACE = 2.0
MAX_RETRY_DELAY = 30.0
CLOSE_SECONDS = 3.0
GIVE_BACK = RETRY(0)


class ConsumerOwner(Protocol):
    """What the loop needs of its bus."""

    handler_failures: int

    async def wait_connected(self, timeout: float) -> bool: ...
    def stream_connection(self) -> Connection: ...


async def consume(
    owner: ConsumerOwner,
    stream: str,
    durable: str,
    handler: Handler,
    *,
    batch: int,
    concurrency: int,
    retry_delay: float,
) -> None:
    """Run until cancelled; see :meth:`Bus.consume`."""
    lanes = Lanes(owner, handler, concurrency, retry_delay)
    try:
        while True:
            if not await owner.wait_connected(PULL_SECONDS):
                continue
            try:
                await _Pull(owner.stream_connection(), stream, durable, lanes, batch).run()
            except BusError as fault:
                log.warning("bus_pull_failed", stream=stream, durable=durable, error=str(fault))
                await asyncio.sleep(retry_delay)
    finally:
        await lanes.close()


class _Pull:
    """Pulls on one connection until it is dead or the server answers unexpectedly."""

    def __init__(self, connection: Connection, stream: str, durable: str, lanes: "Lanes", batch: int) -> None:
        self._connection = connection
        self._subject = f"{API}.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._lanes = lanes
        self._batch = batch
        self._inbox = connection.new_inbox()
        self._number = 0
        self._left = 0
        self._done = asyncio.Event()
        self._fault = ""

    async def run(self) -> None:
        handle = await self._connection.subscribe(f"{self._inbox}.*", None, self._receive, limit=self._batch * 8)
        try:
            while self._connection.alive:
                await self._lanes.has_room(self._batch)
                await self._pull()
                if self._fault:
                    raise BusUnavailable(self._fault)
        finally:
            await self._connection.unsubscribe(handle)

    async def _pull(self) -> None:
        self._number += 1
        self._left = self._batch
        self._done.clear()
        request = {"batch": self._batch, "expires": round(PULL_SECONDS * NANO)}
        await self._connection.publish(
            self._subject, json.dumps(request).encode(), reply=f"{self._inbox}.{self._number}"
        )
        # The server ends an expired request; if it has forgotten one, make it again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PULL_SECONDS + PULL_GRACE):
                await self._connection.unless_dead(self._done.wait())

    async def _receive(self, message: Message) -> None:
        if STATUS in message.headers and not message.data:
            if message.subject == f"{self._inbox}.{self._number}":
                self._ended(message.headers[STATUS], message.headers.get("Description", ""))
        else:
            self._left -= 1
            self._lanes.add(_Delivery(self._connection, message.reply or "", _parse(message)))
        if self._left <= 0:
            self._done.set()

    def _ended(self, status: str, description: str) -> None:
        self._left = 0
        # 404 and 408: nothing (more) came in time. 409 may be passing too (a leader change), or say that the
        # consumer is gone.
        if status not in {"404", "408"}:
            self._fault = f"{status} {description}".strip()


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A message, and where its acknowledgement goes."""

    connection: Connection
    reply: str
    message: StreamMessage


class Lanes:
    """Messages for the handler: one lane for each subject, in order; up to ``concurrency`` lanes run at once."""

    def __init__(self, owner: ConsumerOwner, handler: Handler, concurrency: int, retry_delay: float) -> None:
        self._owner = owner
        self._handler = handler
        self._free = asyncio.Semaphore(concurrency)
        self._retry_delay = retry_delay
        self._waiting: dict[str, deque[_Delivery]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, delivery: _Delivery) -> None:
        """Queue a message after those of its subject."""
        self._count += 1
        subject = delivery.message.subject
        lane = self._waiting.get(subject)
        if lane is not None:
            lane.append(delivery)
            return
        self._waiting[subject] = deque([delivery])
        task = asyncio.create_task(self._run(subject), name=f"consume {subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def has_room(self, limit: int) -> None:
        """Wait until fewer than ``limit`` messages wait or are handled."""
        while self._count >= limit:
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Return waiting messages, so that another replica gets them at once; give running handlers 3 s."""
        self._closed = True
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    async def _run(self, subject: str) -> None:
        lane = self._waiting[subject]
        while lane:
            async with self._free:
                verdict = GIVE_BACK if self._closed else await self._judge(lane[0].message)
            await self._tell(lane[0], verdict)
            lane.popleft()
            self._count -= 1
            self._changed.set()
        del self._waiting[subject]

    async def _judge(self, message: StreamMessage) -> Verdict:
        try:
            return await self._handler(message)
        except Exception:
            self._owner.handler_failures += 1
            log.exception("bus_handler_failed", subject=message.subject, seq=message.seq)
            return RETRY(min(self._retry_delay * message.deliveries, MAX_RETRY_DELAY))

    async def _tell(self, delivery: _Delivery, verdict: Verdict) -> None:
        payload = verdict.word
        if verdict.delay > 0:
            payload += b" " + json.dumps({"delay": round(verdict.delay * NANO)}).encode()
        try:
            # The acknowledgement may go over a newer connection: its subject names the delivery.
            alive = delivery.connection.alive
            await (delivery.connection if alive else self._owner.stream_connection()).publish(delivery.reply, payload)
        except BusError as fault:
            log.warning("bus_ack_lost", subject=delivery.message.subject, error=str(fault))


def _parse(message: Message) -> StreamMessage:
    """The numbers are in the reply subject: ``$JS.ACK.`` and then

    ``[domain.account.]stream.consumer.deliveries.seq.consumer_seq.time.pending[.random]``.
    """
    fields = (message.reply or "").split(".")
    first = 4 if len(fields) == 9 else 6
    deliveries, seq, _, nanos, pending = (int(field) for field in fields[first : first + 5])
    return StreamMessage(
        subject=message.subject,
        data=message.data,
        headers=message.headers,
        seq=seq,
        deliveries=deliveries,
        pending=pending,
        time=datetime.fromtimestamp(nanos / NANO, UTC),
    )
