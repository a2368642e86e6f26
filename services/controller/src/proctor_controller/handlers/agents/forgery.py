"""Counts reports about attempts that an agent was never given, and disconnects it after ten. No SQL."""

import structlog
from prometheus_client import Counter

from proctor_common.pg import transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents.registry import count_forged, revoke_agent
from proctor_controller.db.audit import write_audit
from proctor_controller.domain.hosts.agent import MAX_FORGED
from proctor_controller.identity.connections import close_clients

log = structlog.get_logger(__name__)


class Forgeries:
    """The counter."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self.counted = Counter(
            "proctor_forged_reports", "Reports about attempts an agent was never given", registry=context.registry
        )

    async def note(self, agent: str) -> None:
        """Count one; disconnect the agent after too many. Raises ProctorError ``database_unavailable``."""
        self.counted.inc()
        async with transaction(self._context.database) as connection:
            count = await count_forged(connection, agent)
            reason = f"cut off: {count} reports about attempts it was never given"
            cut = count >= MAX_FORGED and await revoke_agent(connection, agent, reason)
            if cut:
                await write_audit(
                    connection, actor="controller", action="agent.cut_off", object=agent, detail={"reports": count}
                )
        if cut:
            log.error("agent_cut_off", agent=agent, reports=count)
            await close_clients(self._context.system, agent)
            await self._context.engine.agent_status.agents_lost([agent])
