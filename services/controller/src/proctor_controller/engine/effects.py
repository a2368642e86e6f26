"""What follows a commit: each effect of a decision is begun in the background, and watchers are notified.

What fails here, or is lost with the process, the watchdog derives again from what is stored.
"""

import asyncio
from typing import assert_never

import structlog

from proctor_common import subjects
from proctor_common.bus import BusError
from proctor_common.messages.views import RunChanged
from proctor_controller.db.runs.decisions import Saved
from proctor_controller.db.runs.views import event_view
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import (
    Allocate,
    CancelAttempt,
    Decision,
    Effect,
    FollowUp,
    LookLater,
    NotifyChildren,
    NotifyParent,
    PlaceReady,
    PlaceStep,
    QueryAttempt,
    RecordsWaiting,
    ReleaseRun,
    ServeQueue,
    StartAttempt,
    StartChild,
    StopChild,
)
from proctor_controller.engine.children import Children
from proctor_controller.engine.leasing import Leasing
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.services import EngineServices, Feed

log = structlog.get_logger(__name__)


class Effects:
    """Performs the effects of decisions."""

    def __init__(
        self,
        services: EngineServices,
        feed: Feed,
        *,
        orders: Orders,
        queue: Queue,
        leasing: Leasing,
        children: Children,
    ) -> None:
        self._bus = services.bus
        self._tasks = services.tasks
        self._feed = feed
        self._orders = orders
        self._queue = queue
        self._leasing = leasing
        self._children = children

    def begin(self, decision: Decision, saved: Saved) -> None:
        """Begin with all that follows a commit. Nobody waits for it."""
        for effect in decision.effects:
            if saved.queue or not isinstance(effect, ServeQueue):
                self._begin(decision.run.id, effect)
        if decision.events:
            self._tasks.start("wake", self._wake(decision, saved))

    def _begin(self, run: str, effect: Effect) -> None:  # noqa: C901, PLR0912 - one case for each effect
        start = self._tasks.start
        match effect:
            case StartAttempt():
                start("start order", self._orders.start(run, effect))
            case CancelAttempt():
                start("cancel order", self._orders.cancel(run, effect))
            case QueryAttempt():
                start("query order", self._orders.query(run, effect))
            case PlaceStep():
                start("place", self._queue.place(effect.step))
            case ServeQueue():
                self._queue.serve_later(effect.agent, if_none=self._leasing.give_idle)
            case FollowUp():
                start("follow up", self._feed(effect.event))
            case LookLater():
                start("look later", self._look_later(run, effect))
            case StartChild():
                start("child", self._children.see_to(run, effect.step, effect.attempt))
            case StopChild():
                start("stop child", self._children.stop(run, effect.step, effect.attempt))
            case NotifyParent():
                start("tell parent", self._children.tell_parent(run))
            case NotifyChildren():
                start("tell children", self._children.tell_children(run))
            case Allocate():
                start("allocate", self._leasing.allocate(run))
            case ReleaseRun():
                start("release", self._leasing.release(run))
            case PlaceReady():
                start("place ready", self._leasing.place_ready(run))
            case RecordsWaiting():
                start("wake recorder", self._publish(subjects.records(), b""))
            case _:
                assert_never(effect)

    async def _look_later(self, run: str, effect: LookLater) -> None:
        await asyncio.sleep(effect.seconds)
        await self._feed(events.StepDue(run, effect.step))

    async def _wake(self, decision: Decision, saved: Saved) -> None:
        run = decision.run
        views = [
            event_view(run.id, row, number, saved.at) for row, number in zip(decision.events, saved.ids, strict=True)
        ]
        changed = RunChanged(run=run.id, group=run.group, state=run.state, result=run.result, events=views)
        await self._publish(subjects.wake(run.id), changed.encode())

    async def _publish(self, subject: str, payload: bytes) -> None:
        # Whoever would have heard it asks by itself now and then.
        try:
            await self._bus.publish(subject, payload)
        except BusError as fault:
            log.debug("wake_not_sent", subject=subject, error=str(fault))
