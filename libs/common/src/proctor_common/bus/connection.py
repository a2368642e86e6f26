"""One connection of a NATS client: connect, send, receive replies, notice its death. The only importer of nats.

nats-py's own reconnect is switched off: it buffers what is sent meanwhile (so that delivery is unknown), and it never
recovers a connection whose read loop died or whose user was revoked. :class:`~proctor_common.bus.bus.Bus` makes a new
connection instead, after any kind of death.
"""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription
from nats.errors import BadSubjectError, MaxPayloadError, SlowConsumerError
from nats.errors import Error as ClientError
from nkeys import NkeysError

from proctor_common.bus.errors import BusTimeout, BusUnavailable, NoResponders, NotPermitted, TooLarge
from proctor_common.bus.shapes import BusOptions, Message
from proctor_common.ids import new_id

log = structlog.get_logger(__name__)

Sink = Callable[[Message], None]
DRAIN_SECONDS = 2.0
PENDING_BYTES = 8 * 1024 * 1024
STATUS = "Status"
NO_RESPONDERS = "503"


class _Waiting:
    """A caller that waits for replies to one token."""

    __slots__ = ("fail", "sink", "subject")

    def __init__(self, subject: str, sink: Sink, fail: Callable[[Exception], None]) -> None:
        self.subject = subject
        self.sink = sink
        self.fail = fail


class _Client(Client):
    """Refuses a server without TLS before it sends credentials; nats-py itself would go on unencrypted."""

    needs_tls = False

    def _connect_command(self) -> bytes:
        if self.needs_tls and not self._server_info.get("tls_required"):
            raise ClientError("the server offers no TLS; beyond loopback that needs allow_plaintext = true")
        return super()._connect_command()


