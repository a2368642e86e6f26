"""The path of an event (docs/engine.md): load a slice, decide, save it in one commit, perform what follows.

No transaction is held over a wait for the network. A decision is saved only while the run's row has the version it
was decided on; where another controller was quicker, it is made again on what that one left.
"""

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

from proctor_controller.db.runs.decisions import Saved, load_slice, load_slices, save_decision
from proctor_controller.db.session import Session, close_sessions, session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decide.joining import after, join
from proctor_controller.domain.runs.decision import Decision, Stale
from proctor_controller.engine.agent_status import AgentStatus
from proctor_controller.engine.cascade import Cascade
from proctor_controller.engine.children import Children
from proctor_controller.engine.effects import Effects
from proctor_controller.engine.leasing import Leasing, Volumes
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.services import Contended, EngineServices
from proctor_controller.engine.submission.submit import Submissions

MAX_TRIES = 50
BATCHED = events.OrderAnswered | events.StepEnded
"""Events that come in numbers from a run with many steps under way."""
MAX_BATCH = 16


@dataclass(slots=True, eq=False)
class Ticket:
    """An event that waits for its turn. ``outcome``: set once what follows from it is committed."""

    event: events.Event
    outcome: Decision | Stale | None = None


class Engine:
    """One for a controller process. It keeps nothing in memory that it cannot lose: the locks only spare the
    database decisions that would be made twice. ``volumes``: None where there is no pool.

    Its parts are given ``feed`` and ``committed``; what else they need of each other is passed to their constructors.
    """

    def __init__(self, services: EngineServices, volumes: Volumes | None = None) -> None:
        self.services = services
        self.database = services.database
        self.tasks = services.tasks
        self.decisions = 0
        self.stale = 0
        self.conflicts = 0
        self._policy = services.settings.policy
        self._cache = services.cache
        self._inboxes: dict[str, list[Ticket]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.queue = Queue(services, self.feed)
        self.leasing = Leasing(services, self.feed, self.queue, volumes)
        orders = Orders(services, self.feed)
        self._cascade = Cascade(services, orders)
        self.submissions = Submissions(services, orders, self.queue, self.committed)
        self.agent_status = AgentStatus(services, self.feed, orders, self.queue, self.leasing)
        children = Children(services, self.feed, self.submissions)
        self._effects = Effects(
            services, self.feed, orders=orders, queue=self.queue, leasing=self.leasing, children=children
        )

    async def close(self) -> None:
        """End the effects that are being performed; another controller, or the next start, goes on with them."""
        await self.tasks.close()
        await close_sessions(self.database)

    def lock_of(self, run: str) -> asyncio.Lock:
        """One decision about a run at a time, within this process."""
        lock = self._locks.get(run)
        if lock is None:
            lock = self._locks[run] = asyncio.Lock()
        return lock

    async def feed(self, event: events.Event) -> Decision | Stale:
        """Decide about an event, commit what follows, and begin to perform it.

        Returns once it is committed. Events of different steps of one run that come meanwhile are decided
        together, and saved by one statement. Raises ProctorError ``database_unavailable``, Contended.
        """
        ticket = Ticket(event)
        inbox = self._inboxes.setdefault(event.run, [])
        inbox.append(ticket)
        try:
            async with self.lock_of(event.run):
                if ticket.outcome is None:
                    await self._turn(ticket, _batch_of(ticket, inbox))
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
                outcome = decide(part, event, found.now, self._policy)
            if isinstance(outcome, Decision):
                whole = outcome if whole is None else join(whole, outcome)
            outcomes.append(outcome)
        if whole is not None:
            now = next(iter(loaded.values())).now
            extended = await self._cascade.extend(db, whole, now)
            saved = await save_decision(db, extended, if_nobody_waits=extended.held != whole.held)
            if saved is None:
                self.conflicts += 1
                return False
            self._cache.set_clock(saved.at)
            self._cache.note_ended(extended)
            self.committed(extended, saved)
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.outcome = outcome
            self.decisions += isinstance(outcome, Decision)
            self.stale += isinstance(outcome, Stale)
        return True

    async def _decide(self, db: Session, event: events.Event) -> tuple[Decision | Stale, Saved | None]:
        for tried in range(MAX_TRIES):
            loaded = await load_slice(db, event)
            if loaded is None:
                return Stale("no such run or step"), None
            self._cache.set_clock(loaded.now)
            outcome = decide(loaded.part, event, loaded.now, self._policy)
            if isinstance(outcome, Stale):
                self.stale += 1
                return outcome, None
            if tried == 0:
                whole = await self._cascade.extend(db, outcome, loaded.now)
                saved = await self._save(db, whole, if_nobody_waits=whole.held != outcome.held)
                if saved is not None:
                    return whole, saved
                if whole is outcome:
                    continue
            saved = await self._save(db, outcome)
            if saved is not None:
                return outcome, saved
            if outcome.held and tried > 2:
                return Stale("the slot is gone", is_slot_gone=True), None
            await asyncio.sleep(0.001 * tried)
        raise Contended(f"run {event.run} changed under {MAX_TRIES} tries to write it")

    async def _save(self, db: Session, decision: Decision, *, if_nobody_waits: bool = False) -> Saved | None:
        saved = await save_decision(db, decision, if_nobody_waits=if_nobody_waits)
        if saved is None:
            self.conflicts += 1
            return None
        self.decisions += 1
        self._cache.set_clock(saved.at)
        self._cache.note_ended(decision)
        return saved

    def committed(self, decision: Decision, saved: Saved) -> None:
        """Begin with what follows a commit."""
        if saved.queue:
            self._cascade.note_queue()
        self._effects.begin(decision, saved)


def _batch_of(ticket: Ticket, inbox: list[Ticket]) -> list[Ticket]:
    """The ticket with those that may be decided together with it: events of different steps, in their order."""
    if not isinstance(ticket.event, BATCHED):
        return [ticket]
    batch, steps = [ticket], {ticket.event.step}
    for other in inbox:
        if other.outcome is None and isinstance(other.event, BATCHED) and other.event.step not in steps:
            batch.append(other)
            steps.add(other.event.step)
        if len(batch) == MAX_BATCH:
            break
    return batch
