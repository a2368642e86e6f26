"""The bus as a service uses it: survives every death of the connection, and says what is known about delivery.

    async with Bus(options) as bus:
        await bus.serve(subjects.ALL_CALLS, handler, queue="controllers")
        answer = await bus.request(subject, payload, timeout=5)

A supervisor owns the connection. When it dies (socket closed, peer silent, user revoked, read loop broken) a new
one is made and every subscription is declared again from a table. Meanwhile requests and appends fail at once
with BusUnavailable: nothing is buffered that nobody asked to buffer.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import structlog

from proctor_common.bus import jetstream
from proctor_common.bus.connection import Connection
from proctor_common.bus.consumer import Handler as StreamHandler
from proctor_common.bus.consumer import consume
from proctor_common.bus.errors import BusError, BusTimeout, BusUnavailable, NotPermitted, PeerFailed
from proctor_common.bus.shapes import (
    Appended,
    BusOptions,
    ConsumerSpec,
    Stored,
    StreamSpec,
    StreamState,
)
from proctor_common.bus.subscription import Callback, Handler, Served, Subscription, Watched

log = structlog.get_logger(__name__)

FAULT_HEADER = "Proctor-Fault"
STABLE_SECONDS = 10.0


class Bus:
    """One client of the bus, for one event loop. All methods may be called at once by many tasks.

    ``restarts``: connections made after the first one. ``handler_failures``: handlers and callbacks that raised.
    """

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self.restarts = 0
        self.handler_failures = 0
        self._connection: Connection | None = None
        self._reason = "not started"
        self._table: list[Subscription] = []
        self._declaring = asyncio.Lock()
        self._rebuilt: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._watched_at = time.monotonic()

    async def __aenter__(self) -> Self:
        """Connect, trying again until ``start_timeout``. Raises BusUnavailable with the last reason."""
        if self.options.beyond_loopback and not self.options.needs_tls:
            log.warning("bus_plaintext_allowed", servers=self.options.shown)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.start_timeout
        for wait in _Waits(*self.options.reconnect_wait):
            try:
                connection = await Connection.open(self.options)
                break
            except BusUnavailable as fault:
                self._note(str(fault))
                if loop.time() + wait >= deadline:
                    raise
                await asyncio.sleep(wait)
        await self._adopt(connection)
        self._supervisor = asyncio.create_task(self._supervise(connection), name=f"bus supervisor {self.options.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the subscriptions (handlers that run get 5 s), flush, close."""
        await asyncio.gather(*(subscription.close() for subscription in list(self._table)), return_exceptions=True)
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor}, timeout=5)
        if self._connection is not None:
            with contextlib.suppress(BusError):
                await self._connection.barrier()
            await self._connection.close("closed")
        self._connected.clear()
        self._reason = "closed"

    # -- the connection -------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a message sent now would reach the server's socket."""
        return self._connection is not None and self._connection.alive

    async def wait_connected(self, timeout: float) -> bool:
        """Wait until there is a connection; False if there was none within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self.connected:
                    self._connected.clear()
                    await self._connected.wait()
        except TimeoutError:
            return False
        return True

    def on_rebuild(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each new connection except the first, when all subscriptions are declared again."""
        self._rebuilt.append(callback)

    @property
    def watchdog_age(self) -> float:
        """Seconds since the supervisor last looked; well over ``ping_interval`` plus the timeouts means it is stuck."""
        return time.monotonic() - self._watched_at

    async def rtt(self) -> float:
        """Seconds of a round trip to the server. Raises BusUnavailable, or BusTimeout: a new connection is made."""
        return await self._live().ping()

    def _live(self) -> Connection:
        if self._connection is None or not self._connection.alive:
            raise BusUnavailable(f"not connected to NATS: {self._reason}")
        return self._connection

    async def _adopt(self, connection: Connection) -> None:
        """Declare every subscription on a new connection, then use it."""
        try:
            async with self._declaring:
                for subscription in self._table:
                    await subscription.declare(connection)
                if self._table:
                    await connection.barrier()
                self._connection = connection
                self._connected.set()
        except BaseException:
            await connection.close("not usable")
            raise

    async def _supervise(self, connection: Connection) -> None:
        waits = _Waits(*self.options.reconnect_wait)
        while True:
            started = time.monotonic()
            await self._watch(connection)
            self._reason = connection.reason
            log.warning("bus_connection_lost", reason=connection.reason)
            await connection.close(connection.reason)
            if time.monotonic() - started > STABLE_SECONDS:
                waits = _Waits(*self.options.reconnect_wait)
            else:
                # It died soon, maybe for a reason that will end the next one too.
                await asyncio.sleep(next(waits))
            connection = await self._reconnect(waits)
            self.restarts += 1
            log.info("bus_connected_again", restarts=self.restarts)
            for callback in self._rebuilt:
                self.run_callback(callback)

    async def _watch(self, connection: Connection) -> None:
        """Return when the connection is dead."""
        while not connection.dead.is_set():
            self._watched_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.options.ping_interval):
                    await connection.dead.wait()
                    return
            with contextlib.suppress(BusTimeout):
                await connection.ping()

    async def _reconnect(self, waits: "_Waits") -> Connection:
        while True:
            self._watched_at = time.monotonic()
            try:
                connection = await Connection.open(self.options)
                await self._adopt(connection)
                return connection
            except BusError as fault:
                self._note(str(fault))
            except Exception as fault:
                # No exception of the client may end the supervisor: without it the bus never reconnects.
                log.exception("bus_reconnect_failed")
                self._note(str(fault))
            await asyncio.sleep(next(waits))

    def _note(self, reason: str) -> None:
        """Store why there is no connection; a new reason is logged once."""
        if reason != self._reason:
            log.warning("bus_not_connected", reason=reason)
        self._reason = reason

    def run_callback(self, callback: Callable[..., None], *args: Any) -> None:
        """Call another module's callback; what it raises is logged and counted."""
        try:
            callback(*args)
        except Exception:
            self.handler_failures += 1
            log.exception("bus_callback_failed")

    # -- core messages --------------------------------------------------------------------------------------------

    async def request(
        self, subject: str, payload: bytes, *, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """Send a request, and wait ``timeout`` seconds for the answer.

        Raises NoResponders, BusUnavailable, NotPermitted or TooLarge: it was not delivered; BusTimeout or PeerFailed:
        unknown.
        """
        message = await self._live().ask(subject, payload, timeout, headers)
        if FAULT_HEADER in message.headers:
            raise PeerFailed(f"{subject}: {message.headers[FAULT_HEADER]}")
        return message.data

    async def gather(self, subject: str, payload: bytes, *, timeout: float, quiet: float = 0.25) -> list[bytes]:
        """Send a request to all listeners; returns their answers, once no more has come for ``quiet`` seconds.

        Raises as :meth:`request` does; BusTimeout if nobody answers within ``timeout``.
        """
        return [message.data for message in await self._live().gather(subject, payload, timeout, quiet)]

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send a wake-up. It may be lost without an error. Raises BusUnavailable or TooLarge."""
        await self._live().publish(subject, payload)

    async def reply(self, to: str, payload: bytes, *, fault: str | None = None) -> None:
        """Answer a request on its reply subject; ``fault`` makes the request raise PeerFailed there."""
        await self._live().publish(to, payload, headers={FAULT_HEADER: fault} if fault else None)

    async def serve(
        self, subject: str, handler: Handler, *, queue: str | None = None, concurrency: int = 64
    ) -> Subscription:
        """Answer requests on ``subject``: what ``handler`` returns is the reply, None sends none.

        At most ``concurrency`` handlers run at once, each in a task that the subscription owns. One that raises
        is logged and counted and answers PeerFailed. Returns when the server knows the subscription. Raises
        NotPermitted, BusUnavailable.
        """
        return await self._declare(Served(self, subject, queue, handler, concurrency))

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """Call ``callback`` (no coroutine, and quick) for each message; what it raises is logged and counted.

        Returns when the server knows the subscription: what is published after that is not missed while the
        connection lives.
        """
        return await self._declare(Watched(self, subject, callback))

    async def _declare(self, subscription: Subscription) -> Subscription:
        async with self._declaring:
            connection = self._live()
            try:
                await subscription.declare(connection)
                await connection.barrier()
                if connection.is_denied(subscription.subject):
                    raise NotPermitted(f"may not subscribe to {subscription.subject}")
            except BaseException:
                await subscription.withdraw(connection)
                raise
            self._table.append(subscription)
        return subscription

    async def forget(self, subscription: Subscription) -> None:
        """Take a subscription out of the table and off the server; used by :meth:`Subscription.close`."""
        async with self._declaring:
            if subscription in self._table:
                self._table.remove(subscription)
            if self._connection is not None and self._connection.alive:
                await subscription.withdraw(self._connection)

    # -- streams --------------------------------------------------------------------------------------------------

    async def append(
        self, subject: str, payload: bytes, *, msg_id: str | None = None, timeout: float = 5.0
    ) -> Appended:
        """Store a message in the stream that takes ``subject``, and wait until it is. Many may be in flight.

        Raises NoResponders (no stream takes it), StreamRefused, BusUnavailable, NotPermitted, TooLarge: not
        stored; BusTimeout: unknown, repeat it with the same ``msg_id``.
        """
        return await jetstream.append(self._live(), subject, payload, msg_id, timeout)

    async def direct_get(
        self,
        stream: str,
        *,
        start_seq: int = 1,
        subject_filter: str = ">",
        batch: int = 256,
        max_bytes: int = 1024 * 1024,
        timeout: float = 5.0,
    ) -> list[Stored]:
        """Read up to ``batch`` messages from sequence ``start_seq`` on, in order, whose subjects match the filter.

        Stops after about ``max_bytes``; the last one's ``num_pending`` says how many are left. An empty list:
        there are none. Raises StreamRefused, NoResponders (no such stream), BusTimeout, BusUnavailable.
        """
        return await jetstream.direct_get(
            self._live(),
            stream,
            start_seq,
            subject_filter=subject_filter,
            batch=batch,
            max_bytes=max_bytes,
            timeout=timeout,
        )

    async def last_stored(self, stream: str, subject_filter: str = ">", *, timeout: float = 5.0) -> Stored | None:
        """The newest message that matches, by direct get alone; None if there is none. ``num_pending`` is 0."""
        return await jetstream.last_stored(self._live(), stream, subject_filter, timeout)

    async def consume(
        self,
        stream: str,
        durable: str,
        handler: StreamHandler,
        *,
        batch: int = 64,
        concurrency: int = 16,
        retry_delay: float = 1.0,
    ) -> None:
        """Pass the messages of a durable consumer to ``handler`` until cancelled; acknowledge each when it has
        returned.

        Messages of one subject are handled in order, those of different subjects concurrently (at most
        ``concurrency``). If the handler raises, that is logged and counted, and the message comes again after
        ``retry_delay`` seconds times its deliveries (at most 30 s). All faults of the bus are handled; a message may
        come twice and, after a retry, later than its successors.
        """
        await consume(self, stream, durable, handler, batch=batch, concurrency=concurrency, retry_delay=retry_delay)

    def stream_connection(self) -> Connection:
        """The live connection, for the consumer loop. Raises BusUnavailable."""
        return self._live()

    async def ensure_stream(self, spec: StreamSpec, *, timeout: float = 10.0) -> None:
        """Create the stream, or change it to the spec. Raises StreamRefused for what cannot be changed."""
        await jetstream.ensure_stream(self._live(), spec, timeout)

    async def ensure_consumer(self, spec: ConsumerSpec, *, timeout: float = 10.0) -> None:
        """Create the durable consumer, or change it to the spec."""
        await jetstream.ensure_consumer(self._live(), spec, timeout)

    async def purge_subject(self, stream: str, subject_filter: str, *, timeout: float = 30.0) -> int:
        """Delete the messages that match; returns their number."""
        return await jetstream.purge_subject(self._live(), stream, subject_filter, timeout)

    async def stream_subjects(self, stream: str, subject_filter: str, *, timeout: float = 30.0) -> dict[str, int]:
        """The subjects that match and have messages, with the number of them."""
        return await jetstream.stream_subjects(self._live(), stream, subject_filter, timeout)

    async def stream_state(self, stream: str, *, timeout: float = 5.0) -> StreamState:
        """Counts of the stream. Raises StreamRefused with code 10059 if there is no such stream."""
        return await jetstream.stream_state(self._live(), stream, timeout)


class _Waits:
    """Endless waits in seconds, each random below a limit that doubles from ``least`` to ``most``."""

    def __init__(self, least: float, most: float) -> None:
        self._limit = least
        self._least = least
        self._most = most

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        self._limit = min(self._limit * 2, self._most)
        return random.uniform(self._least / 2, self._limit)  # noqa: S311 - spreads reconnects, guards nothing
