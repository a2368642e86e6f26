"""The HTTP server: uvicorn with a websocket that can be closed while its client takes nothing."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, start_http_server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from proctor_api.settings import ApiSettings
from proctor_common.service import StartError, Stop

CLIENT_FRAME_LIMIT = 4096
PING_SECONDS = 20.0
DEAD_SECONDS = 180.0
"""A client that answers no ping for this long is gone, even if its kernel acknowledges packets."""
LINGER_SECONDS = 120.0
"""How long a close frame waits for a client that does not read."""
DRAIN_SECONDS = 2
CORK_BYTES = 16 * 1024


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


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol over a corked transport, which a websocket takes over."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Corked(transport))  # type: ignore[arg-type]


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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve_metrics(address: tuple[str, int], registry: CollectorRegistry) -> Callable[[], None]:
    """Serve metrics in a thread. Returns a function that ends it. Raises StartError."""
    try:
        http, thread = start_http_server(address[1], address[0], registry)
    except OSError as fault:
        raise StartError(f"cannot serve metrics on {address[0]}:{address[1]}: {fault.strerror or fault}") from fault

    def end() -> None:
        http.shutdown()
        http.server_close()
        thread.join(2)

    return end


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
