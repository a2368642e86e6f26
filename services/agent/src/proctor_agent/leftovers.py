"""What a former instance of the agent left: processes on targets, log bytes on disk, ends that nobody confirmed."""

import asyncio
from datetime import UTC, datetime

import structlog

from proctor_agent.context import AgentContext
from proctor_agent.execution import stop_trees
from proctor_agent.journal import Entry
from proctor_agent.logship import LogOf, LogShip
from proctor_agent.redact import Redactor
from proctor_common.messages.events import AttemptRef, StepFinished
from proctor_common.states import StepResult

log = structlog.get_logger(__name__)

GRACE_S = 2.0
NO_LIMIT = 2**62
"""What stands in the spool was within the limit when it was read."""


class Leftovers:
    """The attempts that a former instance accepted and did not see confirmed."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._journal = context.journal
        self._spool = context.spool
        self._entries: list[Entry] = []

    async def find(self) -> None:
        """Read the journal; spools that belong to nothing in it are removed."""
        self._entries = await self._journal.unfinished()
        known = {(entry.step, entry.attempt) for entry in self._entries}
        for step, attempt in self._spool.left() - known:
            self._spool.forget(step, attempt)

    @property
    def cut_off(self) -> list[AttemptRef]:
        """Attempts that ran when the former instance ended: no new work until what they left is gone."""
        return [_ref(entry) for entry in self._entries if entry.state == "accepted"]

    async def kill(self) -> None:
        """End what they left on the targets, all at once, and journal them as lost."""
        cut_off = [entry for entry in self._entries if entry.state == "accepted"]
        await asyncio.gather(*(self._end_as_lost(entry) for entry in cut_off))
        self._entries = await self._journal.unfinished()

    async def deliver(self) -> None:
        """Ship what is left of their logs, then publish their ends."""
        await asyncio.gather(*(self._deliver(entry) for entry in self._entries if entry.finish is not None))

    async def _end_as_lost(self, entry: Entry) -> None:
        groups = await self._journal.groups(entry.step, entry.attempt)
        target = entry.target or self._context.default_target
        marker = f"{entry.step}.{entry.attempt}"
        gone = await stop_trees(self._context.workbench, {target} if target else set(), groups, marker, GRACE_S)
        log.warning("attempt_cut_off", step=entry.step, attempt=entry.attempt, tree_gone=gone)
        async with self._ship(entry) as ship:
            await ship.say("proctor: the agent was restarted in the middle of this step; its processes were stopped")
            totals = await ship.finish(lost=True)
        # The delivery opens it again, as the next start would.
        self._spool.attempt(entry.step, entry.attempt).close()
        started = None if entry.started is None else datetime.fromtimestamp(entry.started, UTC)
        await self._journal.end(
            StepFinished(
                run=entry.run,
                step=entry.step,
                attempt=entry.attempt,
                token=entry.token,
                result=StepResult.LOST,
                reason="agent_restarted",
                started_at=started,
                finished_at=datetime.now(UTC),
                chunks=totals.chunks,
                lines=totals.lines,
                bytes=totals.bytes,
                tree_gone=gone,
            )
        )

    async def _deliver(self, entry: Entry) -> None:
        assert entry.finish is not None
        async with self._ship(entry) as ship:
            await ship.stored()
        await self._context.ends.publish(entry.finish)

    def _ship(self, entry: Entry) -> LogShip:
        of = LogOf(self._context.agent, entry.run, entry.step, entry.attempt)
        spool = self._spool.attempt(entry.step, entry.attempt)
        # What stands in the spool was masked before it got there; what is added here holds no secret.
        return LogShip(self._context.bus, of, spool, Redactor(()), limit=NO_LIMIT)


def _ref(entry: Entry) -> AttemptRef:
    return AttemptRef(step=entry.step, attempt=entry.attempt, token=entry.token)
