"""The ends of attempts that no controller has confirmed yet; published again until one confirms them."""

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
"""How long to wait for the stream to take an end before the journal is written as well."""


class UnconfirmedEnds:
    """The ends of attempts here that no controller has committed. Use from the agent's main loop."""

    def __init__(self, bus: Bus, agent: str, journal: Journal, spool: Spool, *, republish: float) -> None:
        self._bus = bus
        self._agent = agent
        self._journal = journal
        self._spool = spool
        self._republish = republish
        self._open: dict[tuple[str, int], StepFinished] = {}
        self._unkept: set[tuple[str, int]] = set()
        """UnconfirmedEnds that are not in the journal yet, so they cannot be confirmed there."""

    @property
    def unconfirmed(self) -> tuple[AttemptRef, ...]:
        """The ends that wait for confirmation; may be read in another thread."""
        ends = list(self._open.values())
        return tuple(AttemptRef(step=e.step, attempt=e.attempt, token=e.token) for e in ends)

    def get(self, step: str, attempt: int) -> StepFinished | None:
        """The unconfirmed end of an attempt."""
        return self._open.get((step, attempt))

    async def keep(self, end: StepFinished, heard: asyncio.Event | None = None) -> None:
        """Write an end to the journal, after it was ``heard`` or after a short wait, so that nobody waits for the disk.
        Waits while the disk is full: an end must never be lost.
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
        """Publish an end; repeated until the stream has it or it is confirmed."""
        self._open[(end.step, end.attempt)] = end
        pause = 0.05
        while (end.step, end.attempt) in self._open:
            if await self._append(end, f"{end.step}.{end.attempt}:end"):
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(pause * 2, 5.0)

    async def repeat(self) -> None:
        """Publish unconfirmed ends again at intervals. Without a message id: a repeat must not be dropped as a
        duplicate of a first copy that had no effect.
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
