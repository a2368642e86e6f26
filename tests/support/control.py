"""A controller with a real, secured NATS and PostgreSQL, and agents that join it as real ones do."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import nkeys
import pytest

from proctor_cli.init.nats_conf import NatsIdentities, nats_server_conf
from proctor_common import subjects
from proctor_common.bus import Bus, BusError, BusOptions
from proctor_common.errors import Code, ProctorError
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.calls.operation import Actor, CallEnvelope, answer_of
from proctor_common.messages.events import (
    AttemptRef,
    Heartbeat,
    HeartbeatReply,
    MethodSpec,
    PluginSpec,
    Registration,
    RegistrationReply,
)
from proctor_common.service import Stop
from proctor_common.states import Role
from proctor_controller.main import run
from proctor_controller.settings import ControllerSettings
from support.nats import NatsServer
from support.postgres import Database
from support.wait import eventually

ADMIN = Actor(name="root", role=Role.ADMIN)


@dataclass(frozen=True)
class Key:
    """A pair of NATS keys, as text."""

    seed: str = field(repr=False)
    public: str


def new_key(prefix: int = nkeys.PREFIX_BYTE_USER) -> Key:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return Key(seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode())


class SecureNats(NatsServer):
    """nats-server with the configuration that `proctor init` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.account = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
        self.controller, self.api, self.system = new_key(), new_key(), new_key()

    def start(self) -> Self:
        super().start()
        return self

    def write_config(self) -> Path:
        path = self.folder / "nats.conf"
        keys = NatsIdentities(
            issuer=self.account.public,
            controller=self.controller.public,
            api=self.api.public,
            system=self.system.public,
        )
        path.write_text(nats_server_conf(keys, listen=f"127.0.0.1:{self.port}", store=self.store))
        return path


@dataclass
class Agent:
    """An agent that joined: its id, its key, and one process's instance."""

    id: str
    host: str
    key: Key
    url: str
    instance: str = field(default_factory=new_id)
    boot_id: str = "boot"

    def options(self, **changes: Any) -> BusOptions:
        given: dict[str, Any] = {
            "servers": (self.url,),
            "name": subjects.client_name(self.id, self.instance),
            "inbox_prefix": subjects.inbox_prefix(self.id),
            "nkey_seed": self.key.seed,
            "start_timeout": 10.0,
        }
        return BusOptions(**{**given, **changes})

    def connect(self, **changes: Any) -> Bus:
        return Bus(self.options(**changes))

    def registration(self, **changes: Any) -> Registration:
        given: dict[str, Any] = {
            "boot_id": self.boot_id,
            "instance": self.instance,
            "version": "0.1.0",
            "slots": 2,
            "plugins": {"linux_system": PluginSpec(methods={"ping": MethodSpec(description="answers")})},
        }
        return Registration(**{**given, **changes})

    async def register(self, bus: Bus, timeout: float = 5, **changes: Any) -> RegistrationReply:
        payload = self.registration(**changes).encode()
        return decode(RegistrationReply, await bus.request(subjects.registration(self.id), payload, timeout=timeout))

    async def beat(
        self, bus: Bus, timeout: float = 5, attempts: tuple[AttemptRef, ...] = (), **about: Any
    ) -> HeartbeatReply:
        beat = Heartbeat(
            boot_id=self.boot_id,
            instance=self.instance,
            slots=2,
            attempts=list(attempts),
            time=datetime.now(UTC),
            **about,
        )
        return decode(HeartbeatReply, await bus.request(subjects.heartbeat(self.id), beat.encode(), timeout=timeout))


class Control:
    """The api's side of the controllers, and agents that join through it."""

    def __init__(self, url: str, database: Database, bus: Bus, *, patience: float = 10.0) -> None:
        self.patience = patience
        self.url = url
        self.database = database
        self.bus = bus

    async def call(self, op: str, body: Mapping[str, Any] | None = None, actor: Actor = ADMIN) -> Any:
        """The answer to an operation, parsed. Raises the ProctorError that it was refused with."""
        payload = CallEnvelope(actor=actor, body=dict(body or {})).encode()
        return json.loads(answer_of(await self.bus.request(subjects.call(op), payload, timeout=self.patience)))

    async def join(self, host: str, *, groups: Sequence[str] = (), key: Key | None = None) -> Agent:
        """Enrol a host and join as its agent."""
        token = (await self.call("agent.enrol", {"host": host, "groups": list(groups)}))["token"]
        return await self.use(token, host, key or new_key())

    async def use(self, token: str, host: str, key: Key) -> Agent:
        """Use a join token."""
        joined = await self.call("agent.join", {"token": token, "public_key": key.public})
        return Agent(id=joined["agent"], host=host, key=key, url=joined["nats"]["urls"][0])


def controller_settings(nats: SecureNats, database: Database, **changes: Any) -> ControllerSettings:
    given: dict[str, Any] = {
        "database_url": database.dsn,
        "nats_urls": [nats.url],
        "nats_nkey": nats.controller.seed,
        "system_nkey": nats.system.seed,
        "account_key": nats.account.seed,
        "seal_key": "test:" + base64.b64encode(bytes(32)).decode(),
    }
    return ControllerSettings(**{**given, **changes})


@asynccontextmanager
async def controller(settings: ControllerSettings) -> AsyncIterator[Stop]:
    """A controller in this process, from ready to its end."""
    stop = Stop()
    task = asyncio.create_task(run(settings, stop), name="controller")
    try:
        yield stop
    finally:
        stop.ask("the test is over")
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 15)


def api_options(url: str, seed: str, *, ca_file: str | None = None) -> BusOptions:
    inbox = subjects.inbox_prefix("api")
    return BusOptions(servers=(url,), name="api", inbox_prefix=inbox, nkey_seed=seed, ca_file=ca_file)


@asynccontextmanager
async def control(nats: SecureNats, database: Database, **changes: Any) -> AsyncIterator[Control]:
    """One controller in this process and the api's connection to it, when it answers."""
    async with (
        controller(controller_settings(nats, database, **changes)),
        Bus(api_options(nats.url, nats.api.seed)) as bus,
    ):
        made = Control(nats.url, database, bus)
        await until_ready(made)
        yield made


async def until_ready(made: Control) -> None:
    """Return when a controller answers."""

    async def answers() -> bool:
        await made.call("ping")
        return True

    await eventually(answers, 15, "a controller that answers", retry_on=(BusError,))


@asynccontextmanager
async def refused(code: Code) -> AsyncIterator[list[ProctorError]]:
    """Fails unless the body is refused with this code; the error is in the list then."""
    seen: list[ProctorError] = []
    with pytest.raises(ProctorError) as caught:
        yield seen
    seen.append(caught.value)
    assert caught.value.code is code, caught.value.message
