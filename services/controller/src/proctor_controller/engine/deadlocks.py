"""Breaks deadlocks: of runs that hold hosts and wait for each other's, the youngest that waits gives up."""

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_controller.db.hosts.deadlocks import load_waits
from proctor_controller.db.session import session
from proctor_controller.domain.hosts.deadlocks import Wait, describe_circle, find_circle, youngest
from proctor_controller.domain.runs import events
from proctor_controller.engine.services import Feed

log = structlog.get_logger(__name__)


class Deadlocks:
    """Call :meth:`look` now and then. A circle is broken when it is seen a second time, unchanged: what is read is not
    of one moment.
    """

    def __init__(self, database: AsyncEngine, feed: Feed) -> None:
        self._database = database
        self._feed = feed
        self._seen: tuple[Wait, ...] = ()

    async def look(self) -> Wait | None:
        """Who has given way, if anybody had to. Raises ProctorError ``database_unavailable``."""
        async with session(self._database) as db:
            found = await load_waits(db)
        circle = find_circle(found.waits, found.hosts) if found.hosts else ()
        if not circle or circle != self._seen:
            self._seen = circle
            return None
        self._seen = ()
        wait = youngest(circle)
        why = describe_circle(wait, circle, found.hosts, found.runs)
        log.warning("circle_broken", run=wait.run, step=wait.step, reason=why)
        if wait.step is None:
            await self._feed(events.CannotBegin(wait.run, why))
        else:
            await self._feed(events.NoSlot(wait.run, wait.step, why, never=True))
        return wait
