"""The HTTP server: uvicorn with a websocket that can be closed while its client takes nothing."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from proctor_api.errors import problem
from proctor_api.http.middleware import HEADERS
from proctor_api.settings import ApiSettings
from proctor_common.errors import Code, ProctorError
from proctor_common.service import StartError, Stop

CLIENT_FRAME_LIMIT = 4096
PING_SECONDS = 20.0
DEAD_SECONDS = 180.0
"""A client that answers no ping for this long is gone, even if its kernel acknowledges packets."""
LINGER_SECONDS = 120.0
"""How long a close frame waits for a client that does not read."""
DRAIN_SECONDS = 2
CORK_BYTES = 16 * 1024
HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 100
HEAD_SECONDS = 10.0
"""How long a TLS handshake may take, and then a request's head."""
REFUSED_SECONDS = 1.0
"""After a refusal, input is read and dropped for this long, so that the client sees the answer before the close."""


class Corked:
    """A transport that collects what is written in one turn of the event loop and sends it in one piece.

    uvicorn writes head and body of an answer separately, and each state change is a websocket frame: without this,
    each is a system call and wakes the client. Large writes are sent at once.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send ``data`` in this turn of the loop."""
        if not self._parts:
            if len(data) >= CORK_BYTES:
                self._transport.write(data)
                return
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= CORK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)

    def close(self) -> None:
        """Send what was collected, then close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Phase(Enum):
    """What is being read."""

    IDLE = "nothing, between requests"
    HEAD = "request line and headers"
    BODY = "body, and what stands behind it"


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol over a corked transport, which a websocket takes over.

    The token is known only when the request line and all headers have been read. Until then their bytes and fields are
    limited (431), and their time (the connection is closed): from the first byte, for the first request from
    connecting.
    """

    _phase = Phase.IDLE
    _read = 0
    """Bytes received of the headers, or within a body since its last piece."""
    _chunk = 0
    _over = False
    _done = False
    """Ignore what still arrives: the request was refused, or a websocket has taken over."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Corked(transport))  # type: ignore[arg-type]
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        self._chunk = len(data)
        self._read += self._chunk
        super().data_received(data)
        if self._phase is Phase.IDLE:
            self._read = 0
        elif self._read > HEAD_BYTES and not self._done:
            self._refuse(_too_large())
        self._arm()

    def on_message_begin(self) -> None:
        self._phase = Phase.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # The counters may include other parts of the same chunk. The exact size is computed only if they are over.
        self._over = len(self.headers) > HEAD_FIELDS or (
            max(self._read, self._chunk) > HEAD_BYTES
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES
        )
        if self._over:
            raise ValueError
        self._phase, self._read = Phase.BODY, 0
        self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._read = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase, self._read = Phase.IDLE, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._phase is Phase.HEAD:
            self._arm()

    def handle_websocket_upgrade(self) -> None:
        self._done = True
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read."""
        self._refuse(_too_large() if self._over else ProctorError(Code.BAD_REQUEST, "this is no HTTP request"))

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self) -> None:
        """Limit the time of headers that are not complete."""
        if self._phase is not Phase.BODY and not (self._timer or self._done or self._is_answering):
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, fault: ProctorError) -> None:
        self._done = True
        self._disarm()
        if self._is_answering:
            # A second answer would end up inside the one that is being sent.
            self.transport.close()
            return
        fault.details["hang_up"] = True
        answer = problem(fault, "/")
        head = [b"%s: %s\r\n" % pair for pair in (*answer.raw_headers, *HEADERS)]
        self.transport.write(b"".join((STATUS_LINE[fault.status], *head, b"\r\n", bytes(answer.body))))
        self._timer = self.loop.call_later(REFUSED_SECONDS, self.transport.close)


def _too_large() -> ProctorError:
    message = f"request line and headers may have {HEAD_BYTES // 1024} KiB and {HEAD_FIELDS} fields"
    return ProctorError(Code.HEADERS_TOO_LARGE, message, limit=HEAD_BYTES, fields=HEAD_FIELDS)


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's protocol closes only after the client has read everything, so never if the client has stopped reading.
    This one queues the close frame, and aborts the connection after LINGER_SECONDS.
    """

    _lingering: asyncio.TimerHandle | None = None

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.writable.set()
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        await super().send(message)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers; :class:`Stop` ends it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn has no setting for how long a TLS handshake may take."""
        loop: Any = asyncio.get_running_loop()
        if self.config.ssl is not None:
            loop.create_server = functools.partial(loop.create_server, ssl_handshake_timeout=HEAD_SECONDS)
        try:
            await super().startup(sockets)
        finally:
            vars(loop).pop("create_server", None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: FastAPI, settings: ApiSettings) -> Server:
    """A server for the app. Raises StartError if the certificate or key cannot be used."""
    config = uvicorn.Config(
        app,
        ws=Socket,
        http=HttpConnection,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=CLIENT_FRAME_LIMIT,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=DEAD_SECONDS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as fault:
        raise StartError(f"cannot use tls_cert_file and tls_key_file: {fault}") from fault
    return Server(config)


async def run(server: Server, listening: socket.socket, stop: Stop) -> None:
    """Serve until ``stop`` is set, then close open websockets with 1012."""
    serving = asyncio.create_task(server.serve([listening]), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        if not serving.done():
            serving.cancel()
            await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
