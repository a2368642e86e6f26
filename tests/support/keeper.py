"""The pool's keeper alone, on files that fail when they are told to: no bus, no calls, a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.clock import SystemClock
from proctor_common.ids import new_id
from proctor_controller.db.pool.claims import Demand, claim_for_vnfps
from proctor_controller.db.pool.jobs import ask_job
from proctor_controller.db.session import close_sessions, session
from proctor_controller.domain.volumes.settings import LocalSettings, PoolSettings
from proctor_controller.duties.duty import Duty
from proctor_controller.pool.keeper import Keeper
from proctor_controller.pool.source import PoolSource
from proctor_controller.volumes.backend import AnswerLost, Backend, BackendFault, FoundState, FoundVolume
from proctor_controller.volumes.local import LocalBackend
from support.postgres import Database
from support.wait import eventually

INI = """
[volumes_backup]
volume_backup_types = igw,dhcp
backup_nums_igw = {igw}
backup_nums_dhcp = {dhcp}
[pool]
stray_age = 0
"""


class FaultyLocal(LocalBackend):
    """The local backend with the faults of a cloud. ``posts``: creations asked for, by our ids."""

    def __init__(self, folder: Path, installation: str, settings: LocalSettings) -> None:
        super().__init__(folder, installation, settings, qemu_img="")
        self.posts: list[str] = []
        self.refusals: list[BackendFault] = []
        self.always: dict[str, BackendFault] = {}
        """Type -> the fault that each creation of it brings."""
        self.lose_answers = 0
        self.hidden: set[str] = set()
        """Our ids that lists do not show yet."""
        self.words: dict[str, FoundState] = {}
        """Backend id -> the state that is shown."""
        self.rename_faults: list[BackendFault] = []
        self.delete_faults: list[BackendFault] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    async def create(self, volume_id: str, name: str, type: str, size_gb: int) -> str:
        self.posts.append(volume_id)
        if self.refusals:
            raise self.refusals.pop(0)
        if type in self.always:
            raise self.always[type]
        made = await super().create(volume_id, name, type, size_gb)
        if self.before_answer is not None:
            await self.before_answer()
        if self.lose_answers:
            self.lose_answers -= 1
            raise AnswerLost("the connection broke before the answer came")
        return made

    async def get(self, backend_id: str) -> FoundVolume | None:
        found = await super().get(backend_id)
        return None if found is None else self._as_told(found)

    async def list_ours(self) -> list[FoundVolume]:
        return [self._as_told(found) for found in await super().list_ours() if found.volume_id not in self.hidden]

    def _as_told(self, found: FoundVolume) -> FoundVolume:
        return replace(found, state=self.words.get(found.backend_id, found.state))

    async def rename(self, backend_id: str, name: str) -> bool:
        if self.rename_faults:
            raise self.rename_faults.pop(0)
        return await super().rename(backend_id, name)

    async def delete(self, backend_id: str) -> bool:
        if self.delete_faults:
            raise self.delete_faults.pop(0)
        return await super().delete(backend_id)


class KeeperWorld:
    """One folder of volumes, one database, and as many keepers as are started."""

    def __init__(self, engine: AsyncEngine, database: Database, folder: Path) -> None:
        self.engine = engine
        self.database = database
        self.duty: Duty | None = None
        """That of the keeper that was made last."""
        self.file = folder / "pool.ini"
        self.folder = folder / "volumes"
        self.backend = FaultyLocal(
            self.folder, database.psql("SELECT installation FROM control.pool_settings"), LocalSettings()
        )

    def settings(self, igw: int = 0, dhcp: int = 0, extra: str = "") -> None:
        self.file.write_text(INI.format(igw=igw, dhcp=dhcp) + extra)

    def open(self, settings: PoolSettings, installation: str, folder: Path | None) -> Backend:
        self.backend._settings = settings.local
        return self.backend

    def keeper(self) -> Keeper:
        source = PoolSource(self.file)
        return Keeper(self.engine, source, SystemClock(), folder=self.folder, opener=self.open)

    @asynccontextmanager
    async def kept(self, *, lease: float = 30.0) -> AsyncIterator[Keeper]:
        """A keeper that holds the duty, until the end of the block."""
        keeper = self.keeper()
        duty = self.duty = Duty(
            "pool",
            keeper.turn,
            database=self.engine,
            owner=new_id(),
            clock=SystemClock(),
            interval=0.1,
            lease=lease,
        )
        task = asyncio.create_task(duty.run())
        try:
            await eventually(lambda: duty.held is not None, 10, "the duty")
            yield keeper
        finally:
            task.cancel()
            await asyncio.wait({task})
            await close_sessions(self.engine)

    def sql(self, query: str) -> str:
        return self.database.psql(query)

    async def alter(self, statement: str) -> None:
        """Change rows behind the keeper's back; in a thread, since the keeper may hold their locks just now."""
        await asyncio.to_thread(self.database.psql, statement)

    def count(self, where: str) -> int:
        return int(self.sql(f"SELECT count(*) FROM control.volumes WHERE {where}"))

    async def until(self, where: str, count: int, timeout: float = 10.0) -> None:
        """Return when so many volumes are so."""

        def so_many() -> bool:
            states = self.sql("SELECT type, state, from_pool, reason FROM control.volumes ORDER BY created_at")
            assert self.count(where) == count, f"{count} with {where}:\n{states}"
            return True

        await eventually(so_many, timeout, f"{count} volumes: {where}")

    async def vnfp(self, name: str = "vnf", type: str = "igw", size_gb: int = 1, keeper: Keeper | None = None) -> str:
        vnfp = new_id()
        async with session(self.engine) as db:
            await claim_for_vnfps(db, type, size_gb, [Demand(vnfp, name)])
        if keeper is not None:
            keeper.woken.set()
        return vnfp

    def vnfp_state(self, vnfp: str) -> str:
        return self.sql(f"SELECT state FROM control.vnfps WHERE id = '{vnfp}'")

    async def job(self, name: str, keeper: Keeper) -> str:
        """Run a job to its end; its outcome."""
        query = f"SELECT finished_at FROM control.pool_jobs WHERE name = '{name}' AND finished_at >= started_at"
        before = ""

        async def asked() -> bool:
            nonlocal before
            before = self.sql(query)
            async with session(self.engine) as db:
                return bool(before) and await ask_job(db, name)

        if name == "sync":
            await self.alter(
                "UPDATE control.pool_jobs SET started_at = now(), finished_at = now() WHERE started_at IS NULL"
            )
        await eventually(asked, 10, f"no {name} at work")
        keeper.woken.set()
        await eventually(lambda: self.sql(query) not in {"", before}, 10, f"{name} to end")
        return self.sql(f"SELECT outcome FROM control.pool_jobs WHERE name = '{name}'")

    async def there(self) -> dict[str, Any]:
        """What the backend really has, by our ids."""
        plain = LocalBackend(self.folder, self.backend._installation, LocalSettings())
        return {found.volume_id: found for found in await plain.list_ours()}
