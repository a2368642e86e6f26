"""Takes the orders of controllers: start, cancel, query, drain. Owns one task for each attempt."""

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from proctor_agent.attempts.context import AgentContext
from proctor_agent.attempts.execution import Execution
from proctor_agent.attempts.journal import JournalFullError
from proctor_agent.log.redact import Redactor
from proctor_agent.log.shipping import LogOf, LogShip
from proctor_common import subjects
from proctor_common.bus import Message
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import AttemptRef, StepFinished
from proctor_common.messages.orders import (
    AttemptStanding,
    CancelOrder,
    DrainOrder,
    DrainReply,
    QueryOrder,
    ReadOrder,
    ReadOutcome,
    ReadReply,
    StandingReply,
    StartAnswer,
    StartOrder,
    StartReply,
)
from proctor_common.states import StepResult

log = structlog.get_logger(__name__)

Key = tuple[str, int]
Handler = Callable[[Message], Awaitable[bytes]]
MOST_REFS = 2000
"""So many attempts one heartbeat names; the others follow when these are confirmed."""
READ_SECONDS = 8.0
ADMISSION_WAIT = 3.0
"""Seconds that an order waits for this agent's registration; then it is not answered."""
_STANDINGS = {
    "accepted": AttemptStanding.RUNNING,
    "ended": AttemptStanding.FINISHED,
    "confirmed": AttemptStanding.CONFIRMED,
    "tombstone": AttemptStanding.NEVER,
}


@dataclass(frozen=True, slots=True)
class AttemptsSnapshot:
    """What a heartbeat says of the attempts here."""

    attempts: tuple[AttemptRef, ...] = ()
    ended: tuple[AttemptRef, ...] = ()
    spool_bytes: int = 0
    holding: tuple[str, ...] = ()
    remains: tuple[str, ...] = ()


