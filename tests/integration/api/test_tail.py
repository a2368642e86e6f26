"""The tail over a real websocket: everything once, in order, from any cursor, to an end that is known."""

import asyncio
import base64
import json
import random
import socket as socketlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from proctor_common import subjects
from proctor_common.ids import new_id
from proctor_common.messages.log import Chunk
from proctor_common.states import GapReason, RunResult, Source
from support.api_world import Api, Attempt, FakeRun
from support.wait import eventually


def tail_url(api: Api, run: FakeRun, **query: str) -> str:
    return f"{api.ws}/v1/runs/{run.id}/logs/tail?" + "&".join(f"{k}={v}" for k, v in query.items())


@asynccontextmanager
async def tailing(api: Api, run: FakeRun, **query: str) -> AsyncIterator[ClientConnection]:
    async with connect(tail_url(api, run, **query), additional_headers=api.headers(), compression=None) as socket:
        yield socket


async def read_all(api: Api, run: FakeRun, **query: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(20), tailing(api, run, **query) as socket:
        return [json.loads(text) async for text in socket]


async def take(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The next frames that are no heartbeat."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            frame = json.loads(await socket.recv())
            if frame["type"] != "heartbeat":
                found.append(frame)
    return found


def texts(frames: list[dict[str, Any]], step: str | None = None) -> str:
    return "".join(f["text"] for f in frames if f["type"] == "chunk" and step in {None, f["step"]})


async def closed(socket: ClientConnection) -> int | None:
    """The close code, after whatever still comes."""
    async with asyncio.timeout(20):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None


@pytest.fixture
def run(api: Api) -> FakeRun:
    return api.world.add_run()


@pytest.fixture
def attempt(api: Api, run: FakeRun) -> Attempt:
    return api.world.begin(run)


async def end(api: Api, run: FakeRun, *attempts: Attempt) -> None:
    for one in attempts:
        await api.world.finish_attempt(run, one)
    await api.world.finish(run)


async def test_chunks_out_of_order_and_twice_are_shown_in_order_and_once(
    api: Api, run: FakeRun, attempt: Attempt
) -> None:
    world = api.world
    chunks = [world.chunk(attempt, f"line {n}\n".encode()) for n in range(1, 61)]
    mixed = list(range(60))
    random.Random(7).shuffle(mixed)
    async with tailing(api, run) as socket:
        for n in mixed[:30]:
            await world.store(run, attempt, chunks[n])
        for n in [*mixed[30:], *mixed[::4]]:
            await world.store(run, attempt, chunks[n], again=True)
        await end(api, run, attempt)
        async with asyncio.timeout(20):
            frames = [json.loads(text) async for text in socket]
    assert texts(frames) == "".join(f"line {n}\n" for n in range(1, 61))
    assert [f["first_line"] for f in frames if f["type"] == "chunk"] == list(range(1, 61))
    assert frames[-1] == {"type": "end", "result": "passed"}
    assert socket.close_code == 1000


async def test_a_cursor_of_any_frame_goes_on_behind_it(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    other = world.begin(run, "test")
    await world.announce(run, world.event(run, "running", attempt=attempt))
    await asyncio.gather(
        world.write(run, attempt, *(f"b{n}\n" for n in range(8))),
        world.write(run, other, *(f"t{n}\n" for n in range(8))),
    )
    await end(api, run, attempt, other)
    whole = await read_all(api, run)
    assert texts(whole, "build") == "".join(f"b{n}\n" for n in range(8))
    for at, frame in enumerate(whole):
        if "cursor" not in frame:
            continue
        assert len(frame["cursor"]) <= 4096
        rest = await read_all(api, run, after=frame["cursor"])
        assert [{**f, "cursor": ""} for f in rest] == [{**f, "cursor": ""} for f in whole[at + 1 :]]


async def test_a_live_viewer_sees_what_comes_while_he_watches(api: Api, run: FakeRun, attempt: Attempt) -> None:
    async with tailing(api, run) as socket:
        for n in range(20):
            await api.world.write(run, attempt, f"{n}\n")
            assert texts(await take(socket, 1)) == f"{n}\n"


async def test_an_end_that_nobody_announced_is_found(start_api: Any) -> None:
    api: Api = await start_api(record_check=0.5)
    run = api.world.add_run()
    attempt = api.world.begin(run)
    async with tailing(api, run) as socket:
        await api.world.write(run, attempt, "one\n")
        await take(socket, 1)
        attempt.chunks = 1
        await api.world.finish(run, announce=False)
        assert await take(socket, 1) == [{"type": "end", "result": "passed"}]


async def test_each_kind_of_source_and_bytes_that_are_no_text(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    await world.store(run, attempt, world.chunk(attempt, b"\xff\xfe ok\n", source=Source.STDERR))
    await world.store(run, attempt, world.chunk(attempt, "äöü漢\x1b[31m\x00\n".encode(), source=Source.SYSTEM))
    await end(api, run, attempt)
    frames = await read_all(api, run)
    assert [(f["source"], f["text"]) for f in frames if f["type"] == "chunk"] == [
        ("stderr", "\ufffd\ufffd ok\n"),
        ("system", "äöü漢\x1b[31m\x00\n"),
    ]
    raw = await api.call("GET", f"/v1/runs/{run.id}/logs?format=raw")
    assert raw.content == b"\xff\xfe ok\n" + "äöü漢\x1b[31m\x00\n".encode()


async def test_a_step_is_shown_alone(api: Api, run: FakeRun, attempt: Attempt) -> None:
    other = api.world.begin(run, "test")
    await api.world.write(run, attempt, "build\n")
    await api.world.write(run, other, "test\n")
    await end(api, run, attempt, other)
    frames = await read_all(api, run, step="test")
    assert [f["type"] for f in frames] == ["chunk", "step", "end"]
    assert texts(frames) == "test\n"


async def test_chunks_of_an_agent_that_never_held_the_attempt_are_not_shown(
    api: Api, run: FakeRun, attempt: Attempt
) -> None:
    world = api.world
    forged = Chunk(1, 1, 0.0, Source.STDOUT, b"forged\n")
    await world.store(run, attempt, forged, agent=new_id(), again=True)
    await world.write(run, attempt, "true\n")
    await world.store(run, attempt, Chunk(2, 2, 0.0, Source.STDOUT, b"forged\n"), agent=new_id(), again=True)
    await world.bus.append(subjects.log(attempt.agent, run.id, new_id(), 1), forged.encode())
    await world.bus.append(subjects.log(attempt.agent, run.id, attempt.step_id, 1), b"no chunk at all")
    await end(api, run, attempt)
    assert texts(await read_all(api, run)) == "true\n"


async def test_an_attempt_that_begins_while_the_tail_is_open_is_shown(api: Api, run: FakeRun) -> None:
    async with tailing(api, run) as socket:
        asked = api.world.asked
        await eventually(
            lambda: len(asked.get("run.log_index", [])) >= 2, what="the viewer to have a record without it"
        )
        # No announcement: the chunk itself must make the tail look at the record.
        late = api.world.begin(run, "late")
        await api.world.write(run, late, "hello\n")
        assert texts(await take(socket, 1)) == "hello\n"


async def test_what_is_no_longer_kept_is_one_gap_then_the_rest_then_the_end(
    api: Api, run: FakeRun, attempt: Attempt
) -> None:
    world = api.world
    await world.write(run, attempt, "1\n", "2\n", "3\n")
    await world.bus.purge_subject("LOG", subjects.log_of_run(run.id))
    await world.write(run, attempt, "4\n", "5\n")
    await end(api, run, attempt)
    frames = await read_all(api, run)
    kinds = [f["type"] for f in frames if f["type"] != "step"]
    assert kinds == ["gap", "chunk", "chunk", "end"]
    gap = next(f for f in frames if f["type"] == "gap")
    assert (gap["from"], gap["to"], gap["reason"], gap["step"], gap["attempt"]) == (1, 3, "expired", "build", 1)
    assert texts(await read_all(api, run, after=gap["cursor"])) == "4\n5\n"
    text = await api.call("GET", f"/v1/runs/{run.id}/logs")
    assert text.text == "[proctor: lines 1 to 3 cannot be shown: expired]\n4\n5\n"


async def test_a_front_that_is_gone_does_not_hold_up_an_attempt_that_goes_on(
    api: Api, run: FakeRun, attempt: Attempt
) -> None:
    world = api.world
    await world.write(run, attempt, "1\n", "2\n")
    await world.bus.purge_subject("LOG", subjects.log_of_run(run.id))
    await world.write(run, attempt, "3\n")
    async with tailing(api, run) as socket:
        frames = await take(socket, 2)
        assert [f["type"] for f in frames] == ["gap", "chunk"]
        assert (frames[0]["from"], frames[0]["to"], frames[0]["reason"]) == (1, 2, "expired")
        await world.write(run, attempt, "4\n")
        assert texts(await take(socket, 1)) == "4\n"


async def test_a_log_that_is_gone_wholly_ends_all_the_same(api: Api, run: FakeRun, attempt: Attempt) -> None:
    await api.world.write(run, attempt, "1\n", "2\n")
    await end(api, run, attempt)
    await api.world.bus.purge_subject("LOG", subjects.log_of_run(run.id))
    frames = [f for f in await read_all(api, run) if f["type"] != "step"]
    assert [f["type"] for f in frames] == ["gap", "end"]
    assert (frames[0]["from"], frames[0]["to"], frames[0]["bytes"]) == (1, 2, 4)


async def test_a_gap_that_the_agent_announced(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    await world.write(run, attempt, "1\n")
    attempt.seq += 1
    await world.store(run, attempt, Chunk(2, 2, 0.0, Source.STDOUT, b"", GapReason.SPOOL_FULL, 4096))
    await end(api, run, attempt)
    gap = next(f for f in await read_all(api, run) if f["type"] == "gap")
    assert (gap["from"], gap["to"], gap["bytes"], gap["reason"]) == (2, None, 4096, "spool_full")


async def test_the_end_waits_for_the_last_chunk_of_an_attempt(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    async with tailing(api, run) as socket:
        await world.write(run, attempt, "1\n")
        late = world.chunk(attempt, b"2\n")
        last = world.chunk(attempt, b"3\n")
        await world.store(run, attempt, last)
        await world.finish_attempt(run, attempt)
        await world.store(run, attempt, late)
        await world.finish(run, RunResult.FAILED)
        async with asyncio.timeout(20):
            frames = [json.loads(text) async for text in socket]
    assert texts(frames) == "1\n2\n3\n"
    assert frames[-1] == {"type": "end", "result": "failed"}


async def test_fifty_viewers_read_the_stream_no_more_than_one(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    reads: list[int] = []
    watch = await world.bus.subscribe(subjects.DIRECT_GET_LOG, lambda message: reads.append(len(message.data)))
    sockets = [await connect(tail_url(api, run), additional_headers=api.headers()) for _ in range(50)]
    try:
        await world.write(run, attempt, "first\n")
        await asyncio.gather(*(take(socket, 1) for socket in sockets))
        before = len(reads)
        for n in range(10):
            await world.write(run, attempt, f"{n}\n")
            got = await asyncio.gather(*(take(socket, 1) for socket in sockets))
            assert {texts(frames) for frames in got} == {f"{n}\n"}
        # A read a chunk, one for each tick, and a few that found nothing.
        assert len(reads) - before <= 60, f"{len(reads) - before} reads for 10 chunks and 50 viewers"
    finally:
        await watch.close()
        await asyncio.gather(*(socket.close() for socket in sockets))


async def test_a_viewer_who_stops_reading_is_closed_with_4408_and_no_other_is(start_api: Any) -> None:
    api: Api = await start_api(slow_viewer=1.0)
    run = api.world.add_run()
    attempt = api.world.begin(run)
    line = b"x" * 99 + b"\n"
    for _ in range(200):
        await api.world.store(run, attempt, api.world.chunk(attempt, line * 600))
    small = socketlib.create_connection(api.settings.address)
    small.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_RCVBUF, 16_384)
    small.setblocking(False)
    url = tail_url(api, run)
    async with connect(url, sock=small, additional_headers=api.headers(), compression=None, max_queue=1) as slow:
        quick = asyncio.create_task(read_all_until(api, run, 200 * 60_000))
        assert await quick == 200 * 60_000

        async def slow_is_counted() -> bool:
            answer = await api.call("GET", "/metrics")
            return "proctor_api_slow_viewers_total 1.0" in answer.text

        await eventually(slow_is_counted, 15, "the slow viewer to be closed")
        assert await closed(slow) == 4408


async def read_all_until(api: Api, run: FakeRun, size: int) -> int:
    got = 0
    async with tailing(api, run) as socket:
        while got < size:
            got += len(texts(await take(socket, 1)))
    return got


async def test_heartbeats_come_while_nothing_else_does(start_api: Any) -> None:
    api: Api = await start_api(heartbeat=0.3)
    run = api.world.add_run()
    async with asyncio.timeout(20), tailing(api, run) as socket:
        assert [json.loads(await socket.recv()) for _ in range(2)] == [{"type": "heartbeat"}] * 2


BAD_CURSORS = [
    ({"after": "nonsense"}, 4400),
    ({"after": "A" * 5000}, 4400),
    ({"after": base64.urlsafe_b64encode(b"\x01123456\x01\x00\x00").decode().rstrip("=")}, 4400),
]


async def test_a_bad_cursor_is_4400(api: Api, run: FakeRun) -> None:
    for query, code in BAD_CURSORS:
        async with tailing(api, run, **query) as socket:
            assert await closed(socket) == code


async def test_a_cursor_of_another_run_is_4400(api: Api, run: FakeRun, attempt: Attempt) -> None:
    await api.world.write(run, attempt, "1\n")
    async with tailing(api, run) as socket:
        cursor = (await take(socket, 1))[0]["cursor"]
    async with tailing(api, api.world.add_run(), after=cursor) as socket:
        assert await closed(socket) == 4400


async def test_an_unknown_step_is_4400_and_said_so(api: Api, run: FakeRun, attempt: Attempt) -> None:
    async with tailing(api, run, step="biuld") as socket:
        assert await closed(socket) == 4400
        assert socket.close_reason == "no such step: biuld"


async def test_a_cursor_that_is_too_long_is_said_so(api: Api, run: FakeRun) -> None:
    async with tailing(api, run, after="A" * 5000) as socket:
        assert await closed(socket) == 4400
        assert socket.close_reason == "the cursor is too long"


async def test_an_unknown_run_is_4404(api: Api) -> None:
    async with tailing(api, FakeRun(new_id(), 0)) as socket:
        assert await closed(socket) == 4404


async def test_a_tail_without_controllers_asks_to_come_back(api: Api, run: FakeRun) -> None:
    await api.world.stop()
    async with tailing(api, run) as socket:
        assert await closed(socket) == 1012


async def test_the_log_goes_on_while_controllers_hang_or_are_away(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    async with tailing(api, run) as socket:
        await world.write(run, attempt, "1\n")
        assert texts(await take(socket, 1)) == "1\n"
        world.silent |= {"run.log_index", "run.events"}
        await world.finish_attempt(run, attempt, chunks=3)
        await world.write(run, attempt, "2\n")
        async with asyncio.timeout(2):
            assert texts(await take(socket, 1)) == "2\n"
        await world.stop()
        await world.write(run, attempt, "3\n")
        async with asyncio.timeout(2):
            assert texts(await take(socket, 1)) == "3\n"
        world.silent.clear()
        await world.start()
        await world.finish(run)
        async with asyncio.timeout(20):
            assert [json.loads(text)["type"] async for text in socket] == ["step", "end"]


async def test_a_stream_that_was_made_anew_is_read_from_its_start(api: Api, run: FakeRun, attempt: Attempt) -> None:
    world = api.world
    await world.write(run, attempt, "1\n", "2\n")
    async with tailing(api, run) as socket:
        cursor = (await take(socket, 2))[-1]["cursor"]
    await world.bus.purge_subject("LOG", ">")
    await world.write(run, attempt, "3\n")
    async with tailing(api, run, after=cursor) as socket:
        assert texts(await take(socket, 1)) == "3\n"
