"""As little HTTP as will do, so that the server is measured and not its client; and a bare route to compare with."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench.system import System

KIB = 1024


class Wire:
    """A connection to the api that is kept alive. It blocks: nothing else runs in a benchmark that waits."""

    def __init__(self, system: System) -> None:
        parts = urlsplit(system.url)
        self._end = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {system.token}\r\n\r\n"
        self._socket = socket.create_connection((parts.hostname, parts.port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", 1024 * KIB)

    def get(self, path: str, params: dict[str, Any]) -> tuple[float, int]:
        """Seconds to the first byte of the body, and its length."""
        begun = time.perf_counter()
        query = f"?{urlencode(params)}" if params else ""
        self._socket.sendall(f"GET {path}{query}{self._end}".encode())
        status = self._reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"GET {path}{query}: {status.decode()}")
        length = None
        while (line := self._reader.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if length is not None:
            first = time.perf_counter() - begun
            return first, len(self._reader.read(length))
        size, first = 0, 0.0
        while chunk := int(self._reader.readline(), 16):
            first = first or time.perf_counter() - begun
            size += len(self._reader.read(chunk + 2)) - 2
        self._reader.readline()
        return first, size

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self._socket.close()


async def post_rate(url: str, path: str, content: bytes, headers: dict[str, str], count: int = 400) -> float:
    """Requests a second, eight at a time on connections that are kept."""
    parts = urlsplit(url)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{more}"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in range(count // 8):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.splitlines()[0]:
                raise RuntimeError(answer.decode())
            length = int(answer.lower().split(b"content-length:")[1].split()[0])
            await reader.readexactly(length)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(8)))
    return count / (time.perf_counter() - begun)


BARE = """
import asyncio, json, os, socket, sys
import asyncpg, uvicorn
from fastapi import FastAPI

app = FastAPI()
pool = None

@app.post("/rows")
async def add(body: dict):
    row = await pool.fetchval("INSERT INTO catalog.bare (body) VALUES ($1) RETURNING id", json.dumps(body))
    return {"id": row}

async def main():
    global pool
    dsn, password = sys.stdin.readline().strip(), sys.stdin.readline().strip()
    pool = await asyncpg.create_pool(dsn, password=password, min_size=8, max_size=8)
    # asyncio sets TCP_NODELAY only where the protocol is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve([listening])

asyncio.run(main())
"""


@asynccontextmanager
async def bare_route(dsn: str, password: str) -> AsyncIterator[int]:
    """A FastAPI app of one route that inserts one row, in a process of its own; its port."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", BARE, stdin=pipe, stdout=pipe)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{dsn}\n{password}\n".encode())
        yield int(await asyncio.wait_for(child.stdout.readline(), 20))
    finally:
        child.terminate()
        await child.wait()
