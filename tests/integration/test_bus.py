"""The bus against a real server: what each call promises while nothing is wrong."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proctor_common.bus import (
    Bus,
    BusOptions,
    BusTimeout,
    BusUnavailable,
    Message,
    NoResponders,
    NotPermitted,
    PeerFailed,
    TooLarge,
)
from support.nats import NatsAccount, NatsServer
from support.wait import eventually


@pytest.fixture
async def bus(nats: NatsAccount) -> AsyncIterator[Bus]:
    async with Bus(BusOptions((nats.url,), "test")) as connected:
        yield connected


@pytest.fixture
async def other(nats: NatsAccount) -> AsyncIterator[Bus]:
    async with Bus(BusOptions((nats.url,), "other")) as connected:
        yield connected


async def echo(message: Message) -> bytes:
    return message.data + b"!"


async def test_a_request_is_answered_by_one_of_the_queue_group(bus: Bus, other: Bus) -> None:
    asked: list[str] = []

    async def first(message: Message) -> bytes:
        asked.append("first")
        return message.headers.get("X-Trace", "").encode()

    async def second(message: Message) -> bytes:
        asked.append("second")
        return message.headers.get("X-Trace", "").encode()

    await bus.serve("a.*", first, queue="q")
    await other.serve("a.*", second, queue="q")
    for n in range(50):
        assert await bus.request("a.b", b"", timeout=5, headers={"X-Trace": str(n)}) == str(n).encode()
    assert len(asked) == 50
    assert set(asked) == {"first", "second"}


async def test_all_who_listen_are_asked(bus: Bus, other: Bus) -> None:
    async def second(message: Message) -> bytes:
        return b"second"

    await bus.serve("who", echo)
    await other.serve("who", second)
    assert sorted(await bus.gather("who", b"first", timeout=5)) == [b"first!", b"second"]
    with pytest.raises(NoResponders):
        await bus.gather("nobody", b"", timeout=5)


async def test_a_subscription_stands_when_serve_returns(bus: Bus, other: Bus) -> None:
    for n in range(100):
        await bus.serve(f"a.{n}", echo)
        assert await other.request(f"a.{n}", b"x", timeout=5) == b"x!"


async def test_nobody_there_is_known_at_once(bus: Bus) -> None:
    started = asyncio.get_running_loop().time()
    with pytest.raises(NoResponders) as caught:
        await bus.request("nobody", b"", timeout=30)
    with pytest.raises(NoResponders):
        await bus.append("no.stream", b"", timeout=30)
    with pytest.raises(NoResponders):
        await bus.direct_get("NONE", timeout=30)
    assert asyncio.get_running_loop().time() - started < 5
    assert caught.value.delivered is False


async def test_no_answer_in_time_leaves_the_delivery_unknown(bus: Bus) -> None:
    never = asyncio.Event()

    async def silent(message: Message) -> bytes:
        await never.wait()
        return b""

    subscription = await bus.serve("silent", silent)
    with pytest.raises(BusTimeout) as caught:
        await bus.request("silent", b"", timeout=0.05)
    assert caught.value.delivered is None
    never.set()
    await subscription.close()
    with pytest.raises(NoResponders):
        await bus.request("silent", b"", timeout=5)


async def test_a_handler_that_raises_answers_and_goes_on(bus: Bus) -> None:
    async def handler(message: Message) -> bytes:
        if message.data == b"bad":
            raise ValueError("a secret of ours")
        return b"ok"

    await bus.serve("a", handler)
    with pytest.raises(PeerFailed) as caught:
        await bus.request("a", b"bad", timeout=5)
    assert "secret" not in str(caught.value)
    assert await bus.request("a", b"good", timeout=5) == b"ok"
    assert bus.handler_failures == 1


async def test_a_callback_that_raises_does_not_stop_the_next_message(bus: Bus, other: Bus) -> None:
    seen: list[bytes] = []

    def callback(message: Message) -> None:
        seen.append(message.data)
        raise RuntimeError("in a callback")

    await bus.subscribe("wake.>", callback)
    for n in range(3):
        await other.publish("wake.run", str(n).encode())
    await eventually(lambda: len(seen) == 3, what="three wake-ups")
    assert seen == [b"0", b"1", b"2"]
    assert bus.handler_failures == 3
    assert await bus.rtt() < 5


async def test_at_most_so_many_handlers_run_at_once(bus: Bus, other: Bus) -> None:
    running = most = 0
    go = asyncio.Event()

    async def handler(message: Message) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return b""

    await bus.serve("a", handler, concurrency=3)
    requests = [asyncio.create_task(other.request("a", b"", timeout=10)) for _ in range(10)]
    await eventually(lambda: running == 3, what="three handlers to run")
    await other.rtt()
    go.set()
    await asyncio.gather(*requests)
    assert most == 3


async def test_closing_lets_a_running_handler_answer(nats: NatsAccount, bus: Bus) -> None:
    go, started = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> bytes:
        started.set()
        await go.wait()
        return b"done"

    async with Bus(BusOptions((nats.url,), "server")) as server:
        await server.serve("slow", slow)
        request = asyncio.create_task(bus.request("slow", b"", timeout=10))
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert await request == b"done"


async def test_what_is_too_large_is_not_sent(bus: Bus) -> None:
    await bus.serve("a", echo)
    with pytest.raises(TooLarge):
        await bus.request("a", b"x" * (5 * 1024 * 1024), timeout=5)
    assert await bus.request("a", b"x", timeout=5) == b"x!"


async def test_a_subject_cannot_smuggle_a_command(bus: Bus) -> None:
    with pytest.raises(ValueError, match="subject"):
        await bus.publish("a b\r\nPUB c 0\r\n", b"")
    with pytest.raises(ValueError, match="subject"):
        await bus.subscribe("a\r\nSUB > 9", lambda message: None)
    assert await bus.rtt() < 5


async def test_a_cancelled_round_trip_does_not_break_the_connection(bus: Bus) -> None:
    await bus.serve("a", echo)
    for _ in range(50):
        task = asyncio.create_task(bus.rtt())
        await asyncio.sleep(0)
        task.cancel()
    assert await bus.request("a", b"x", timeout=5) == b"x!"
    assert bus.restarts == 0


async def test_what_the_server_forbids_is_named_at_once(nats_server: NatsServer) -> None:
    nats_server.reload(
        """
        authorization { users: [
          { user: all, password: pw }
          { user: agent, password: pw, permissions: {
              publish: ["evt.agent.>"], subscribe: ["cmd.agent.*", "_INBOX_agent.>"], allow_responses: { max: 1 } } }
        ] }
        """
    )
    address = f"127.0.0.1:{nats_server.port}"
    await eventually(lambda: "Reloaded server configuration" in nats_server.log, what="the new configuration")
    async with (
        Bus(BusOptions((f"nats://all:pw@{address}",), "controller")) as controller,
        Bus(BusOptions((f"nats://agent:pw@{address}",), "agent", inbox_prefix="_INBOX_agent")) as agent,
    ):
        await controller.serve("evt.>", echo)
        await agent.serve("cmd.agent.start", echo)
        assert await agent.request("evt.agent.a", b"x", timeout=5) == b"x!"
        assert await controller.request("cmd.agent.start", b"y", timeout=5) == b"y!"
        with pytest.raises(NotPermitted) as caught:
            await agent.request("evt.Other.a", b"", timeout=30)
        assert caught.value.delivered is False
        with pytest.raises(NotPermitted):
            await agent.append("evt.Other.a", b"", timeout=30)
        with pytest.raises(NotPermitted):
            await agent.serve("cmd.*.start", echo)
        with pytest.raises(NotPermitted):
            await agent.subscribe("_INBOX.>", lambda message: None)
        nats_server.reload(nats_server.config.replace('"cmd.agent.*"', '"cmd.agent.*", "later"'))
        await eventually(lambda: nats_server.log.count("Reloaded server configuration") == 2, what="more permissions")
        await agent.wait_connected(5)
        await agent.serve("later", echo)
        assert await agent.request("evt.agent.a", b"x", timeout=5) == b"x!"


async def test_closed_means_unavailable(nats: NatsAccount) -> None:
    async with Bus(BusOptions((nats.url,), "test")) as bus:
        assert bus.connected
    assert not bus.connected
    with pytest.raises(BusUnavailable):
        await bus.request("a", b"", timeout=5)
