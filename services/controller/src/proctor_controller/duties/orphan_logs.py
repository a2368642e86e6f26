"""The duty ``log-sweep``: purges logs of attempts that were given to no agent."""

from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus
from proctor_common.clock import Clock
from proctor_common.ids import is_id
from proctor_common.pg import transaction
from proctor_controller.db.duties import Held, holds_duty
from proctor_controller.db.runs.attempts import find_known

log = structlog.get_logger(__name__)

BATCH = 1000
MAX_PURGES = 500
"""In one turn; the next one continues."""


class OrphanLogSweep:
    """One turn about every minute. ``age``: how many seconds ago the last chunk must have come."""

    def __init__(self, database: AsyncEngine, bus: Bus, clock: Clock, *, age: float) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._age = age
        self.purged = 0

    async def turn(self, held: Held) -> None:
        """Sweep once. Raises ProctorError ``database_unavailable``, BusError."""
        present = sorted(await self._bus.stream_subjects(subjects.LOG_STREAM, subjects.LOG_SUBJECTS))
        left = MAX_PURGES
        for start in range(0, len(present), BATCH):
            for subject in await self._orphans(present[start : start + BATCH], held):
                if left == 0:
                    return
                left -= await self._purge(subject, held)

    async def _orphans(self, present: list[str], held: Held) -> list[str]:
        origins = {subject: subjects.parse_log(subject) for subject in present}
        asked = [o for o in origins.values() if o is not None and _has_ids(o)]
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return []
            known = await find_known(connection, [(str(o.run), o.step, o.attempt, o.agent) for o in asked])
        return [
            subject
            for subject, o in origins.items()
            if o is None or (str(o.run), o.step, o.attempt, o.agent) not in known
        ]

    async def _purge(self, subject: str, held: Held) -> bool:
        newest = await self._bus.last_stored(subjects.LOG_STREAM, subject)
        if newest is None or (self._clock.now() - newest.time).total_seconds() < self._age:
            return False
        # A controller that was paused after the look-up must not act on old data.
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return False
        count = await self._bus.purge_subject(subjects.LOG_STREAM, subject)
        self.purged += count
        log.warning("strange_log_purged", subject=subject, chunks=count, newest=_iso(newest.time))
        return True


def _has_ids(origin: subjects.AttemptOrigin) -> bool:
    return is_id(origin.agent) and is_id(origin.step) and is_id(str(origin.run)) and 0 < origin.attempt < 2**31


def _iso(time: datetime) -> str:
    return time.isoformat()
