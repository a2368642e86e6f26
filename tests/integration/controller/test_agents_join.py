"""Enrolment, join and the auth callout, on a real server with the configuration of `proctor init`."""

from collections.abc import AsyncIterator, Iterator

import pytest

from proctor_common import subjects
from proctor_common.bus import BusUnavailable
from proctor_common.errors import Code, ProctorError
from support.control import Control, SecureNats, control, new_key
from support.postgres import Database


@pytest.fixture(scope="module")
def secure_nats() -> Iterator[SecureNats]:
    server = SecureNats()
    try:
        yield server.start()  # type: ignore[misc]
    finally:
        server.close()


@pytest.fixture
async def here(secure_nats: SecureNats, control_database: Database) -> AsyncIterator[Control]:
    async with control(secure_nats, control_database) as made:
        yield made


async def test_an_agent_joins_registers_and_beats(here: Control) -> None:
    agent = await here.join("node-1")
    async with agent.connect() as bus:
        reply = await agent.register(bus)
        assert (reply.refused, reply.host, reply.number) == ("", "node-1", 1)
        beat = await agent.beat(bus)
        assert not beat.refused
        assert not beat.register
    view = await here.call("agent.get", {"agent": "node-1"})
    assert (view["state"], view["ready"], view["slots"]) == ("online", True, 2)
    assert list(view["plugins"]) == ["linux_system"]
