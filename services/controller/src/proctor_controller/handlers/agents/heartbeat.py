"""Heartbeats: each is stored and answered with confirmed ends and unwanted attempts. No SQL.

Heartbeats that arrive while a batch is written form the next batch: with one agent each costs one statement, with a
thousand many share one.
"""

import asyncio
from datetime import timedelta

import structlog

from proctor_common import subjects
from proctor_common.bus import Message
from proctor_common.errors import ProctorError
from proctor_common.ids import is_id
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import AttemptRef, Heartbeat, HeartbeatReply
from proctor_common.pg import transaction
from proctor_common.states import AgentState
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents.heartbeats import AgentBefore, Beat, mark_settled, save_beats
from proctor_controller.domain.hosts.agent import MISSED_BEATS, is_instance

log = structlog.get_logger(__name__)

MAX_BATCH = 500
MAX_REMAINS = 20
MAX_REMAIN = 500
MAX_HEARTBEAT = 512 * 1024


class Beats:
    """Stores heartbeats, many in one statement."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._waiting: list[tuple[Beat, asyncio.Future[AgentBefore | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def save(self, beat: Beat) -> AgentBefore | None:
        """The agent before the heartbeat; None for an unknown one. Raises what the database raises."""
        future: asyncio.Future[AgentBefore | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((beat, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="write beats")
        return await future

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                async with transaction(self._context.database) as connection:
                    standings = await save_beats(connection, [beat for beat, _ in batch])
            except Exception as fault:
                # Any fault goes to the waiting callers; the writer continues.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(fault)
                continue
            for beat, future in batch:
                if not future.done():
                    future.set_result(standings.get(beat.agent))


def _storable(remains: list[str]) -> tuple[str, ...]:
    """The sentences, cut to what the database accepts."""
    texts = (text.replace("\0", "").encode("utf-8", "replace").decode() for text in remains[:MAX_REMAINS])
    return tuple(text[:MAX_REMAIN] for text in texts)


class Heartbeats:
    """Answers heartbeats; the subject names the agent."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._beats = Beats(context)

    async def answer(self, message: Message) -> bytes | None:
        """The reply; None if it is no heartbeat, and while the database is away."""
        agent = subjects.agent_of(message.subject)
        try:
            if len(message.data) > MAX_HEARTBEAT:
                raise BadMessage(f"a heartbeat of {len(message.data)} bytes is over the limit of {MAX_HEARTBEAT}")
            heartbeat = decode(Heartbeat, message.data)
        except BadMessage as fault:
            log.warning("heartbeat_refused", agent=agent, reason=str(fault))
            return None
        try:
            return (await self._beat(agent, heartbeat)).encode()
        except ProctorError as fault:
            log.warning("heartbeat_not_taken", agent=agent, error=fault.message)
            return None

    async def _beat(self, agent: str, heartbeat: Heartbeat) -> HeartbeatReply:
        context = self._context
        # A malformed instance must not reach a statement that other agents' heartbeats share.
        instance = heartbeat.instance if is_instance(heartbeat.instance) else ""
        before = await self._beats.save(Beat(agent, instance, _storable(heartbeat.remains))) if is_id(agent) else None
        if before is None or before.state is AgentState.REMOVED:
            return HeartbeatReply(time=context.clock.now(), refused="this agent was removed; it has to join again")
        # Orders use the database's clock.
        time = before.now
        if before.instance != instance:
            return HeartbeatReply(time=time, register_again=True, refused=self._rivalry(before))
        if before.state is AgentState.LOST:
            log.info("agent_returned", agent=agent)
            await context.engine.agent_status.agents_returned([agent])
        confirmed: list[AttemptRef] = []
        unwanted: list[AttemptRef] = []
        if before.busy or heartbeat.attempts or heartbeat.ended:
            confirmed, unwanted = await context.engine.agent_status.reconcile(agent, heartbeat)
        settled = not unwanted and (before.settling or before.state is AgentState.LOST)
        if settled:
            async with transaction(context.database) as connection:
                await mark_settled(connection, agent, instance)
        if settled or before.state is not AgentState.ONLINE:
            await context.engine.agent_status.capacity_changed([agent])
        over = await context.engine.agent_status.over(heartbeat.holding) if heartbeat.holding else []
        return HeartbeatReply(time=time, confirmed=confirmed, unwanted=unwanted, draining=before.closed, over=over)

    def _rivalry(self, before: AgentBefore) -> str:
        """Why an instance that is not the registered one is refused; empty if it only has to register."""
        if before.instance is None or before.last_heartbeat is None:
            return ""
        silence = before.now - before.last_heartbeat
        if silence >= MISSED_BEATS * timedelta(seconds=self._context.settings.heartbeat):
            return ""
        return f"instance {before.instance} speaks as this agent"
