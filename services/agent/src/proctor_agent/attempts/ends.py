"""The ends of attempts that no controller has confirmed yet: published, and again, until one has."""

import asyncio
import contextlib
import random
import sqlite3

import structlog

from proctor_agent.attempts.journal import Journal, JournalFullError
from proctor_agent.log.spool import Spool
from proctor_common import subjects
from proctor_common.bus import Bus, BusError
from proctor_common.messages.events import AttemptRef, StepFinished

log = structlog.get_logger(__name__)

PUBLISH_TIMEOUT = 5.0
RETRY_S = 1.0
HEARD_S = 0.05
"""How long the stream may take for an end before the journal is given it too."""


class Ends:
    """What has ended here and is not committed there. Use from the agent's main loop."""

    def __init__(self, bus: Bus, agent: str, journal: Journal, spool: Spool, *, republish: float) -> None:
        self._bus = bus
        self._agent = agent
        self._journal = journal
        self._spool = spool
        self._republish = republish
        self._open: dict[tuple[str, int], StepFinished] = {}
        self._unkept: set[tuple[str, int]] = set()
        """Ends that are not in the journal yet: not to be confirmed there."""

    @property
    def unconfirmed(self) -> tuple[AttemptRef, ...]:
        """The ends that wait for their confirmation; may be read in another thread."""
        ends = list(self._open.values())
        return tuple(AttemptRef(step=e.step, attempt=e.attempt, token=e.token) for e in ends)

    def get(self, step: str, attempt: int) -> StepFinished | None:
        """The unconfirmed end of an attempt."""
        return self._open.get((step, attempt))

    async def keep(self, end: StepFinished, heard: asyncio.Event | None = None) -> None:
        """Journal an end: when it was ``heard``, so that nobody waits for the disk, or when that takes longer than a
        moment. A full disk is waited out: an end must never be lost.
        """
        key = (end.step, end.attempt)
        self._unkept.add(key)
        if heard is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARD_S):
                    await heard.wait()
        while True:
            try:
                await self._journal.end(end)
                self._unkept.discard(key)
                return
            except (JournalFullError, sqlite3.Error) as fault:
                log.error("end_not_journaled", step=end.step, attempt=end.attempt, error=str(fault))
                await asyncio.sleep(RETRY_S)

    async def publish(self, end: StepFinished) -> None:
        """Publish an end; tried until the stream has it or it is confirmed otherwise."""
        self._open[(end.step, end.attempt)] = end
        pause = 0.05
        while (end.step, end.attempt) in self._open:
            if await self._append(end, f"{end.step}.{end.attempt}:end"):
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(pause * 2, 5.0)

    async def repeat(self) -> None:
        """Publish unconfirmed ends again and again. Without a message id: the stream's memory of ids must not
        swallow a repeat whose first copy was taken and came to nothing.
        """
        while True:
            await asyncio.sleep(self._republish)
            for end in list(self._open.values()):
                await self._append(end, None)

    async def confirm(self, ends: list[tuple[str, int]]) -> None:
        """A controller has committed these ends (step, attempt): forget them and what is left of their logs."""
        ends = [end for end in ends if end not in self._unkept]
        try:
            await self._journal.confirm(ends)
        except (JournalFullError, sqlite3.Error) as fault:
            # The next heartbeat asks, and is answered, again.
            log.error("confirmation_not_journaled", error=str(fault))
            return
        for step, attempt in ends:
            self._open.pop((step, attempt), None)
            try:
                self._spool.forget(step, attempt)
            except OSError as fault:
                # What stays is removed at the next start.
                log.error("spool_not_removed", step=step, attempt=attempt, error=str(fault))

    async def _append(self, end: StepFinished, msg_id: str | None) -> bool:
        subject = subjects.event(self._agent, end.step, end.attempt)
        try:
            await self._bus.append(subject, end.encode(), msg_id=msg_id, timeout=PUBLISH_TIMEOUT)
        except BusError as fault:
            log.warning("end_not_published", step=end.step, attempt=end.attempt, error=str(fault))
            return False
        return True
