"""An agent's core for its tests: see support/agent.py."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.agent import AgentWorld
from support.nats import NatsServer
from support.sshd import SshTarget


@pytest.fixture(scope="session")
def _agents_nats() -> Iterator[NatsServer]:
    server = NatsServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
async def world(
    _agents_nats: NatsServer, loopback: SshTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AgentWorld]:
    """A world on a server that tests share (none kills it), each with an agent id of its own."""
    made = AgentWorld(_agents_nats.url, tmp_path, loopback)
    monkeypatch.syspath_prepend(str(made.plugins))
    async with made.control():
        yield made
    sys.modules.pop("proctor_trial", None)


@pytest.fixture
async def fragile(
    nats_server: NatsServer, loopback: SshTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AgentWorld]:
    """A world on a server of its own, to be killed."""
    made = AgentWorld(nats_server.url, tmp_path, loopback)
    monkeypatch.syspath_prepend(str(made.plugins))
    async with made.control():
        yield made
    sys.modules.pop("proctor_trial", None)
