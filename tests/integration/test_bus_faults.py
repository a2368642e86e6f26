"""The bus while its server is killed, paused, sends rubbish or turns it away: everything heals, and nothing lies."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from proctor_common.bus import (
    ACK,
    Bus,
    BusError,
    BusOptions,
    BusTimeout,
    BusUnavailable,
    ConsumerSpec,
    Message,
    StreamMessage,
    StreamSpec,
    Verdict,
)
from support.nats import NatsServer
from support.processes import free_port
from support.wait import eventually


def options(url: str, **more: object) -> BusOptions:
    quick = {"ping_interval": 0.2, "ping_timeout": 1.0, "connect_timeout": 1.0, "reconnect_wait": (0.02, 0.2), **more}
    return BusOptions((url,), "test", **quick)  # type: ignore[arg-type]


async def echo(message: Message) -> bytes:
    return message.data + b"!"


async def works(bus: Bus, subject: str) -> bool:
    try:
        return await bus.request(subject, b"x", timeout=1) == b"x!"
    except BusError:
        return False


async def test_everything_heals_when_the_server_is_killed(nats_server: NatsServer) -> None:
    handled: list[bytes] = []
    woken: list[bytes] = []
    rebuilt: list[str] = []

    async def handler(message: StreamMessage) -> Verdict:
        handled.append(message.data)
        return ACK

    async with Bus(options(nats_server.url)) as bus, Bus(options(nats_server.url)) as peer:
        await bus.ensure_stream(StreamSpec("S", ("s.>",)))
        await bus.ensure_consumer(ConsumerSpec("S", "d"))
        await bus.serve("first", echo, queue="q")
        await bus.serve("second.*", echo)
        await bus.subscribe("wake.>", lambda message: woken.append(message.data))
        bus.on_rebuild(lambda: rebuilt.append("rebuilt"))
        consuming = asyncio.create_task(bus.consume("S", "d", handler))
        stored = [await peer.append("s.a", str(n).encode(), msg_id=f"m{n}") for n in range(3)]
        await eventually(lambda: len(handled) == 3, what="three events")

        async def survive() -> None:
            wakes, news = len(woken), handled.count(b"new")
            nats_server.kill()
            await eventually(lambda: not bus.connected, what="the loss to be noticed")
            with pytest.raises(BusUnavailable):
                await bus.request("first", b"", timeout=5)
            with pytest.raises(BusUnavailable):
                await bus.append("s.a", b"", timeout=5)
            assert bus.watchdog_age < 5
            nats_server.start()
            await eventually(lambda: works(peer, "first"), 15, "the first subscription")
            await eventually(lambda: works(peer, "second.x"), 15, "the second subscription")
            await peer.publish("wake.run", b"now")
            await eventually(lambda: len(woken) > wakes, what="a wake-up")
            again = await peer.append("s.a", b"0", msg_id="m0")
            assert (again.seq, again.duplicate) == (stored[0].seq, True)
            await peer.append("s.b", b"new")
            await eventually(lambda: handled.count(b"new") > news, 4, "the consumer to go on")

        await survive()
        await survive()
        assert len(rebuilt) == bus.restarts == 2
        consuming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await consuming


async def test_what_is_in_flight_when_the_server_dies_is_unknown_at_once(nats_server: NatsServer) -> None:
    never = asyncio.Event()

    async def silent(message: Message) -> bytes:
        await never.wait()
        return b""

    async with Bus(options(nats_server.url)) as bus, Bus(options(nats_server.url)) as peer:
        await peer.serve("silent", silent)
        requests = [asyncio.create_task(bus.request("silent", b"", timeout=60)) for _ in range(3)]
        await bus.rtt()
        nats_server.kill()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(result) for result in results] == [BusTimeout] * 3
        never.set()
        ending = asyncio.get_running_loop().time()
    # The client swallows a cancellation while it connects: ending must not wait for it.
    assert asyncio.get_running_loop().time() - ending < 4


async def test_every_acknowledged_append_is_there_after_kills(nats_server: NatsServer) -> None:
    acknowledged: set[str] = set()
    stop = asyncio.Event()

    async def write(bus: Bus, writer: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"{writer}:{number}"
            try:
                await bus.append(f"s.{writer}", name.encode(), msg_id=name, timeout=2)
            except BusError:
                await bus.wait_connected(5)
                continue
            acknowledged.add(name)
            number += 1
            await asyncio.sleep(0.001)

    async with Bus(options(nats_server.url)) as bus:
        await bus.ensure_stream(StreamSpec("S", ("s.>",), allow_direct=True))
        writers = [asyncio.create_task(write(bus, n)) for n in range(16)]
        for n in range(2):
            await eventually(lambda n=n: len(acknowledged) > 200 * (n + 1), what="appends")  # type: ignore[misc]
            nats_server.restart()
        await eventually(lambda: len(acknowledged) > 700, 15, "appends after the restarts")
        stop.set()
        await asyncio.gather(*writers)
        stored: list[str] = []
        while found := await bus.direct_get("S", start_seq=len(stored) + 1, batch=1000):
            stored += [message.data.decode() for message in found]
        assert acknowledged <= set(stored)
        assert len(stored) == len(set(stored))


async def test_a_server_that_does_not_answer_is_noticed(nats_server: NatsServer) -> None:
    async with Bus(options(nats_server.url, ping_timeout=0.3)) as bus, Bus(options(nats_server.url)) as peer:
        await bus.serve("a", echo)

        async def no_answer() -> bool:
            try:
                await peer.request("a", b"", timeout=0.1)
            except BusTimeout:
                return True
            return False

        nats_server.pause()
        try:
            # The signal takes a moment: what is asked before may still be answered.
            await eventually(no_answer, what="the server to stop")
            await eventually(lambda: not bus.connected, what="the silence to be noticed")
        finally:
            nats_server.go_on()
        await eventually(lambda: works(peer, "a"), 15, "the subscription")


async def test_a_user_who_was_turned_away_comes_back_when_permitted_again(nats_server: NatsServer) -> None:
    address = f"127.0.0.1:{nats_server.port}"
    known = "authorization {{ users: [{{ user: a, password: pw }}, {{ user: {}, password: pw }}] }}\n"
    nats_server.reload(known.format("agent"))
    await eventually(lambda: "Reloaded server configuration" in nats_server.log, what="the new configuration")
    async with (
        Bus(options(f"nats://agent:pw@{address}")) as bus,
        Bus(options(f"nats://a:pw@{address}")) as peer,
    ):
        await bus.serve("a", echo)
        nats_server.reload(known.format("somebody"))
        await eventually(lambda: not bus.connected, what="the revocation")

        async def reason() -> str:
            with pytest.raises(BusUnavailable) as caught:
                await bus.request("a", b"", timeout=1)
            return str(caught.value)

        async def turned_away() -> bool:
            return "authorization" in (await reason()).lower()

        await eventually(turned_away, what="the reason")
        assert "pw" not in await reason()
        nats_server.reload(known.format("agent"))
        await eventually(lambda: works(peer, "a"), 15, "the subscription")


@dataclass
class Proxy:
    """A TCP proxy before the server, to say things that no server says."""

    target: int
    port: int = field(default_factory=free_port)
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", self.target)
        self.clients.append(writer)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, down), copy(up, writer))


@pytest.fixture
async def proxy(nats_server: NatsServer) -> AsyncIterator[Proxy]:
    made = Proxy(nats_server.port)
    server = await asyncio.start_server(made.run, "127.0.0.1", made.port)
    yield made
    server.close()
    for writer in made.clients:
        writer.close()


@pytest.mark.parametrize("rubbish", [b"RUBBISH\r\n", b"HMSG x 1 8 8\r\nNATS/1.0\r\n", b"-ERR 'odd'\r\n", b"MSG\r\n"])
async def test_rubbish_from_the_server_costs_a_connection_only(
    nats_server: NatsServer, proxy: Proxy, rubbish: bytes
) -> None:
    async with (
        Bus(options(f"nats://127.0.0.1:{proxy.port}")) as bus,
        Bus(options(nats_server.url)) as peer,
    ):
        await bus.serve("a", echo)
        assert await works(peer, "a")
        proxy.clients[0].write(rubbish)
        await eventually(lambda: bus.restarts == 1, what="another connection")
        await eventually(lambda: works(peer, "a"), what="the subscription")
        assert len(proxy.clients) == 2


async def test_connections_that_die_young_are_not_made_in_a_busy_loop(nats_server: NatsServer, proxy: Proxy) -> None:
    url = f"nats://127.0.0.1:{proxy.port}"
    async with Bus(options(url, reconnect_wait=(0.1, 0.2))) as bus:
        started = asyncio.get_running_loop().time()

        async def died_again() -> bool:
            proxy.clients[-1].close()
            return bus.restarts >= 5

        await eventually(died_again, what="five connections")
        assert asyncio.get_running_loop().time() - started > 5 * 0.05


async def test_waiting_for_the_bus_lets_it_come_back(nats_server: NatsServer, proxy: Proxy) -> None:
    """A consumer that asks for the connection in the very moment of its death must not hold up its replacement."""
    async with Bus(options(f"nats://127.0.0.1:{proxy.port}")) as bus:

        async def ask() -> None:
            while bus.restarts < 3:
                await bus.wait_connected(5)
                if bus.connected:
                    proxy.clients[-1].close()
                    with contextlib.suppress(BusError):
                        await bus.rtt()

        async with asyncio.timeout(20):
            await ask()


async def test_a_start_waits_for_the_server(nats_server: NatsServer) -> None:
    nats_server.kill()

    async def start() -> bool:
        async with Bus(options(nats_server.url, start_timeout=20)) as bus:
            return bus.connected

    starting = asyncio.create_task(start())
    await asyncio.sleep(0)
    await asyncio.to_thread(nats_server.start)
    assert await starting


async def test_a_start_gives_up_with_the_reason() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(BusUnavailable, match="Connect call failed"):
        async with Bus(options(url, start_timeout=0.3)):
            pass


async def test_plain_text_is_refused_beyond_loopback(nats_server: NatsServer) -> None:
    with pytest.raises(BusUnavailable, match="TLS"):
        async with Bus(options(f"tls://127.0.0.1:{nats_server.port}", start_timeout=0.1)):
            pass
    assert not BusOptions(("nats://127.0.0.1:1", "localhost:2", "nats://[::1]:3"), "x").needs_tls
    assert BusOptions(("nats://127.0.0.1:1", "nats://192.0.2.1:2"), "x").needs_tls
    assert BusOptions(("nats://nats.example",), "x").needs_tls
    assert not BusOptions(("nats://nats.example",), "x", allow_plaintext=True).needs_tls
    assert BusOptions(("nats://127.0.0.1:1",), "x", ca_file="ca.pem", allow_plaintext=True).needs_tls
    assert ssl.HAS_TLSv1_3
