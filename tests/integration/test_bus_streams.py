"""Appends, batched direct get and durable consumers against a real JetStream."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from proctor_common import subjects
from proctor_common.bus import (
    ACK,
    RETRY,
    TERMINATE,
    Bus,
    BusOptions,
    ConsumerSpec,
    Message,
    NotPermitted,
    StreamMessage,
    StreamRefused,
    StreamSpec,
    Verdict,
)
from proctor_common.bus.streams import event_consumer, event_stream, log_stream
from proctor_common.ids import new_id
from support.nats import NatsAccount, NatsServer
from support.wait import eventually

S = StreamSpec("S", ("s.>",), allow_direct=True)


@pytest.fixture
async def bus(nats: NatsAccount) -> AsyncIterator[Bus]:
    async with Bus(BusOptions((nats.url,), "test")) as connected:
        yield connected


@asynccontextmanager
async def running(work: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


def consume(bus: Bus, handler: object, **more: object) -> "contextlib._AsyncGeneratorContextManager[None]":
    return running(asyncio.create_task(bus.consume("S", "d", handler, **more)))  # type: ignore[arg-type]


async def test_the_streams_of_proctor_can_be_made_twice_and_changed(bus: Bus) -> None:
    for spec in (log_stream(), event_stream(), log_stream(max_bytes=1024**3)):
        await bus.ensure_stream(spec)
    for _ in range(2):
        await bus.ensure_consumer(event_consumer())
    woken: list[Message] = []
    agent, run, step = new_id(), new_id(), new_id()
    await bus.subscribe(subjects.live_of_run(run), woken.append)
    appended = await bus.append(subjects.log(agent, run, step, 1), b"chunk", msg_id="a:1")
    await eventually(lambda: woken, what="the notification")
    assert (woken[0].data, woken[0].headers["Nats-Sequence"]) == (b"", str(appended.seq))
    (stored,) = await bus.direct_get(subjects.LOG_STREAM, subject_filter=subjects.log_of_run(run))
    assert (stored.seq, stored.data, stored.num_pending) == (appended.seq, b"chunk", 0)
    assert stored.time.tzinfo is not None


async def test_services_that_start_together_make_one_stream_of_more_than_half_the_store(
    nats_server: NatsServer,
) -> None:
    """The server reserves for each that asks while the stream is being made, and would refuse the later ones."""
    spec = StreamSpec("WIDE", ("wide.>",), max_bytes=600 * 1024**4)
    async with contextlib.AsyncExitStack() as stack:
        options = BusOptions((nats_server.url,), "test")
        services = [await stack.enter_async_context(Bus(options)) for _ in range(6)]
        await asyncio.gather(*(one.ensure_stream(spec) for one in services))
        with pytest.raises(StreamRefused, match="10047"):
            await services[0].ensure_stream(StreamSpec("WIDER", ("wider.>",), max_bytes=600 * 1024**4))


async def test_appends_in_flight_are_many_and_each_knows_its_own_number(bus: Bus) -> None:
    await bus.ensure_stream(S)
    done = await asyncio.gather(*(bus.append(f"s.{n % 7}", str(n).encode(), msg_id=str(n)) for n in range(3000)))
    assert sorted(one.seq for one in done) == list(range(1, 3001))
    stored = {m.seq: m.data for at in range(1, 3001, 500) for m in await bus.direct_get("S", start_seq=at, batch=500)}
    assert [stored[one.seq] for one in done] == [str(n).encode() for n in range(3000)]
    again = await asyncio.gather(*(bus.append(f"s.{n % 7}", b"", msg_id=str(n)) for n in range(3000)))
    assert all(one.duplicate for one in again)
    assert (await bus.stream_state("S")).messages == 3000


async def test_a_full_stream_says_so(bus: Bus) -> None:
    await bus.ensure_stream(replace(S, max_bytes=1000, discard="new"))
    await bus.append("s.a", b"x" * 600)
    with pytest.raises(StreamRefused) as caught:
        await bus.append("s.a", b"x" * 600)
    assert caught.value.is_full
    assert caught.value.code == 10077


@pytest.mark.parametrize(("batch", "max_bytes"), [(7, 1 << 20), (1000, 2000), (1, 1 << 20)])
async def test_direct_get_pages_through_what_matches(bus: Bus, batch: int, max_bytes: int) -> None:
    await bus.ensure_stream(S)
    for n in range(60):
        await bus.append(f"s.{n % 3}.x", str(n).encode() * 20)
    found: list[int] = []
    at = 1
    while page := await bus.direct_get("S", start_seq=at, subject_filter="s.1.>", batch=batch, max_bytes=max_bytes):
        assert len(page) <= batch
        assert page[-1].num_pending == 20 - len(found) - len(page)
        assert {message.subject for message in page} == {"s.1.x"}
        found += [message.seq for message in page]
        at = page[-1].seq + 1
    assert found == list(range(2, 61, 3))
    last = await bus.last_stored("S", "s.1.>")
    assert last is not None
    assert last.seq == 59
    assert await bus.last_stored("S", "s.9.>") is None
    assert await bus.direct_get("S", start_seq=1, subject_filter="s.9.>") == []
    assert await bus.direct_get("S", start_seq=1000) == []


async def test_subjects_are_counted_and_purged(bus: Bus) -> None:
    await bus.ensure_stream(S)
    for n in range(10):
        await bus.append(f"s.{n % 2}", b"")
    assert await bus.stream_subjects("S", "s.>") == {"s.0": 5, "s.1": 5}
    assert await bus.purge_subject("S", "s.1") == 5
    assert await bus.stream_subjects("S", "s.>") == {"s.0": 5}
    assert await bus.stream_subjects("S", "t.>") == {}
    with pytest.raises(StreamRefused) as caught:
        await bus.stream_state("NONE")
    assert caught.value.code == 10059


async def test_the_api_reads_with_the_one_permission_it_has(nats_server: NatsServer) -> None:
    nats_server.reload(
        """authorization { users: [
          { user: all, password: pw }
          { user: api, password: pw, permissions: {
              publish: ["$JS.API.DIRECT.GET.LOG"], subscribe: ["_INBOX_api.>", "proctor.v1.live.>"] } }
        ] }"""
    )
    address = f"127.0.0.1:{nats_server.port}"
    await eventually(lambda: "Reloaded server configuration" in nats_server.log, what="the new configuration")
    run = new_id()
    async with (
        Bus(BusOptions((f"nats://all:pw@{address}",), "all")) as everybody,
        Bus(BusOptions((f"nats://api:pw@{address}",), "api", inbox_prefix="_INBOX_api")) as api,
    ):
        await everybody.ensure_stream(log_stream())
        await everybody.append(subjects.log(new_id(), run, new_id(), 1), b"chunk")
        assert len(await api.direct_get("LOG", subject_filter=subjects.log_of_run(run))) == 1
        last = await api.last_stored("LOG", subjects.log_of_run(run))
        assert last is not None
        assert last.data == b"chunk"
        with pytest.raises(NotPermitted):
            await api.stream_state("LOG")


async def test_one_subject_is_handled_in_order_and_others_at_once(bus: Bus) -> None:
    await bus.ensure_stream(S)
    await bus.ensure_consumer(ConsumerSpec("S", "d"))
    order: dict[str, list[int]] = {}
    now: Counter[str] = Counter()
    most = 0

    async def handler(message: StreamMessage) -> Verdict:
        nonlocal most
        now[message.subject] += 1
        assert now[message.subject] == 1
        most = max(most, now.total())
        await asyncio.sleep(0.001)
        order.setdefault(message.subject, []).append(int(message.data))
        now[message.subject] -= 1
        return ACK

    await asyncio.gather(*(bus.append(f"s.{n % 20}", str(n).encode()) for n in range(400)))
    async with consume(bus, handler, batch=50, concurrency=5):
        await eventually(lambda: sum(map(len, order.values())) == 400, what="all messages")
        assert all(numbers == sorted(numbers) for numbers in order.values())
        assert 1 < most <= 5
        assert bus.handler_failures == 0


async def test_verdicts(bus: Bus) -> None:
    await bus.ensure_stream(replace(S, retention="workqueue"))
    await bus.ensure_consumer(ConsumerSpec("S", "d"))
    seen: list[tuple[bytes, int]] = []

    async def handler(message: StreamMessage) -> Verdict:
        seen.append((message.data, message.deliveries))
        match message.data, message.deliveries:
            case b"later", 1:
                return RETRY(0.05)
            case b"poison", _:
                return TERMINATE
            case b"fails", 1 | 2:
                raise ValueError("not yet")
        return ACK

    async with consume(bus, handler, retry_delay=0.02):
        for data in (b"good", b"later", b"poison", b"fails"):
            await bus.append("s.a", data)

        async def empty() -> bool:
            return (await bus.stream_state("S")).messages == 0

        await eventually(empty, what="an empty stream")
    assert Counter(data for data, _ in seen) == {b"good": 1, b"later": 2, b"poison": 1, b"fails": 3}
    assert bus.handler_failures == 2


async def test_an_event_that_comes_to_an_idle_consumer_is_handled_at_once(bus: Bus) -> None:
    await bus.ensure_stream(S)
    await bus.ensure_consumer(ConsumerSpec("S", "d"))
    handled = asyncio.Event()

    async def handler(message: StreamMessage) -> Verdict:
        handled.set()
        return ACK

    async with consume(bus, handler):
        for _ in range(20):
            handled.clear()
            await bus.append("s.a", b"")
            async with asyncio.timeout(2):
                await handled.wait()


async def test_a_consumer_that_ends_gives_back_what_it_has_not_begun(bus: Bus) -> None:
    await bus.ensure_stream(S)
    await bus.ensure_consumer(ConsumerSpec("S", "d", ack_wait=60))
    begun: list[bytes] = []
    go = asyncio.Event()

    async def slow(message: StreamMessage) -> Verdict:
        begun.append(message.data)
        await go.wait()
        return ACK

    second: list[bytes] = []

    async def quick(message: StreamMessage) -> Verdict:
        second.append(message.data)
        return ACK

    for n in range(5):
        await bus.append("s.a", str(n).encode())
    async with consume(bus, slow):
        await eventually(lambda: begun, what="the first message")
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert begun == [b"0"]
    async with consume(bus, quick):
        await eventually(lambda: len(second) == 4, 5, "what was given back")
    assert sorted(second) == [b"1", b"2", b"3", b"4"]


async def test_two_replicas_share_a_durable(nats: NatsAccount, bus: Bus) -> None:
    await bus.ensure_stream(S)
    await bus.ensure_consumer(ConsumerSpec("S", "d"))
    seen: list[bytes] = []

    async def handler(message: StreamMessage) -> Verdict:
        seen.append(message.data)
        return ACK

    async with (
        Bus(BusOptions((nats.url,), "other")) as other,
        consume(bus, handler, batch=5),
        consume(other, handler, batch=5),
    ):
        await asyncio.gather(*(bus.append(f"s.{n}", str(n).encode()) for n in range(100)))
        await eventually(lambda: len(seen) >= 100, what="all messages")
    assert len(seen) == len(set(seen)) == 100


async def test_a_consumer_waits_for_a_stream_that_is_not_there_yet(bus: Bus) -> None:
    seen: list[bytes] = []

    async def handler(message: StreamMessage) -> Verdict:
        seen.append(message.data)
        return ACK

    async with consume(bus, handler, retry_delay=0.05):
        await bus.ensure_stream(S)
        await bus.ensure_consumer(ConsumerSpec("S", "d"))
        await bus.append("s.a", b"x")
        await eventually(lambda: seen, 15, "the message")
