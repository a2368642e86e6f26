"""Registers this agent with the controllers: at each start, and whenever they ask."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from proctor_common import subjects
from proctor_common.bus import Bus, BusError
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import Registration, RegistrationReply

log = structlog.get_logger(__name__)

TIMEOUT = 10.0
LONGEST_WAIT = 5.0


class Registrar:
    """Registers as long as it runs; ``ask`` makes it register once more. Use from the agent's main loop."""

    def __init__(
        self,
        bus: Bus,
        agent: str,
        describe: Callable[[], Registration],
        taken: Callable[[datetime, float], None],
    ) -> None:
        """``describe`` makes the registration; ``taken`` gets the controller's time and our ``time.monotonic`` of that
        moment.
        """
        self._bus = bus
        self._subject = subjects.registration(agent)
        self._describe = describe
        self._taken = taken
        self._wanted = asyncio.Event()

    def ask(self) -> None:
        """Register again soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Register now and whenever asked, trying until a controller answers."""
        while True:
            wait = 0.2
            self._wanted.clear()
            while not await self._register():
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
                wait = min(wait * 2, LONGEST_WAIT)
            await self._wanted.wait()

    async def _register(self) -> bool:
        sent = time.monotonic()
        try:
            answer = await self._bus.request(self._subject, self._describe().encode(), timeout=TIMEOUT)
            reply = decode(RegistrationReply, answer)
        except (BusError, BadMessage) as fault:
            log.info("not_registered_yet", error=str(fault))
            return False
        if reply.refused:
            log.error("registration_refused", reason=reply.refused)
            return False
        self._taken(reply.time, (sent + time.monotonic()) / 2)
        log.info("registered", host=reply.host, number=reply.number)
        return True
