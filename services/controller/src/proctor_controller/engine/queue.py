"""Slots for steps: a ready step gets a free one or waits; one that comes free goes to who has waited longest."""

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from proctor_common.ids import new_token
from proctor_controller.db.hosts import candidates
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.placement import choose, explain
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision
from proctor_controller.engine.services import EngineServices, Feed

MAX_TRIES = 50
PLACED_AT_ONCE = 8
"""Hundreds of steps can become ready at once; the database's connections are for others too."""
MAX_TURNS = 200
AT_ONCE = 20


def offer_slot(agent: str, host: str) -> events.Offer:
    """An agent for a step, under a new lease token."""
    return events.Offer(agent=agent, host=host, token=new_token("lease"))


class Queue:
    """Looks for the steps that are next. Use from one event loop.

    For each agent, and for all agents together, at most one look goes on and one waits: the one that waits will see
    everything that asks for a look before it begins.
    """

    def __init__(self, services: EngineServices, feed: Feed) -> None:
        self._database = services.database
        self._tasks = services.tasks
        self._feed = feed
        self._placing = asyncio.Semaphore(PLACED_AT_ONCE)
        self._asked: set[str | None] = set()
        self._looking: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    async def place(self, step: str) -> None:
        """Dispatch a step that has become ready, or let it wait."""
        async with self._placing:
            await self._place(step)

    async def _place(self, step: str) -> None:
        for _ in range(MAX_TRIES):
            async with session(self._database) as db:
                waiter = await candidates.load_waiter(db, step)
                if waiter is None:
                    return
                found = await candidates.find_candidates_of(db, waiter)
                chosen = choose(f.candidate for f in found)
                if chosen is not None:
                    await self._ensure_slots(db, found, chosen.agent)
            if chosen is None:
                why = explain(waiter.place, (f.candidate for f in found), waiter.plugin, waiter.method)
                await self._feed(events.NoSlot(waiter.run, step, why))
                self.serve_later()
                return
            outcome = await self._feed(events.LeasesHeld(waiter.run, step, offer_slot(chosen.agent, chosen.host)))
            if isinstance(outcome, Decision) or not outcome.is_slot_gone:
                return

    async def _ensure_slots(self, db: Session, found: list[candidates.FoundCandidate], agent: str) -> None:
        for each in found:
            if each.candidate.agent == agent and each.slots_made < each.candidate.slots:
                await candidates.make_slots(db, agent)

    def serve_later(self, agent: str | None = None, *, if_none: Callable[[str], Awaitable[None]] | None = None) -> None:
        """Give an agent's free slots away in the background; ``if_none`` gets the agent if no step wanted one.

        ``agent`` None, of all of them: a step has joined the queue, and a slot that came free a moment before was
        offered without it.
        """
        if agent not in self._asked:
            self._asked.add(agent)
            self._tasks.start("serve queue", self._look(agent, if_none))

    async def _look(self, agent: str | None, if_none: Callable[[str], Awaitable[None]] | None) -> None:
        lock = self._looking.get(agent)
        if lock is None:
            lock = self._looking[agent] = asyncio.Lock()
        try:
            await lock.acquire()
        finally:
            self._asked.discard(agent)
        try:
            served = await self.serve(agent)
        finally:
            lock.release()
        if not served and agent is not None and if_none is not None:
            await if_none(agent)

    async def serve(self, agent: str | None) -> int:
        """Give free slots to the steps that have waited longest; how many were dispatched. ``agent`` None: of all."""
        served = 0
        given: set[tuple[str, str]] = set()  # whoever does not hear is back at once, and asked again at the next look
        for _ in range(MAX_TURNS):
            async with session(self._database) as db:
                turns = [t for t in await candidates.next_turns(db, agent, AT_ONCE) if (t.agent, t.step) not in given]
                for turn in turns:
                    if not turn.slots_made:
                        await candidates.make_slots(db, turn.agent)
            if not turns:
                break
            done = 0
            for turn in turns:
                offer = offer_slot(turn.agent, turn.host)
                outcome = await self._feed(events.LeasesHeld(turn.run, turn.step, offer))
                if isinstance(outcome, Decision):
                    done += 1
                    given.add((turn.agent, turn.step))
            served += done
            if not done:
                break
        return served
