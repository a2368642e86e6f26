"""Shared by everything that works for the pool under its duty: database, duty, backend, settings."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_controller.db.duties import Held
from proctor_controller.db.pool.jobs import holds_pool
from proctor_controller.db.session import Session, session
from proctor_controller.domain.volumes.settings import PoolSettings
from proctor_controller.volumes.backend import Backend

CONNECTIONS = 3
"""How many of the process's connections the keeper uses at once; claims take precedence."""
Notice = Callable[[Sequence[str], Sequence[str]], Awaitable[None]]
"""Called after a commit: runs whose volumes changed, and types that have a new spare. It may be lost."""


class DutyLostError(Exception):
    """Another controller holds the duty now: nothing may be written any more."""


async def tell_nobody(runs: Sequence[str], types: Sequence[str]) -> None:
    """A Notice that does nothing."""


async def _nobody_waits() -> None:
    return None


class Desk:
    """One hold of the duty. ``progress``: called after each change of a volume here; ``gone``: after a deletion."""

    def __init__(
        self,
        database: AsyncEngine,
        held: Held,
        backend: Backend,
        settings: PoolSettings,
        *,
        progress: Callable[[], None],
        notice: Notice = tell_nobody,
    ) -> None:
        self.database = database
        self.held = held
        self.backend = backend
        self.settings = settings
        self.progress = progress
        self.notice = notice
        self._doors = asyncio.Semaphore(CONNECTIONS)
        self.gone: Callable[[], Awaitable[None]] = _nobody_waits

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """A transaction that is valid only while the duty is held. Raises DutyLostError, ProctorError."""
        async with self._doors, session(self.database) as db, db.transaction():
            held = await holds_pool(db, self.held)
            if held:
                yield db
        # Outside of `session`, which would drop the connection after an exception although it is usable.
        if not held:
            raise DutyLostError

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """Single statements; those that write have their own guard. Raises ProctorError."""
        async with self._doors, session(self.database) as db:
            yield db

    def together(self, several: bool) -> AbstractAsyncContextManager[Session]:
        """A transaction if several statements belong together; else none, which saves two of three round trips."""
        return self.writing() if several else self.reading()

    async def check(self) -> None:
        """Raises DutyLostError if another controller holds the duty."""
        async with self.writing():
            pass
