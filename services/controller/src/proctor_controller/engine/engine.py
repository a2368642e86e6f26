"""The shell around ``decide``: load a slice, decide, save, commit, perform.

No transaction is held over a wait for the network. A decision is saved only while the run's row has the version it
was decided on; where another controller was quicker, it is made again on what that one left.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus, BusError
from proctor_common.ids import new_token
from proctor_common.messages.views import EventView, RunChanged
from proctor_controller.db.hosts import candidates
from proctor_controller.db.runs.decisions import Saved, load_slice, load_slices, save_decision
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import Session, close_sessions, session
from proctor_controller.domain.hosts.placement import choose, explain
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decide.joining import after, apply, join
from proctor_controller.domain.runs.decision import (
    Allocate,
    CancelAttempt,
    Decision,
    Effect,
    FollowUp,
    LookLater,
    PlaceReady,
    PlaceStep,
    QueryAttempt,
    RecordsWaiting,
    ReleaseRun,
    ServeQueue,
    Slice,
    Stale,
    StartAttempt,
    StartChild,
    StopChild,
    TellChildren,
    TellParent,
)
from proctor_controller.engine.batching import BATCHED, Ticket, batch_of
from proctor_controller.engine.cache import Recent
from proctor_controller.engine.cascade import Onwards
from proctor_controller.engine.children import Children
from proctor_controller.engine.leasing import Leasing
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.scopes import Scopes
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.tasks import Tasks

log = structlog.get_logger(__name__)

MAX_TRIES = 50
PLACED_AT_ONCE = 8
_REMEMBERED = (events.OrderAnswered, events.StepEnded)
"""Events that mostly come right after the former decision about their step."""


class Contended(Exception):
    """A run changed under every try to write it; the watchdog will look at it again."""


class Engine:
    """One for a controller process. It keeps nothing in memory that it cannot lose: the locks only spare the
    database decisions that would be made twice.

    ``perform`` False (tests of a crash): decisions are saved and nothing else happens.
    """

    def __init__(
        self,
        database: AsyncEngine,
        bus: Bus,
        seal: Seal,
        settings: EngineSettings | None = None,
        *,
        perform: bool = True,
    ) -> None:
        self.database = database
        self.bus = bus
        self.seal = seal
        self.settings = settings or EngineSettings()
        self.tasks = Tasks()
        self.decisions = 0
        self.stale = 0
        self.conflicts = 0
        self.recent = Recent()
        self._placing = asyncio.Semaphore(PLACED_AT_ONCE)
        self._perform = perform
        self._orders = Orders(self)
        self.scopes = Scopes(seal, self.settings.secrets_dir)
        self.children = Children(self)
        self.onwards = Onwards(self)
        self.leasing = Leasing(self)
        self.queue = Queue(self)
        self._inboxes: dict[str, list[Ticket]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._performers: dict[type, Callable[[str, Effect], None]] = {
            StartAttempt: self._orders.start,
            CancelAttempt: self._orders.cancel,
            QueryAttempt: self._orders.query,
            PlaceStep: self._place_later,
            ServeQueue: self.queue.serve_later,
            FollowUp: self._follow_later,
            LookLater: self._look_later,
            StartChild: self.children.start,
            StopChild: self.children.stop,
            TellParent: self.children.tell_parent,
            TellChildren: self.children.tell_children,
            Allocate: self.leasing.allocate_later,
            ReleaseRun: self.leasing.release_later,
            PlaceReady: self.leasing.place_later,
            RecordsWaiting: self._wake_recorder,
        }

    async def close(self) -> None:
        """End the effects that are being performed; another controller, or the next start, goes on with them."""
        await self.tasks.close()
        await close_sessions(self.database)

    @property
    def orders(self) -> Orders:
        """The orders to agents."""
        return self._orders

    def lock_of(self, run: str) -> asyncio.Lock:
        """One decision about a run at a time, within this process."""
        lock = self._locks.get(run)
        if lock is None:
            lock = self._locks[run] = asyncio.Lock()
        return lock

    async def feed(self, event: events.Event) -> Decision | Stale:
        """Decide about an event, commit what follows, and begin to perform it.

        Returns once it is committed. Events of different steps of one run that come meanwhile are decided in the same
        breath, and saved by one statement. Raises ProctorError ``database_unavailable``, Contended.
        """
        ticket = Ticket(event)
        inbox = self._inboxes.setdefault(event.run, [])
        inbox.append(ticket)
        try:
            async with self.lock_of(event.run):
                if ticket.outcome is None:
                    await self._turn(ticket, batch_of(ticket, inbox))
        finally:
            inbox.remove(ticket)
            if not inbox:
                self._inboxes.pop(event.run, None)
        assert ticket.outcome is not None
        return ticket.outcome

    async def _turn(self, ticket: Ticket, batch: list[Ticket]) -> None:
        async with session(self.database) as db:
            if len(batch) > 1 and await self._decide_several(db, batch):
                return
            ticket.outcome, saved = await self._decide(db, ticket.event)
        if saved is not None and isinstance(ticket.outcome, Decision):
            self.committed(ticket.outcome, saved)

    async def _decide_several(self, db: Session, batch: list[Ticket]) -> bool:
        """Decide about events of different steps one after the other, and save all of it at once; whether it was."""
        wanted = [ticket.event for ticket in batch if isinstance(ticket.event, BATCHED)]
        loaded = await load_slices(db, batch[0].event.run, wanted)
        whole: Decision | None = None
        outcomes: list[Decision | Stale] = []
        for event in wanted:
            found = loaded.get(event.step)
            outcome: Decision | Stale = Stale("no such run or step")
            if found is not None:
                part = found.part if whole is None else after(found.part, whole)
                outcome = decide(part, event, found.now, self.settings.policy)
            if isinstance(outcome, Decision):
                whole = outcome if whole is None else join(whole, outcome)
            outcomes.append(outcome)
        if whole is not None:
            now = next(iter(loaded.values())).now
            extended = await self.onwards.extend(db, whole, now)
            saved = await save_decision(db, extended, if_nobody_waits=extended.held != whole.held)
            if saved is None:
                self.conflicts += 1
                return False
            self.recent.set_clock(saved.at)
            self.recent.note_ended(extended)
            self.committed(extended, saved)
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.outcome = outcome
            self.decisions += isinstance(outcome, Decision)
            self.stale += isinstance(outcome, Stale)
        return True

    async def _decide(self, db: Session, event: events.Event) -> tuple[Decision | Stale, Saved | None]:
        remembered = self.recent.take(event.step) if isinstance(event, _REMEMBERED) else None
        if remembered is not None:
            part, now = remembered
            outcome = decide(part, event, now, self.settings.policy)
            if isinstance(outcome, Decision):
                saved = await self._save(db, part, outcome)
                if saved is not None:
                    return outcome, saved
        for tried in range(MAX_TRIES):
            loaded = await load_slice(db, event)
            if loaded is None:
                return Stale("no such run or step"), None
            self.recent.set_clock(loaded.now)
            outcome = decide(loaded.part, event, loaded.now, self.settings.policy)
            if isinstance(outcome, Stale):
                self.stale += 1
                return outcome, None
            if tried == 0:
                whole = await self.onwards.extend(db, outcome, loaded.now)
                saved = await self._save(db, loaded.part, whole, if_nobody_waits=whole.held != outcome.held)
                if saved is not None:
                    self.recent.note_ended(whole)
                    return whole, saved
                if whole is outcome:
                    continue
            saved = await self._save(db, loaded.part, outcome)
            if saved is not None:
                return outcome, saved
            if outcome.held and tried > 2:
                return Stale("the slot is gone"), None
            await asyncio.sleep(0.001 * tried)
        raise Contended(f"run {event.run} changed under {MAX_TRIES} tries to write it")

    async def _save(
        self, db: Session, part: Slice, decision: Decision, *, if_nobody_waits: bool = False
    ) -> Saved | None:
        saved = await save_decision(db, decision, if_nobody_waits=if_nobody_waits)
        if saved is None:
            self.conflicts += 1
            return None
        self.decisions += 1
        self.recent.set_clock(saved.at)
        self.recent.keep(apply(part, decision))
        return saved

    def committed(self, decision: Decision, saved: Saved) -> None:
        """What follows a commit: effects begin at once; the wake-up waits for nothing and nobody waits for it."""
        if not self._perform:
            return
        if saved.queue:
            self.onwards.note_queue()
        for effect in decision.effects:
            if saved.queue or not isinstance(effect, ServeQueue):
                self._performers[type(effect)](decision.run.id, effect)
        if decision.events:
            self.tasks.start("wake", self._wake(decision, saved))

    def _wake_recorder(self, run: str, effect: Effect) -> None:
        self.tasks.start("wake recorder", self._publish_records())

    async def _publish_records(self) -> None:
        # The recorder asks now and then by itself.
        try:
            await self.bus.publish(subjects.records(), b"")
        except BusError as fault:
            log.debug("wake_not_sent", error=str(fault))

    async def _wake(self, decision: Decision, saved: Saved) -> None:
        run = decision.run
        views = [
            EventView(
                seq=row.seq,
                cursor=number,
                run=run.id,
                kind=row.kind,
                step=row.step_name,
                step_id=row.step,
                attempt=row.attempt,
                host=row.host,
                old=row.old,
                new=row.new,
                result=row.result,
                reason=row.reason,
                at=saved.at,
            )
            for row, number in zip(decision.events, saved.ids, strict=True)
        ]
        changed = RunChanged(run=run.id, group=run.group, state=run.state, result=run.result, events=views)
        try:
            await self.bus.publish(subjects.wake(run.id), changed.encode())
        except BusError as fault:
            log.debug("wake_not_sent", run=run.id, error=str(fault))

    # -- slots ----------------------------------------------------------------------------------------------------

    def offer(self, agent: str, host: str) -> events.Offer:
        """An agent for a step, under a new lease token."""
        return events.Offer(agent=agent, host=host, token=new_token("lease"))

    def recheck_queue(self) -> None:
        """A step has joined the queue."""
        if self._perform:
            self.queue.look_later()

    def _place_later(self, run: str, effect: Effect) -> None:
        if isinstance(effect, PlaceStep):
            self.tasks.start("place", self._place(effect.step))

    def _follow_later(self, run: str, effect: Effect) -> None:
        if isinstance(effect, FollowUp):
            self.tasks.start("follow up", self._follow(effect.event))

    def _look_later(self, run: str, effect: Effect) -> None:
        if isinstance(effect, LookLater):
            self.tasks.start("look later", self._look(run, effect))

    async def _look(self, run: str, effect: LookLater) -> None:
        await asyncio.sleep(effect.seconds)
        await self.feed(events.StepDue(run, effect.step))

    async def _follow(self, event: events.Event) -> None:
        await self.feed(event)

    async def _place(self, step: str) -> None:
        # Hundreds of steps can become ready at once; the database's connections are for others too.
        async with self._placing:
            await self.place(step)

    async def place(self, step: str) -> None:
        """Dispatch a step that has become ready, or let it wait."""
        for _ in range(MAX_TRIES):
            async with session(self.database) as db:
                waiter = await candidates.load_waiter(db, step)
                if waiter is None:
                    return
                found = await candidates.find_candidates_of(db, waiter)
                chosen = choose(f.candidate for f in found)
                if chosen is not None:
                    await self._ensure_slots(db, found, chosen.agent)
            if chosen is None:
                why = explain(waiter.place, (f.candidate for f in found), waiter.plugin, waiter.method)
                await self.feed(events.NoSlot(waiter.run, step, why))
                self.recheck_queue()
                return
            outcome = await self.feed(events.LeasesHeld(waiter.run, step, self.offer(chosen.agent, chosen.host)))
            if isinstance(outcome, Decision) or "slot" not in outcome.why:
                return

    async def _ensure_slots(self, db: Session, found: list[candidates.Found], agent: str) -> None:
        for each in found:
            if each.candidate.agent == agent and each.slots_made < each.candidate.slots:
                await candidates.make_slots(db, agent)
