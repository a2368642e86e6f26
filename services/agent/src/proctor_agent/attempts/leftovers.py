"""What a former process of this agent left: processes on targets, log bytes on disk, unconfirmed ends."""

import asyncio
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from proctor_agent.attempts.context import AgentContext
from proctor_agent.attempts.execution import all_gone, stop_trees
from proctor_agent.attempts.journal import Entry
from proctor_agent.log.redact import Redactor
from proctor_agent.log.shipping import LogOf, LogShip
from proctor_agent.log.spool import SpoolRemains
from proctor_common.messages.events import AttemptRef, StepFinished
from proctor_common.states import StepResult

log = structlog.get_logger(__name__)

Key = tuple[str, int]
GRACE_S = 2.0
NO_LIMIT = 2**62
"""What is in the spool was checked against the limit when it was read."""


class Leftovers:
    """The attempts that a former process accepted and that are not confirmed."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._journal = context.journal
        self._spool = context.spool
        self._entries: list[Entry] = []
        self._found: dict[Key, SpoolRemains | None] = {}
        self._cut_off: dict[Key, AttemptRef] = {}

    async def find(self) -> None:
        """Read the journal and the spools; remove spools of unknown attempts. Call before any order is taken."""
        self._entries = await self._journal.unfinished()
        self._cut_off = {_key(entry): _ref(entry) for entry in self._entries if entry.state == "accepted"}
        # May read as much as the spool's limit: in a thread, while nobody else uses it.
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        shutil.rmtree(self._context.folder, ignore_errors=True)
        for step, attempt in self._spool.left() - {_key(entry) for entry in self._entries}:
            self._spool.forget(step, attempt)
        for key in map(_key, self._entries):
            try:
                self._found[key] = self._spool.attempt(*key).recover()
            except OSError as fault:
                log.error("spool_not_readable", step=key[0], attempt=key[1], error=str(fault))
                self._found[key] = None

    @property
    def cut_off(self) -> list[AttemptRef]:
        """Attempts that ran when the former process ended: no new work until what they left is gone."""
        return list(self._cut_off.values())

    async def settle(self, clean: Callable[[], None]) -> None:
        """End what the cut-off attempts left on the targets and journal them as lost; call ``clean`` when that is done
        for all. Send the rest of every log, then publish its end.
        """
        await asyncio.gather(*(self._settle(entry, clean) for entry in self._entries))

    async def _settle(self, entry: Entry, clean: Callable[[], None]) -> None:
        finish = entry.finish
        gone = await self._kill(entry) if finish is None else None
        async with self._ship(entry) as ship:
            if finish is None:
                finish = await self._end_as_lost(entry, ship, gone)
                self._cut_off.pop(_key(entry), None)
                if not self._cut_off:
                    clean()
            await ship.stored()
        await self._context.ends.publish(finish)

    async def _kill(self, entry: Entry) -> bool | None:
        groups = await self._journal.groups(entry.step, entry.attempt)
        target = entry.target or self._context.default_target
        marker = f"{entry.step}.{entry.attempt}"
        found = await stop_trees(self._context.workbench, {target} if target else set(), groups, marker, GRACE_S)
        for name in [name for name, gone in found.items() if gone is None]:
            mine = [group for group in groups if group.target == name]
            self._context.debts.owe(entry.run, marker, name, mine)
        gone = all_gone(found)
        log.warning("attempt_cut_off", step=entry.step, attempt=entry.attempt, tree_gone=gone)
        return gone

    async def _end_as_lost(self, entry: Entry, ship: LogShip, gone: bool | None) -> StepFinished:
        ship.say("proctor: the agent was restarted in the middle of this step; its processes were stopped")
        totals = await ship.finish(lost=True)
        started = None if entry.started is None else datetime.fromtimestamp(entry.started, UTC)
        finish = StepFinished(
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
        await self._context.ends.keep(finish)
        return finish

    def _ship(self, entry: Entry) -> LogShip:
        of = LogOf(self._context.agent, entry.run, entry.step, entry.attempt)
        spool = self._spool.attempt(entry.step, entry.attempt)
        # The spool's bytes are masked already; what is added here contains no secret.
        found = self._found.pop(_key(entry), None)
        return LogShip(self._context.bus, of, spool, Redactor(()), limit=NO_LIMIT, found=found)


def _key(entry: Entry) -> Key:
    return entry.step, entry.attempt


def _ref(entry: Entry) -> AttemptRef:
    return AttemptRef(step=entry.step, attempt=entry.attempt, token=entry.token)
