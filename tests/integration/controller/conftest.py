"""An engine of runs on a fresh database and a fresh account of the bus."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.bus.streams import event_consumer, event_stream
from proctor_common.pg import make_engine
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.leasing import Volumes
from proctor_controller.engine.settings import EngineSettings
from support.control import Control, SecureNats, control
from support.engine import FakeAgent, bus_to, hearing_engine
from support.nats import NatsAccount
from support.postgres import Database


@pytest.fixture
async def bus(nats: NatsAccount) -> AsyncIterator[Bus]:
    async with bus_to(nats) as connected:
        await connected.ensure_stream(event_stream())
        await connected.ensure_consumer(event_consumer())
        yield connected


@pytest.fixture
async def rows(control_database: Database) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(control_database.dsn, application_name="test")
    yield engine
    await engine.dispose()


@pytest.fixture
def engine_settings() -> EngineSettings | None:
    return None


@pytest.fixture
def volumes() -> Volumes | None:
    """The pool as the engine uses it."""
    return None


@pytest.fixture
async def engine(
    rows: AsyncEngine, bus: Bus, engine_settings: EngineSettings | None, volumes: Volumes | None
) -> AsyncIterator[Engine]:
    async with hearing_engine(rows, bus, engine_settings, volumes=volumes) as made:
        yield made


@pytest.fixture
async def agent(bus: Bus, control_database: Database) -> FakeAgent:
    return await FakeAgent(bus, control_database).join()


@pytest.fixture(scope="session")
def secure_nats() -> Iterator[SecureNats]:
    """A server with the configuration of `proctor init`, shared by the session. Not to be killed."""
    server = SecureNats()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
async def here(secure_nats: SecureNats, control_database: Database) -> AsyncIterator[Control]:
    """A whole controller in this process, and the api's connection to it."""
    async with control(secure_nats, control_database, sweep_interval=0.2) as made:
        yield made