class Connection:
    """A connected client with one inbox. ``dead`` is set when it cannot be used any more; ``reason`` says why."""

    def __init__(self, options: BusOptions) -> None:
        self.dead = asyncio.Event()
        self.reason = ""
        self._options = options
        self._client = _Client()
        self._client.needs_tls = options.needs_tls
        self._dropped = 0
        self._inbox = f"{options.inbox_prefix}.{new_id()}"
        self._waiting: dict[str, _Waiting] = {}
        self._denied: set[str] = set()
        self._tokens = 0
        self._pings: set[asyncio.Task[float]] = set()

    @classmethod
    async def open(cls, options: BusOptions) -> "Connection":
        """Connect once to one of the servers. Raises BusUnavailable with the reason."""
        connection = cls(options)
        try:
            with _cancellation_kept():
                # connect() can hang on a bad TLS peer, so it has a limit of our own.
                async with asyncio.timeout(options.connect_timeout * len(options.servers) + 1):
                    await connection._connect()
                    await connection._listen()
        except BaseException as fault:
            reason = connection.reason or str(fault) or type(fault).__name__
            await connection.close("not connected")
            if isinstance(fault, ClientError | OSError | TimeoutError | BusTimeout):
                raise BusUnavailable(f"cannot connect to NATS at {options.shown}: {reason}") from fault
            if isinstance(fault, NkeysError):
                raise ValueError("nkey_seed is not the seed of an nkey") from fault
            raise
        return connection

    async def _connect(self) -> None:
        options = self._options
        context = (
            await asyncio.to_thread(ssl.create_default_context, cafile=options.ca_file) if options.ca_file else None
        )
        await self._client.connect(
            servers=random.sample(options.servers, len(options.servers)),
            name=options.name,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            allow_reconnect=False,
            # Two tries at each server, without a wait: the waits are the supervisor's.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=options.connect_timeout,  # type: ignore[arg-type]
            ping_interval=options.ping_interval,  # type: ignore[arg-type]
            max_outstanding_pings=2,
            tls=context,
            token=options.auth_token,
            nkeys_seed_str=options.nkey_seed or None,
            inbox_prefix=options.inbox_prefix,
            pending_size=PENDING_BYTES,
            flush_timeout=options.ping_timeout,
        )
        # A callback that raises inside the client ends its read loop while it still calls itself connected.
        reading: asyncio.Task[None] | None = getattr(self._client, "_reading_task", None)
        if reading is not None:
            reading.add_done_callback(lambda _: self._die("the read loop ended"))

    async def _listen(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply, pending_bytes_limit=0, pending_msgs_limit=0)
        await self.barrier()

    async def _on_error(self, fault: Exception) -> None:
        """Called from inside the client's read loop: must never raise."""
        text = str(fault) or type(fault).__name__
        if "permissions violation" in text.lower():
            self._on_denied(text)
        elif isinstance(fault, SlowConsumerError):
            # Called for each dropped message; logged at 1, 2, 4, 8, …
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:
                log.error("bus_messages_dropped", subject=fault.subject, dropped=self._dropped)
        else:
            self.reason = text
            log.debug("bus_client_error", error=text)

    async def _on_closed(self) -> None:
        self._die(self.reason or str(self._client.last_error or "connection closed"))

    def _on_denied(self, text: str) -> None:
        # The client gives the text in lower case: `... permissions violation for publish to "subject"`.
        log.error("bus_not_permitted", error=text)
        subject = text.split('"')[1].lower() if text.count('"') >= 2 else ""
        if "for subscription to" in text.lower():
            self._denied.add(subject)
            return
        for waiting in [w for w in self._waiting.values() if w.subject.lower() == subject]:
            waiting.fail(NotPermitted(text))

    def _die(self, reason: str) -> None:
        if self.dead.is_set():
            return
        self.reason = reason
        self.dead.set()
        for waiting in list(self._waiting.values()):
            waiting.fail(BusTimeout(f"connection lost while waiting for an answer: {reason}"))
        self._waiting.clear()

    def new_inbox(self) -> str:
        """A subject prefix for a private subscription, which the server permits."""
        return f"{self._options.inbox_prefix}.{new_id()}"

    @property
    def alive(self) -> bool:
        """Whether messages may be sent."""
        return not self.dead.is_set() and self._client.is_connected

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Write a message to the socket. Raises BusUnavailable or TooLarge; delivery is not confirmed."""
        if not self.alive:
            raise BusUnavailable(f"not connected to NATS: {self.reason or 'closed'}")
        try:
            with _cancellation_kept():
                await self._client.publish(subject, payload, reply=reply, headers=headers)
        except MaxPayloadError as fault:
            raise TooLarge(f"{len(payload)} bytes are over the server's limit of {self._client.max_payload}") from fault
        except BadSubjectError as fault:
            raise ValueError(f"not a subject: {subject!r}") from fault
        except ClientError as fault:
            raise BusUnavailable(f"not sent: {fault}") from fault

    async def ask(self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None) -> Message:
        """One request, one reply. Raises NoResponders, BusTimeout, NotPermitted, BusUnavailable, TooLarge."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def sink(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        await self._exchange(subject, payload, timeout, headers=headers, sink=sink, done=answer)
        message = answer.result()
        if message.headers.get(STATUS) == NO_RESPONDERS and not message.data:
            raise NoResponders(f"nobody listens on {subject}")
        return message

    async def collect(
        self, subject: str, payload: bytes, timeout: float, is_last: Callable[[Message], bool]
    ) -> list[Message]:
        """One request, several replies up to the one that ``is_last``, within ``timeout`` seconds in all."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        messages: list[Message] = []

        def sink(message: Message) -> None:
            messages.append(message)
            if is_last(message) and not done.done():
                done.set_result(None)

        await self._exchange(subject, payload, timeout, sink=sink, done=done)
        return messages

    async def gather(self, subject: str, payload: bytes, timeout: float, quiet: float) -> list[Message]:
        """One request, the replies of all listeners; ends when none has come for ``quiet`` seconds after one."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        messages: list[Message] = []
        timer: asyncio.TimerHandle | None = None

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def sink(message: Message) -> None:
            nonlocal timer
            messages.append(message)
            if timer is not None:
                timer.cancel()
            timer = loop.call_later(quiet, finish)

        try:
            await self._exchange(subject, payload, timeout, sink=sink, done=done)
        finally:
            if timer is not None:
                timer.cancel()
        if len(messages) == 1 and messages[0].headers.get(STATUS) == NO_RESPONDERS and not messages[0].data:
            raise NoResponders(f"nobody listens on {subject}")
        return messages

    async def _exchange(
        self,
        subject: str,
        payload: bytes,
        timeout: float,
        *,
        headers: dict[str, str] | None = None,
        sink: Sink,
        done: "asyncio.Future[Any]",
    ) -> None:
        def fail(fault: Exception) -> None:
            if not done.done():
                done.set_exception(fault)

        self._tokens += 1
        token = str(self._tokens)
        self._waiting[token] = _Waiting(subject, sink, fail)
        # Cheaper than asyncio.timeout, and does not depend on how the client treats a cancellation.
        timer = asyncio.get_running_loop().call_later(
            timeout, lambda: fail(BusTimeout(f"no answer on {subject} within {timeout:g} s"))
        )
        try:
            await self.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            await done
        finally:
            timer.cancel()
            self._waiting.pop(token, None)
            if done.done() and not done.cancelled():
                done.exception()

    async def _on_reply(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiting is not None:
            waiting.sink(to_message(msg))

    async def subscribe(
        self, subject: str, queue: str | None, callback: Callable[[Message], Awaitable[None]], *, limit: int
    ) -> ClientSubscription:
        """Declare a subscription; ``limit`` messages may wait for the callback. Valid after :meth:`barrier`."""
        if not self.alive:
            raise BusUnavailable(f"not connected to NATS: {self.reason or 'closed'}")
        self._denied.discard(subject.lower())

        async def deliver(msg: Msg) -> None:
            await callback(to_message(msg))

        try:
            return await self._client.subscribe(subject, queue=queue or "", cb=deliver, pending_msgs_limit=limit)
        except BadSubjectError as fault:
            raise ValueError(f"not a subject: {subject!r}") from fault
        except ClientError as fault:
            raise BusUnavailable(f"not subscribed: {fault}") from fault

    async def unsubscribe(self, subscription: ClientSubscription) -> None:
        """Drop a subscription; messages that were sent before are still delivered. Without effect if dead."""
        # The client's own unsubscribe discards waiting messages, and its drain may end before the server knows: a
        # request that arrives in between would be lost, although another process could have answered it.
        with contextlib.suppress(ClientError, BusTimeout, OSError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._client._send_unsubscribe(subscription._id)
                await self.barrier()
                await subscription._pending_queue.join()
        with contextlib.suppress(ClientError, OSError):
            await subscription.unsubscribe()

    def is_denied(self, subject: str) -> bool:
        """Whether the server refused a subscription to ``subject`` (known after :meth:`barrier`)."""
        return subject.lower() in self._denied

    async def barrier(self) -> None:
        """Return when the server has seen everything sent before. Raises BusTimeout."""
        # The client writes a PING before its buffer, so only the second round trip proves it.
        await self.ping()
        await self.ping()

    async def ping(self) -> float:
        """Seconds of a round trip to the server. Raises BusTimeout, and the connection is dead then."""
        # A wait for a PONG that was cancelled breaks the client's read loop when the PONG comes: so a task of its own
        # waits, and is left alone.
        task = asyncio.create_task(self._client.rtt(timeout=3600))
        self._pings.add(task)
        task.add_done_callback(self._ping_ended)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.ping_timeout):
                await self.unless_dead(asyncio.wait({task}))
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        self._die(self.reason or "the server does not answer pings")
        raise BusTimeout(f"no round trip to NATS: {self.reason}")

    def _ping_ended(self, task: "asyncio.Task[float]") -> None:
        self._pings.discard(task)
        if not task.cancelled():
            task.exception()

    async def unless_dead(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait for ``waiting``, but no longer than the connection lives; it is cancelled then."""
        tasks = {asyncio.create_task(waiting), asyncio.create_task(self.dead.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def close(self, reason: str) -> None:
        """Close the socket and fail all who wait. Bounded; raises nothing."""
        self._die(reason)
        with _cancellation_kept(), contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._client.close()
        for task in list(self._pings):
            task.cancel()


@contextlib.contextmanager
def _cancellation_kept() -> Iterator[None]:
    """Raise CancelledError at the end if the task was cancelled inside: the client swallows that in several places."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def to_message(msg: Msg) -> Message:
    """The client's message as ours."""
    return Message(msg.subject, msg.data, msg.reply or None, msg.headers or {})
