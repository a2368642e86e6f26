"""Orders to agents: sent, repeated to the same agent under the same token, and their answers fed back as events."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from proctor_common import subjects
from proctor_common.bus import BusError, BusUnavailable, NoResponders
from proctor_common.messages.base import BadMessage, WireMessage, decode
from proctor_common.messages.events import StepFinished
from proctor_common.messages.orders import (
    AttemptStanding,
    CancelOrder,
    QueryOrder,
    StandingReply,
    StartAnswer,
    StartOrder,
    StartReply,
)
from proctor_controller.db.runs.attempts import MethodCall, keep_shown, load_call
from proctor_controller.db.runs.timers import is_lost
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import Session, session
from proctor_controller.domain.documents.method_parameters import Path, secret_texts
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import CancelAttempt, QueryAttempt, Stale, StartAttempt
from proctor_controller.domain.runs.order_rendering import RenderFault, render
from proctor_controller.domain.runs.step import AttemptEnd, Step
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.engine.services import EngineServices, Feed

log = structlog.get_logger(__name__)

MAX_PREPARED = 1000
AGAIN = 0.2
BUS_WAIT = 8.0
"""Less than the watchdog waits before it sends the order itself."""


class Orders:
    """Performs the effects that go to agents.

    ``prepared``: orders of steps that were stored a moment ago, so that their first one needs no query; a cache.
    """

    def __init__(self, services: EngineServices, feed: Feed) -> None:
        self._services = services
        self._bus = services.bus
        self._settings = services.settings
        self._feed = feed
        self._prepared: OrderedDict[str, StartOrder] = OrderedDict()

    def prepare(self, step: Step, call: MethodCall, secrets: Sequence[str] = ()) -> None:
        """Keep the order of a step until it is sent for the first time, unless the call is sealed or has templates."""
        if call.sealed is None and not _has_templates(call):
            self._prepared[step.id] = build_order(step, call, secrets)
            while len(self._prepared) > MAX_PREPARED:
                self._prepared.popitem(last=False)

    async def cancel(self, run: str, effect: CancelAttempt) -> None:
        """Order an attempt to stop."""
        order = CancelOrder(
            run=run,
            step=effect.step,
            attempt=effect.attempt,
            token=effect.token,
            cause=effect.cause,
            grace_s=effect.grace_s,
        )
        await self._ask_standing(run, effect, "cancel", order)

    async def query(self, run: str, effect: QueryAttempt) -> None:
        """Ask what became of an attempt."""
        order = QueryOrder(run=run, step=effect.step, attempt=effect.attempt, token=effect.token)
        await self._ask_standing(run, effect, "query", order)

    async def start(self, run: str, effect: StartAttempt) -> None:
        """Send a start order, and once more where it is not answered."""
        order = await self._order(run, effect)
        if order is None:
            return
        payload = order.encode()
        names = (run, effect.step, effect.attempt, effect.token)
        sends = effect.sends
        for send in range(self._settings.order_sends):
            if send:
                # From now on a copy may be on its way that nobody knows of: that is stored before another one goes.
                if isinstance(await self._feed(events.OrderUnknown(*names)), Stale):
                    return
                sends += 1
            try:
                answer = decode(StartReply, await self._request_start(effect, payload))
            except NoResponders:
                await self._feed(events.OrderUndelivered(*names, sends))
                return
            except BadMessage as fault:
                log.error("order_answer_unreadable", agent=effect.agent, step=effect.step, error=str(fault))
                return
            except BusError as fault:
                log.warning("order_unanswered", step=effect.step, attempt=effect.attempt, error=str(fault))
                if fault.delivered is False:
                    # Nothing left this process: the watchdog sends it.
                    return
                await asyncio.sleep(AGAIN)
                continue
            await self._answered(run, effect, answer, sends)
            return
        await self._feed(events.OrderUnknown(*names))

    async def _request_start(self, effect: StartAttempt, payload: bytes) -> bytes:
        """Ask once; where the bus is away, once more when it is back."""
        bus, timeout = self._bus, self._settings.order_timeout
        subject = subjects.order(effect.agent, "start")
        try:
            return await bus.request(subject, payload, timeout=timeout)
        except BusUnavailable:
            if not await bus.wait_connected(BUS_WAIT):
                raise
        return await bus.request(subject, payload, timeout=timeout)

    async def _order(self, run: str, effect: StartAttempt) -> StartOrder | None:
        """The order; None where there is none to be sent (any more)."""
        prepared = self._prepared.pop(effect.step, None)
        if prepared is None:
            async with session(self._services.database) as db:
                loaded = await load_call(db, effect.step)
                if loaded is None or loaded[0].run != run:
                    return None
                step, call = loaded
                prepared = open_order(step, call, self._services.seal)
                fault = ""
                if call.rules is not None and call.rules.is_filling:
                    try:
                        prepared = await self._fill(db, prepared, step, call.rules)
                    except RenderFault as wrong:
                        fault = str(wrong)
            if fault:
                await self._feed(
                    events.RenderFailed(run, effect.step, effect.attempt, effect.token, fault, effect.sends)
                )
                return None
        return prepared.model_copy(
            update={
                "attempt": effect.attempt,
                "token": effect.token,
                "not_after": effect.not_after,
                "log_limit": self._settings.attempt_log_limit,
            }
        )

    async def _fill(self, db: Session, order: StartOrder, step: Step, rules: Rules) -> StartOrder:
        """The order with its templates filled in. Raises RenderFault."""
        scope, hidden = await self._services.scopes.of_step(db, step, rules)
        done = render(rules, order.parameters, order.env, scope, hidden)
        if rules.parameters is not None:
            await keep_shown(db, step.id, done.shown)
        secrets = list(dict.fromkeys([*order.secrets, *done.secrets]))
        filled = {"parameters": dict(done.parameters), "env": dict(done.env), "artefacts": list(done.artefacts)}
        return order.model_copy(update={**filled, "secrets": secrets})

    async def _answered(self, run: str, effect: StartAttempt, answer: StartReply, sends: int) -> None:
        came = time.monotonic()
        if answer.answer is StartAnswer.ACCEPTED:
            # A short step ends within this time: then its end is all that has to be written.
            await asyncio.sleep(self._settings.short_step)
            if self._services.cache.has_ended(effect.step):
                return
        else:
            log.info("order_not_accepted", step=effect.step, attempt=effect.attempt, answer=answer.answer.value)
        await self._feed(
            events.OrderAnswered(
                run=run,
                step=effect.step,
                attempt=effect.attempt,
                token=effect.token,
                answer=events.OrderAnswer(answer.answer.value),
                sends=sends,
                reason=answer.reason,
                ago=time.monotonic() - came,
            )
        )

    async def _ask_standing(
        self, run: str, effect: CancelAttempt | QueryAttempt, verb: str, order: WireMessage
    ) -> None:
        subject = subjects.order(effect.agent, verb)
        try:
            reply = await self._bus.request(subject, order.encode(), timeout=self._settings.order_timeout)
            standing = decode(StandingReply, reply)
        except (BusError, BadMessage) as fault:
            # It is sent again when the step is due.
            log.info("order_unanswered", verb=verb, step=effect.step, attempt=effect.attempt, error=str(fault))
            return
        event = standing_event(run, effect, standing)
        if isinstance(event, events.StillRunning) and await self._is_lost(effect.agent):
            # With its next heartbeat it says so again; until then the watchdog would only take the step for lost anew.
            return
        if event is not None:
            await self._feed(event)

    async def _is_lost(self, agent: str) -> bool:
        async with session(self._services.database) as db:
            return await is_lost(db, agent)


def build_order(step: Step, call: MethodCall, secrets: Sequence[str] = ()) -> StartOrder:
    """A step's order but for what belongs to one attempt: attempt, token, not_after. ``secrets``: texts that logs are
    to hide.
    """
    return StartOrder(
        run=step.run,
        run_number=call.run_number,
        step=step.id,
        step_name=step.name,
        attempt=1,
        token="",
        not_after=datetime.now(UTC),
        plugin=call.plugin,
        method=call.method,
        parameters=dict(call.parameters),
        secrets=list(secrets),
        env=dict(call.env),
        target=call.target,
        artefacts=list(call.rules.artefacts) if call.rules is not None else [],
        timeout_s=step.timeout_s,
        grace_s=step.grace_s,
    )


def open_order(step: Step, call: MethodCall, seal: Seal) -> StartOrder:
    """The same, with the hidden values of a sealed call."""
    if call.sealed is None:
        return build_order(step, call)
    opened = seal.open(call.sealed, step.id)
    paths: tuple[Path, ...] = tuple(tuple(path) for path in opened["secrets"])
    parameters = opened["parameters"]
    return build_order(step, call._replace(parameters=parameters), secret_texts(parameters, paths))


def _has_templates(call: MethodCall) -> bool:
    return call.rules is not None and call.rules.is_filling


def standing_event(run: str, effect: CancelAttempt | QueryAttempt, reply: StandingReply) -> events.Event | None:
    """What an agent's word about an attempt means for the run; None where there is nothing to decide."""
    match reply.standing:
        case AttemptStanding.NEVER:
            return events.NeverStarted(run, effect.step, effect.attempt, effect.token)
        case AttemptStanding.CONFIRMED:
            return events.Forgotten(run, effect.step, effect.attempt, effect.token)
        case AttemptStanding.FINISHED if reply.end is not None:
            if (reply.end.step, reply.end.attempt, reply.end.token) != (effect.step, effect.attempt, effect.token):
                return None
            return events.StepEnded(run, effect.step, effect.attempt, effect.token, effect.agent, to_end(reply.end))
        case AttemptStanding.RUNNING | AttemptStanding.STOPPING:
            return events.StillRunning(run, effect.step, effect.attempt, effect.token)
    return None


def to_end(finished: StepFinished) -> AttemptEnd:
    """An agent's report as the domain's end of an attempt."""
    return AttemptEnd(
        result=finished.result,
        reason=finished.reason,
        exit_code=finished.exit_code,
        output=finished.output,
        error=finished.error.model_dump() if finished.error else None,
        chunks=finished.chunks,
        lines=finished.lines,
        bytes=finished.bytes,
        tree_gone=finished.tree_gone,
        started_at=finished.started_at,
        finished_at=finished.finished_at,
    )
