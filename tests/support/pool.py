"""A controller with a volume pool on some backend, and a look behind it: what the backend really has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from proctor_common.ids import new_id
from proctor_controller.domain.volumes.settings import parse_pool
from proctor_controller.pool.backends import open_backend
from proctor_controller.volumes.backend import Backend, FoundVolume
from support.control import Control, SecureNats, control
from support.postgres import Database
from support.wait import eventually

LEGACY_SETTINGS = """
[DEFAULT]
...
volume_queue=volume_test

[volumes]
concurrency=10

[volumes_backup]
backup_nums_{a}_{b}={first}
backup_nums_{c}_{d}={second}
volume_backup_types={a},{b},{c},{d}
backup_frequency_minute = 10
check_state_frequency_minute = 5

[auth_args]
auth_project=admin
auth_user=admin
auth_passwd=admin
"""
"""A legacy file, with the names of types and the counts left open."""


class Cloud(Protocol):
    """Where a test's volumes are. ``types``: four names of types that volumes can be made of."""

    @property
    def name(self) -> str: ...

    @property
    def types(self) -> tuple[str, str, str, str]: ...

    @property
    def patience(self) -> float:
        """Seconds within which the backend makes a dozen volumes."""
        ...

    def ini(self, first: int, second: int, extra: str = "") -> str:
        """Legacy settings with these counts, and what this backend needs."""
        ...


@dataclass(frozen=True)
class LocalCloud:
    """Files. ``knobs``: create_delay and so on, as lines."""

    name: str = "local"
    types: tuple[str, str, str, str] = ("igw", "bgw", "dhcp", "cast")
    patience: float = 10.0

    def ini(self, first: int, second: int, extra: str = "") -> str:
        a, b, c, d = self.types
        settings = LEGACY_SETTINGS.format(a=a, b=b, c=c, d=d, first=first, second=second)
        return f"{settings}\n[pool]\nbackend=local\n{extra}\n"


class PoolWorld:
    """A controller that keeps a pool."""

    def __init__(self, here: Control, cloud: Cloud, file: Path, folder: Path, database: Database) -> None:
        self.here = here
        self.cloud = cloud
        self.file = file
        self.folder = folder
        self.database = database

    async def call(self, op: str, body: dict[str, Any] | None = None) -> Any:
        return await self.here.call(op, body)

    async def pools(self) -> dict[str, Any]:
        return {pool["type"]: pool for pool in (await self.call("pool.list"))["items"]}

    async def volumes(self, **query: Any) -> list[dict[str, Any]]:
        return list((await self.call("volume.list", {"limit": 1000, **query}))["items"])

    async def create(self, name: str, type: str | None = None, **more: Any) -> dict[str, Any]:
        body = {"id": new_id(), "name": name, "type": type or self.cloud.types[0], **more}
        return dict(await self.call("vnfp.create", body))

    async def vnfp(self, vnfp: str) -> dict[str, Any]:
        return dict(await self.call("vnfp.get", {"vnfp": vnfp}))

    async def active(self, vnfp: str) -> dict[str, Any]:
        """The VNF when it is active."""

        async def is_active() -> Any:
            seen = await self.vnfp(vnfp)
            assert seen["state"] != "error", seen
            return seen if seen["state"] == "active" else None

        return dict(await eventually(is_active, self.cloud.patience, "the VNF to be active"))

    async def full(self, timeout: float | None = None) -> dict[str, Any]:
        """The pools when each has as many spares as it shall, and neither job is at work."""

        async def is_full() -> Any:
            pools = await self.pools()
            for pool in pools.values():
                assert (pool["ready"], pool["creating"]) == (pool["target"], 0), pool
                assert pool["replenish"]["outcome"] not in {"", "at work"}, pool
            return pools

        return dict(await eventually(is_full, timeout or self.cloud.patience, "full pools"))

    async def job(self, name: str) -> dict[str, Any]:
        """Run a job now; its record when it is over."""
        before = self.finished(name)
        answer = await self.call(f"pool.{name}")
        assert answer["outcome"] == "started", answer
        await eventually(lambda: self.finished(name) not in {"", before}, self.cloud.patience, f"{name} to end")
        return dict(next(iter((await self.pools()).values()))[name])

    def finished(self, name: str) -> str:
        return self.sql(
            f"SELECT finished_at FROM control.pool_jobs WHERE name = '{name}' AND finished_at >= started_at"
        )

    def sql(self, query: str) -> str:
        return self.database.psql(query)

    async def alter(self, statement: str) -> None:
        """Change rows behind the controller's back; in a thread, since it may hold their locks just now."""
        await asyncio.to_thread(self.database.psql, statement)

    @asynccontextmanager
    async def backend(self) -> AsyncIterator[Backend]:
        installation = self.sql("SELECT installation FROM control.pool_settings")
        opened = open_backend(parse_pool(self.file.read_text()), installation, self.folder)
        try:
            yield opened
        finally:
            await opened.close()

    async def at_backend(self) -> dict[str, FoundVolume]:
        """What the backend has of ours, by our ids."""
        async with self.backend() as backend:
            return {found.volume_id: found for found in await backend.list_ours()}


@asynccontextmanager
async def pool_world(
    nats: SecureNats, database: Database, cloud: Cloud, folder: Path, ini: str, **changes: Any
) -> AsyncIterator[PoolWorld]:
    """A controller in this process with these settings of the pool."""
    file, volumes = folder / "pool.ini", folder / "volumes"
    file.write_text(ini)
    async with control(nats, database, pool_file=file, pool_folder=volumes, **changes) as here:
        yield PoolWorld(here, cloud, file, volumes, database)
