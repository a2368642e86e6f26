"""What everything that works for the pool under its duty shares: the database, the duty, the backend, the settings."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_controller.db.duties import Held
from proctor_controller.db.pool.jobs import holds_pool
from proctor_controller.db.session import Session, session
from proctor_controller.domain.volumes.settings import PoolSettings
from proctor_controller.volumes.backend import Backend

Notice = Callable[[Sequence[str], Sequence[str]], Awaitable[None]]
"""Told after a commit: runs whose volumes changed, and types that have a new spare. It may be lost."""


class DutyLostError(Exception):
    """Another controller keeps the pool now: whatever was about to be written is not ours to write."""


async def tell_nobody(runs: Sequence[str], types: Sequence[str]) -> None:
    """A Notice that nobody waits for."""


async def _nobody_waits() -> None:
    return None


class Desk:
    """One hold of the duty. ``progress`` is called after each change of a volume, within this process; ``gone`` after
    one has gone from the backend.
    """

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
        self.gone: Callable[[], Awaitable[None]] = _nobody_waits

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """A transaction that counts only while the duty is held. Raises DutyLostError, ProctorError."""
        async with session(self.database) as db, db.transaction():
            held = await holds_pool(db, self.held)
            if held:
                yield db
        # Not inside: the connection is as good as before, and `session` would drop it for an exception.
        if not held:
            raise DutyLostError

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """Statements that stand alone. Raises ProctorError."""
        async with session(self.database) as db:
            yield db
