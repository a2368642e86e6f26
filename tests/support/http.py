"""HTTP/1.1 as a test needs it: answers, but also none, half of one, and connections cut at a chosen moment."""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from support.processes import free_port

LARGEST_BODY = 1024 * 1024


@dataclass(frozen=True)
class Asked:
    """A request; the names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer. ``cut``: the connection is broken in its place, or after its first half."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    half: bool = False

    def encode(self) -> bytes:
        page = isinstance(self.body, str)
        content = b"" if self.body is None else self.body.encode() if page else json.dumps(self.body).encode()
        kind = "text/html" if page else "application/json"
        lines = [f"HTTP/1.1 {self.status} .", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


Handler = Callable[[Asked], Awaitable[Reply]]


class HttpServer:
    """A server on a loopback port with a thread and a loop of its own."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.connections = 0
        self._handler = handler
        self._tls = tls
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http of a test", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Take connections, at the same port each time."""
        self._call(self._listen())

    def refuse(self) -> None:
        """Take none any more and cut those that there are."""
        self._call(self._refuse())

    def close(self) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, backlog=512)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        serving = dict(self._open)
        for writer, task in serving.items():
            writer.transport.abort()
            task.cancel()
        if serving:
            await asyncio.wait(set(serving.values()), timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ValueError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = min(int(headers.get("content-length", "0")), LARGEST_BODY)
        parts = urlsplit(target)
        body = await reader.readexactly(length)
        reply = await self._handler(Asked(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body))
        if reply.cut or reply.half:
            if reply.half:
                encoded = reply.encode()
                writer.write(encoded[: len(encoded) - 5])
                await writer.drain()
            writer.transport.abort()
            return False
        writer.write(reply.encode())
        await writer.drain()
        return True
