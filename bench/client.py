"""An HTTP client that costs next to nothing: a benchmark measures the server, not the tool that asks.

httpx takes 2 to 3 ms of CPU a request on these machines, a sixth of what is measured.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httptools


class Client:
    """Asks a server over kept connections, as many as are asked for at once."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items())
        self._idle: list[_Connection] = []

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of the answer. Raises RuntimeError unless it is a 2xx."""
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        status, answer = await self._ask(f"{head}\r\n".encode() + text)
        if not 200 <= status < 300:
            raise RuntimeError(f"{path}: {status} {answer[:500]!r}")
        return json.loads(answer)

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed before an answer"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        self._answer.set_result((self._parser.get_status_code(), body))


@asynccontextmanager
async def connected(url: str, headers: Mapping[str, str]) -> AsyncIterator[Client]:
    """A client of the server at ``url`` (http), closed at the end."""
    client = Client(url, headers)
    try:
        yield client
    finally:
        client.close()