class Supervisor:
    """All attempts of this agent. Use from its main loop."""

    def __init__(self, context: AgentContext, *, slots: int) -> None:
        self.draining = False
        self.cleaning = False
        """Whether what a former process left is being cleaned up: no work is taken."""
        self.stopping = False
        """Whether the agent is ending: no work is taken."""
        self._context = context
        self._bus = context.bus
        self._journal = context.journal
        self._ends = context.ends
        self._slots = slots
        self._clock: tuple[datetime, float] | None = None
        self._live: dict[Key, Execution] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._taking: set[Key] = set()
        self._early_stops: dict[Key, CancelOrder] = {}
        self._admitted = asyncio.Event()

    async def serve(self) -> None:
        """Subscribe to the orders. Raises BusError."""
        handlers = {
            "start": self._on_start,
            "cancel": self._on_cancel,
            "query": self._on_query,
            "drain": self._on_drain,
            "read": self._on_read,
        }
        for verb, handler in handlers.items():
            await self._bus.serve(subjects.order(self._context.agent, verb), partial(self._answer, handler=handler))

    def set_clock(self, controller: datetime, here: float) -> None:
        """Set the controller's clock: the time it gave, and ``time.monotonic`` here in the middle of the exchange."""
        self._clock = controller, here

    def now(self) -> datetime:
        """The time by the controller's clock, unaffected by changes of ours; by ours before the first contact."""
        if self._clock is None:
            return datetime.now(UTC)
        said, then = self._clock
        return said + timedelta(seconds=time.monotonic() - then)

    def snapshot(self) -> AttemptsSnapshot:
        """What a heartbeat says. May be called in another thread."""
        return AttemptsSnapshot(
            attempts=tuple(execution.ref for execution in list(self._live.values())[:MOST_REFS]),
            ended=self._ends.unconfirmed[:MOST_REFS],
            spool_bytes=self._context.spool.used,
            holding=tuple(self._context.workbench.held_runs),
            remains=self._context.debts.remains,
        )

    # -- orders ---------------------------------------------------------------------------------------------------

    async def _answer(self, message: Message, handler: Handler) -> bytes | None:
        """The handler's answer. None (no answer is sent) while this process is not registered: another one with the
        same key may hold the attempts in question.
        """
        if not self._admitted.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADMISSION_WAIT):
                    await self._admitted.wait()
        if not self._admitted.is_set():
            log.warning("order_not_answered", subject=message.subject)
            return None
        try:
            return await handler(message)
        except BadMessage as fault:
            log.error("bad_order", subject=message.subject, error=str(fault))
            return None

    def admit(self, refused: str = "") -> None:
        """The controllers accept this process as the agent, or ``refused`` says why not."""
        if refused:
            self._admitted.clear()
        else:
            self._admitted.set()

    async def _on_start(self, message: Message) -> bytes:
        try:
            order = decode(StartOrder, message.data)
        except BadMessage as fault:
            # It would be unreadable the next time too.
            log.error("bad_order", subject=message.subject, error=str(fault))
            return StartReply(answer=StartAnswer.REFUSED, reason=str(fault)).encode()
        return (await self._start(order)).encode()

    async def _start(self, order: StartOrder) -> StartReply:
        key = (order.step, order.attempt)
        verdict = self._judge(order)
        self._taking.add(key)
        try:
            reply, fresh = await self._journal.accept(order, verdict)
            if fresh:
                # From here on an end must be reported, whatever happens.
                self._begin(order)
        except JournalFullError as fault:
            reply = StartReply(answer=StartAnswer.BUSY, reason=str(fault))
        finally:
            self._taking.discard(key)
            self._early_stops.pop(key, None)
        return reply

    def _judge(self, order: StartOrder) -> StartReply:
        """The answer to a new order; a known one gets its stored answer instead."""
        if self.now() > order.not_after:
            return StartReply(answer=StartAnswer.EXPIRED, reason="the order came too late")
        if closed := self._closed():
            return StartReply(answer=StartAnswer.BUSY, reason=closed)
        if len(self._live.keys() | self._taking) >= self._slots:
            return StartReply(answer=StartAnswer.BUSY, reason=f"all {self._slots} slots are taken")
        if owed := self._context.debts.against(order.run, order.target or self._context.default_target):
            return StartReply(answer=StartAnswer.BUSY, reason=owed)
        reason = self._context.workbench.check(order.plugin, order.method, order.target, order.parameters)
        if reason:
            return StartReply(answer=StartAnswer.REFUSED, reason=Redactor(order.secrets).text(reason))
        return StartReply(answer=StartAnswer.ACCEPTED)

    def _closed(self) -> str:
        """Why no work is taken at all; empty if it is."""
        if self.stopping:
            return "the agent is stopping"
        return "cleaning up what the former instance left" if self.cleaning else "draining" if self.draining else ""

    def _begin(self, order: StartOrder) -> None:
        key = (order.step, order.attempt)
        redactor = Redactor(order.secrets)
        context = self._context
        of = LogOf(context.agent, order.run, order.step, order.attempt)
        ship = LogShip(self._bus, of, context.spool.begin(*key), redactor, limit=order.log_limit)
        execution = Execution(order, ship, redactor, context)
        self._live[key] = execution
        early = self._early_stops.get(key)
        if early is not None and early.token == order.token:
            _stop(execution, early)
        task = asyncio.create_task(self._run(execution, ship), name=f"attempt {execution.marker}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._forget(key))

    async def _run(self, execution: Execution, ship: LogShip) -> None:
        """One attempt: run it, journal its end, and publish that when the last chunk is stored."""
        started_at = self.now()
        async with ship:
            try:
                end = await execution.live(started_at)
            except Exception as fault:
                end = await execution.give_up(started_at, fault)
            end = end.model_copy(update={"finished_at": self.now()})
            # At the same time: what a controller has heard is valid, even if a crash keeps the end out of this journal.
            heard = asyncio.Event()
            await asyncio.gather(self._ends.keep(end, heard), self._deliver(end, ship, heard))

    async def _deliver(self, end: StepFinished, ship: LogShip, heard: asyncio.Event) -> None:
        await ship.stored()
        # The slot must be free before a controller can hear of the end and send the next order.
        self._live.pop((end.step, end.attempt), None)
        await self._ends.publish(end)
        heard.set()

    def _forget(self, key: Key) -> None:
        self._live.pop(key, None)
        task = self._tasks.pop(key)
        if not task.cancelled() and task.exception() is not None:
            # Without its text, which may quote a secret.
            log.error("attempt_failed", step=key[0], attempt=key[1], fault=type(task.exception()).__name__)

    async def _on_cancel(self, message: Message) -> bytes:
        order = decode(CancelOrder, message.data)
        key = (order.step, order.attempt)
        if key in self._taking:
            self._early_stops[key] = order
        reply = await self._state_of(order)
        execution = self._live.get(key)
        if execution is not None and execution.ref.token == order.token:
            _stop(execution, order)
            reply = StandingReply(standing=AttemptStanding.STOPPING)
        return reply.encode()

    async def _on_query(self, message: Message) -> bytes:
        return (await self._state_of(decode(QueryOrder, message.data))).encode()

    async def _state_of(self, order: CancelOrder | QueryOrder) -> StandingReply:
        execution = self._live.get((order.step, order.attempt))
        if execution is not None and execution.ref.token == order.token:
            stopping = execution.stopping.is_set()
            return StandingReply(standing=AttemptStanding.STOPPING if stopping else AttemptStanding.RUNNING)
        entry = await self._journal.find_or_tombstone(order.run, order.step, order.attempt, order.token)
        if entry.token != order.token:
            # Known under another token, so a start with this one is stale: it never ran and never will.
            return StandingReply(standing=AttemptStanding.NEVER)
        return StandingReply(standing=_STANDINGS[entry.state], end=entry.finish)

    async def _on_drain(self, message: Message) -> bytes:
        self.draining = decode(DrainOrder, message.data).draining
        return DrainReply(draining=self.draining).encode()

    async def _on_read(self, message: Message) -> bytes:
        order = decode(ReadOrder, message.data)
        read = self._context.workbench.read_artefact
        try:
            async with asyncio.timeout(READ_SECONDS):
                size, data = await read(order.target, order.path, order.offset, order.length)
        except FileNotFoundError:
            return ReadReply(outcome=ReadOutcome.GONE).encode()
        except OSError as fault:
            # TimeoutError is an OSError too.
            return ReadReply(outcome=ReadOutcome.UNREACHABLE, reason=str(fault) or "it takes too long").encode()
        return ReadReply(outcome=ReadOutcome.READ, size=size, data=base64.b64encode(data).decode()).encode()

    # -- what a heartbeat's answer asks for -----------------------------------------------------------------------

    async def kill_unwanted(self, unwanted: list[AttemptRef]) -> None:
        """The controller does not want these here: stop those that run, forget those that ended."""
        for ref in unwanted:
            execution = self._live.get((ref.step, ref.attempt))
            if execution is not None and not execution.stopping.is_set():
                log.warning("attempt_unwanted", step=ref.step, attempt=ref.attempt)
                execution.stop(StepResult.CANCELLED, "the controller does not know this attempt", 0.0)
            elif execution is None and self._ends.get(ref.step, ref.attempt) is not None:
                await self._ends.confirm([(ref.step, ref.attempt)])

    async def stop_all(self, patience: float) -> None:
        """The agent stops: end every attempt as lost, and wait ``patience`` seconds for their ends. What is not ended
        by then is in the journal, and the next start cleans up after it.
        """
        self.stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        # An order that is being accepted right now still becomes an attempt.
        while (self._tasks or self._taking) and loop.time() < deadline:
            for execution in list(self._live.values()):
                execution.stop(StepResult.LOST, "agent_stopped", min(1.0, patience / 3))
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=deadline - loop.time())
            else:
                await asyncio.sleep(0.01)
        late = list(self._tasks.values())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)


def _stop(execution: Execution, order: CancelOrder) -> None:
    timed_out = order.cause == "timed_out"
    result = StepResult.TIMED_OUT if timed_out else StepResult.CANCELLED
    execution.stop(result, "timed out" if timed_out else "cancelled", order.grace_s)
