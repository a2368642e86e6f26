"""What the auth callout lets an agent do on a real server, and how an agent is cut off."""

from collections.abc import Iterator

import pytest

from proctor_common import subjects
from proctor_common.bus import Bus, BusError, BusUnavailable, Message, NotPermitted
from proctor_common.ids import new_id
from support.control import Agent, Control, SecureNats, control, controller, controller_settings, new_key
from support.postgres import Database
from support.wait import eventually


@pytest.fixture
def own_nats() -> Iterator[SecureNats]:
    server = SecureNats()
    try:
        yield server.start()
    finally:
        server.close()


async def test_an_agent_speaks_for_itself_alone(here: Control) -> None:
    agent, other = await here.join("node-1"), await here.join("node-2")
    run, step = new_id(), new_id()
    async with agent.connect() as bus:
        await agent.register(bus)
        assert (await bus.append(subjects.log(agent.id, run, step, 1), b"x")).stream == "LOG"
        assert (await bus.append(subjects.event(agent.id, step, 1), b"x")).stream == "EVENT"
        for subject in (
            subjects.log(other.id, run, step, 1),
            subjects.event(other.id, step, 1),
            subjects.heartbeat(other.id),
            subjects.registration(other.id),
            subjects.order(other.id, "start"),
            subjects.call("agent.list"),
            subjects.wake(run),
            subjects.AUTH_CALLOUT,
            subjects.DIRECT_GET_LOG,
            "$JS.API.STREAM.INFO.LOG",
            "$JS.API.STREAM.DELETE.LOG",
            "$JS.API.CONSUMER.CREATE.EVENT",
            "$SYS.REQ.SERVER.PING",
            "anything",
        ):
            with pytest.raises(NotPermitted):
                await bus.request(subject, b"{}", timeout=5)
        for subject in (
            f"{subjects.inbox_prefix(other.id)}.>",
            f"{subjects.inbox_prefix('api')}.>",
            subjects.orders(other.id),
            subjects.ALL_HEARTBEATS,
            subjects.ALL_CALLS,
            subjects.ALL_WAKES,
            subjects.LIVE_SUBJECTS,
            subjects.AUTH_CALLOUT,
            ">",
        ):
            with pytest.raises(NotPermitted):
                await bus.subscribe(subject, lambda _: None)


async def test_an_agent_answers_orders(here: Control, secure_nats: SecureNats) -> None:
    agent = await here.join("node-1")

    async def answer(message: Message) -> bytes:
        return b"answer to " + message.data

    seed = secure_nats.controller.seed
    async with (
        agent.connect() as bus,
        Bus(agent.options(name="a controller", nkey_seed=seed, inbox_prefix="_INBOX_ctl")) as ordering,
    ):
        await bus.serve(subjects.orders(agent.id), answer)
        for n in range(3):
            reply = await ordering.request(subjects.order(agent.id, "query"), b"%d" % n, timeout=5)
            assert reply == b"answer to %d" % n


async def test_a_stranger_is_not_let_in(here: Control) -> None:
    agent = await here.join("node-1")
    for seed in (new_key().seed, None):
        with pytest.raises(BusUnavailable):
            async with Bus(agent.options(nkey_seed=seed, start_timeout=0.1)):
                pass
    async with agent.connect() as bus:
        await agent.register(bus)


async def test_a_removed_agent_is_cut_off_and_stays_out(here: Control) -> None:
    agent, other = await here.join("node-1"), await here.join("node-2")
    async with agent.connect() as bus, agent.connect(name="beats") as beats, other.connect() as untouched:
        await agent.register(bus)
        view = await here.call("agent.remove", {"agent": "node-1"})
        assert (view["state"], view["ready"]) == ("removed", False)
        await eventually(lambda: not bus.connected and not beats.connected, what="both connections to be closed")
        assert not await bus.wait_connected(0.5)
        assert untouched.restarts == 0
        assert untouched.connected
    with pytest.raises(BusUnavailable):
        async with agent.connect(start_timeout=0.1):
            pass
    assert [view["host"] for view in (await here.call("agent.list"))["items"]] == ["node-2"]


async def test_the_sweep_cuts_off_whom_a_dead_controller_only_removed(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        here.database.psql("UPDATE control.agents SET state = 'removed', revoked_at = now(), cut_at = now()")
        await eventually(lambda: not bus.connected, 20, "the connection to be closed")
        await eventually(lambda: here.database.psql("SELECT cut_at FROM control.agents") == "", 10, "the note of it")


async def test_who_takes_a_key_away_leaves_a_note_for_the_sweep(here: Control) -> None:
    for host, by_join in (("node-1", False), ("node-2", True)):
        await here.join(host)
        if by_join:
            await here.join(host)
        else:
            await here.call("agent.remove", {"agent": host})
        assert here.database.psql(f"SELECT cut_at > now() FROM control.agents WHERE host = '{host}'") == "t"


async def test_agents_come_back_after_nats_was_killed(own_nats: SecureNats, control_database: Database) -> None:
    async with control(own_nats, control_database) as here:
        agents = [await here.join(f"node-{n}") for n in range(5)]
        buses = [agent.connect() for agent in agents]
        for bus in buses:
            await bus.__aenter__()
        try:
            own_nats.restart()

            async def beat(agent: Agent, bus: Bus) -> bool:
                if (await agent.beat(bus, timeout=1)).register_again:
                    await agent.register(bus)
                return not (await agent.beat(bus, timeout=1)).register_again

            for agent, bus in zip(agents, buses, strict=True):
                await eventually(lambda a=agent, b=bus: beat(a, b), 20, "a beat", retry_on=(BusError,))  # type: ignore[misc]
        finally:
            for bus in buses:
                await bus.__aexit__(None, None, None)


async def test_any_controller_lets_agents_in(secure_nats: SecureNats, control_database: Database) -> None:
    settings = controller_settings(secure_nats, control_database)
    async with control(secure_nats, control_database) as here:
        agent = await here.join("node-1")
        async with controller(settings) as first:
            for _ in range(6):
                async with agent.connect() as bus:
                    assert not (await agent.register(bus)).refused
            first.ask("the test ends one of two")
        for _ in range(3):
            async with agent.connect() as bus:
                assert not (await agent.register(bus)).refused
