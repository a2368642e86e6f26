"""Holds a duty: claims the lease row, renews it after a third, works only meanwhile, releases it at the end."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import BusError
from proctor_common.clock import Clock
from proctor_common.errors import ProctorError
from proctor_common.pg import transaction
from proctor_controller.db.duties import Held, claim_duty, release_duty, renew_duty

log = structlog.get_logger(__name__)

Work = Callable[[Held], Awaitable[None]]
"""One turn. It writes only in transactions that begin with ``holds_duty``."""


CLAIM_SECONDS = 1.0
"""How often to try to claim a duty that another controller holds: so soon it goes on after that lease has ended."""


class Duty:
    """A periodic job that one controller at a time does. ``interval`` and ``lease`` in seconds."""

    def __init__(
        self, name: str, work: Work, *, database: AsyncEngine, owner: str, clock: Clock, interval: float, lease: float
    ) -> None:
        self.name = name
        self.held: Held | None = None
        self._work = work
        self._database = database
        self._owner = owner
        self._clock = clock
        self._interval = interval
        self._lease = lease

    async def run(self) -> None:
        """Claim the duty whenever nobody holds it, and work; until cancelled."""
        while True:
            held = await self._claim()
            if held is not None:
                self.held = held
                log.info("duty_taken", duty=self.name, epoch=held.epoch)
                try:
                    await self._hold(held)
                    log.warning("duty_lost", duty=self.name, epoch=held.epoch)
                finally:
                    self.held = None
                    await self._release(held)
            await asyncio.sleep(min(self._lease / 3, CLAIM_SECONDS))

    async def _claim(self) -> Held | None:
        try:
            async with transaction(self._database) as connection:
                return await claim_duty(connection, self.name, self._owner, self._lease)
        except ProctorError as fault:
            log.warning("duty_not_claimed", duty=self.name, error=fault.message)
            return None

    async def _hold(self, held: Held) -> None:
        """Return when the lease is lost."""
        tasks = {
            asyncio.create_task(self._renew(held), name=f"renew duty {self.name}"),
            asyncio.create_task(self._turns(held), name=f"duty {self.name}"),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5)

    async def _renew(self, held: Held) -> None:
        """Return when the lease is lost, or may be, as the database has not answered for as long as it lasts."""
        renewed = self._clock.monotonic()
        while self._clock.monotonic() - renewed < self._lease:
            await asyncio.sleep(self._lease / 3)
            asked = self._clock.monotonic()
            try:
                async with transaction(self._database) as connection:
                    if not await renew_duty(connection, held, self._lease):
                        return
                renewed = asked
            except ProctorError as fault:
                log.warning("duty_not_renewed", duty=self.name, error=fault.message)

    async def _turns(self, held: Held) -> None:
        while True:
            try:
                await self._work(held)
            except (ProctorError, BusError) as fault:
                log.warning("duty_turn_failed", duty=self.name, error=str(fault))
            except Exception:
                # A failing turn must not end the job: nobody else could take it while we hold the lease.
                log.exception("duty_turn_failed", duty=self.name)
            await asyncio.sleep(self._interval)

    async def _release(self, held: Held) -> None:
        """Let another controller take it at once; if this fails, it waits for the lease to end."""
        with contextlib.suppress(ProctorError, TimeoutError):
            async with asyncio.timeout(2), transaction(self._database) as connection:
                await release_duty(connection, held)
