"""Before anybody is known: how large and how late a request's head may be, and what is where no route is."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from proctor_api.http import server
from support.api_world import FIRST_TOKEN, Api, World, running
from support.nats import NatsAccount
from support.postgres import Database
from support.wait import eventually

from .test_serving import settings, write_certificate

LIMIT = server.HEAD_BYTES
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def talking(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = api.settings.http.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is read to its end."""
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split()[1])


async def until_closed(reader: asyncio.StreamReader) -> float:
    """Seconds until the server closes."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            await reader.read()
    return asyncio.get_running_loop().time() - began


def padded(size: int) -> bytes:
    """A head of so many bytes, by what is counted: address, names, values and four a field."""
    return GET + b"X: " + b"x" * (size - len("/healthz") - len("Host") - 1 - 4 - 5) + b"\r\n\r\n"


TOO_MUCH = {
    "a long line without an end": GET + b"X: " + b"x" * 2_000_000,
    "a long line with one": padded(LIMIT + 1),
    "a long address": b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long address without an end": b"GET /" + b"a" * 2_000_000,
    "a long name": GET + b"x" * 200_000,
    "many fields": GET + b"".join(b"X-%d: y\r\n" % n for n in range(100)) + b"\r\n",
    "many fields without an end": GET + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)),
    "behind another request": GET + b"\r\n" + padded(LIMIT + 1),
    "a handshake": GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nX: " + b"x" * LIMIT + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_head_that_is_too_large_is_431_and_the_connection_ends(api: Api, sent: bytes) -> None:
    async with talking(api) as (reader, writer):
        if sent.count(b"GET ") > 1:
            first, _, sent = sent.partition(b"\r\n\r\n")
            writer.write(first + b"\r\n\r\n")
            assert await status_of(reader) == 200
        writer.write(sent)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431 ")
            body = json.loads(await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0])))
        assert (body["code"], body["limit"], body["fields"]) == ("headers_too_large", LIMIT, 100)
        assert b"content-type: application/problem+json" in head.lower()
        assert await until_closed(reader) < 3


async def test_a_head_up_to_the_bounds_is_served(api: Api) -> None:
    fields = GET + b"".join(b"X-%d: y\r\n" % n for n in range(99)) + b"\r\n"
    async with talking(api) as (reader, writer):
        for sent in (padded(LIMIT), fields, *[GET + b"\r\n"] * 3):
            writer.write(sent)
            assert await status_of(reader) == 200
        # Many at once, together far beyond the bound of one.
        writer.write((GET + b"X: " + b"x" * 9000 + b"\r\n\r\n") * 20)
        assert [await status_of(reader) for _ in range(20)] == [200] * 20
        body = b"x" * 300_000
        post = b"POST /v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(post + body)
        assert await status_of(reader) in {400, 413}


async def test_what_stands_behind_a_body_is_bounded_too(api: Api) -> None:
    head = b"POST /v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with talking(api) as (reader, writer):
        writer.write(head)
        for _ in range(20):
            writer.write(b"X" * 100_000)
            await asyncio.sleep(0.01)
        await until_closed(reader)


async def test_a_head_that_is_late_ends_the_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    for sent in (b"", b"\r\n", b"GET", GET, GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"):
        async with talking(api) as (reader, writer):
            writer.write(sent)
            assert 0.2 < await until_closed(reader) < 3, sent
        async with talking(api) as (reader, writer):
            writer.write(GET + b"\r\n")
            assert await status_of(reader) == 200
            if sent:
                writer.write(sent)
                assert 0.2 < await until_closed(reader) < 3, sent
    async with talking(api) as (reader, writer):
        writer.write(GET)
        for _ in range(20):
            # A byte now and then does not lengthen it.
            await asyncio.sleep(0.1)
            writer.write(b"X")
        assert await until_closed(reader) < 0.5
    async with talking(api) as (reader, writer):
        for _ in range(2):
            writer.write(GET + b"\r\n")
            assert await status_of(reader) == 200
            # A connection that rests between requests stays.
            await asyncio.sleep(1)
    run = api.world.add_run()
    async with connect(f"{api.ws}/v1/runs/{run.id}/events", additional_headers=api.headers()) as socket:
        await asyncio.sleep(1)
        await socket.ping()


async def test_a_tls_handshake_that_is_late_ends_the_connection(
    nats: NatsAccount, migrated: Database, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    cert, key = write_certificate(tmp_path)
    given = settings(nats, migrated, tls_cert_file=cert, tls_key_file=key)
    async with running(given, ssl.create_default_context(cafile=str(cert))):
        host, _, port = given.http.partition(":")
        for sent in (b"", b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            assert await until_closed(reader) < 3
            writer.close()


async def test_what_is_no_http_is_400(api: Api) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"GET / HTTP/9.9\r\n\r\n", GET + b"no colon\r\n\r\n"):
        async with talking(api) as (reader, writer):
            writer.write(sent)
            assert await status_of(reader) == 400
            assert await until_closed(reader) < 3


async def test_head_is_get_without_a_body(api: Api) -> None:
    run = api.world.add_run()
    attempt = api.world.begin(run)
    await api.world.write(run, attempt, "x" * 50_000 + "\n")

    async def written() -> bool:
        return len((await api.call("GET", f"/v1/runs/{run.id}/logs")).content) > 50_000

    await eventually(written, 5, "the log")
    of_run = (f"/v1/runs/{run.id}", f"/v1/runs/{run.id}/logs")
    for path in ("/", "/healthz", "/docs", "/v1/agents", *of_run, "/v1/nowhere"):
        get, head = await api.call("GET", path), await api.call("HEAD", path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        for name in ("content-type", "content-length"):
            assert head.headers.get(name) == get.headers.get(name), path
    assert (await api.http.head("/v1/agents")).status_code == 401
    refused = await api.call("HEAD", "/v1/session")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, POST")
    assert "HEAD" in (await api.call("PATCH", "/v1/runs")).headers["allow"]


async def test_the_root_says_where_to_go(api: Api) -> None:
    page = await api.http.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for link in ("docs", "login", "dashboard/"):
        # Relative: a proxy may show the api below a path.
        assert f'href="{link}"' in page.text
        target = await api.http.get(f"/{link}", headers={"Accept": "text/html"}, follow_redirects=True)
        assert target.status_code == 200


async def test_a_websocket_where_there_is_none_is_404(api: Api) -> None:
    for path in ("/", "/v1/nowhere", "/v1/agents", "/v1/runs/1/logs/tails", "/v1/events/"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{api.ws}{path}", additional_headers=api.headers()):
                pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body or b"")["code"]) == (404, "not_found"), path


async def test_a_websockets_path_without_upgrade_is_426(api: Api) -> None:
    run = api.world.add_run()
    stripped: dict[str, Any] = {"Sec-WebSocket-Key": "x" * 22 + "==", "Sec-WebSocket-Version": "13"}
    for path in ("/v1/events", f"/v1/runs/{run.id}/logs/tail", f"/v1/runs/{run.id}/events"):
        answer = await api.http.get(path, headers={"Authorization": f"Bearer {FIRST_TOKEN}", **stripped})
        assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
        assert (answer.headers["upgrade"], answer.headers["connection"].lower()) == ("websocket", "upgrade")
        assert "Upgrade" in answer.json()["detail"]
    assert (await api.http.get("/v1/events")).status_code == 426
    assert (await api.call("GET", f"/v1/runs/{run.id}/events")).status_code == 200
    assert (await api.call("POST", "/v1/events")).status_code == 405
