"""The duty ``agents``: an agent without heartbeats becomes suspect, then lost; removed agents are disconnected."""

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.pg import transaction
from proctor_controller.db.agents.heartbeats import find_cut, forget_rivals, mark_cut, mark_silent
from proctor_controller.db.duties import Held, holds_duty
from proctor_controller.engine.agent_status import AgentStatus
from proctor_controller.identity.connections import close_clients

log = structlog.get_logger(__name__)

TIDY_EVERY = 5
RIVAL_SECONDS = 60.0


class SilenceSweep:
    """One for each controller; a turn about every second.

    Silence counts only from when this controller began to watch without interruption: while no controller listened, or
    the bus or the database was away, no heartbeat could arrive.
    """

    def __init__(
        self,
        database: AsyncEngine,
        bus: Bus,
        system: Bus | None,
        agent_status: AgentStatus,
        *,
        suspect_after: float,
        lost_after: float,
        interval: float,
    ) -> None:
        self._database = database
        self._bus = bus
        self._system = system
        self._agent_status = agent_status
        self._suspect_after = suspect_after
        self._lost_after = lost_after
        self._interval = interval
        self._watch: tuple[int, int] | None = None
        self._watched = 0.0
        self._last: float | None = None
        self._turns = 0

    async def turn(self, held: Held) -> None:
        """Look once. Raises ProctorError ``database_unavailable``."""
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return
            now, silent = await mark_silent(
                connection,
                watched=self._watched,
                suspect_after=self._suspect_after,
                lost_after=self._lost_after,
            )
        self._note(now, held)
        for agent, host, state in silent:
            log.warning("agent_silent", agent=agent, host=host, state=state)
        lost = [agent for agent, _, state in silent if state == "lost"]
        if lost:
            await self._agent_status.agents_lost(lost)
        self._turns += 1
        if self._turns % TIDY_EVERY == 1:
            await self._tidy(held)

    def _note(self, now: float, held: Held) -> None:
        """Compute for how long silence has been watched, by the database's clock."""
        watch = (held.epoch, self._bus.restarts)
        broken = self._last is None or now - self._last > self._interval + self._suspect_after / 3
        if watch != self._watch or broken or not self._bus.connected:
            self._watch, self._watched = watch, 0.0
        else:
            assert self._last is not None
            self._watched += max(0.0, now - self._last)
        self._last = now

    async def _tidy(self, held: Held) -> None:
        """Close the connections of agents whose key was revoked. The controller that revoked it has tried, but a
        connection may have been opened at that moment, or the controller died before it closed them.
        """
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return
            await forget_rivals(connection, RIVAL_SECONDS)
            cut = await find_cut(connection) if self._system is not None else []
        for agent in cut:
            if await close_clients(self._system, agent) is not None:
                async with transaction(self._database) as connection:
                    await mark_cut(connection, agent)
