"""The steps that wait for slots: a slot that comes free is for whoever has waited longest."""

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from proctor_controller.db.hosts import candidates
from proctor_controller.db.session import session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision, Effect, ServeQueue

if TYPE_CHECKING:
    from proctor_controller.engine.engine import Engine

MAX_TURNS = 200
AT_ONCE = 20


class Queue:
    """Looks for the steps that are next. Use from one event loop.

    A look sees all that has come before it began: so of one agent, or of all of them, one look goes on and one waits at
    most, however many ends and newcomers ask for it.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._asked: set[str | None] = set()
        self._looking: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    def serve_later(self, run: str, effect: Effect) -> None:
        """Give an agent's free slots away in the background."""
        if isinstance(effect, ServeQueue):
            self._look_later(effect.agent)

    def look_later(self) -> None:
        """A step has joined the queue: a slot that came free a moment before served the queue without it."""
        self._look_later(None)

    def _look_later(self, agent: str | None) -> None:
        if agent not in self._asked:
            self._asked.add(agent)
            self._engine.tasks.start("serve queue", self._look(agent))

    async def _look(self, agent: str | None) -> None:
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
        if not served and agent is not None:
            await self._engine.leasing.give_idle(agent)

    async def serve(self, agent: str | None) -> int:
        """Give free slots to the steps that have waited longest; how many were dispatched. ``agent`` None: of all."""
        served = 0
        given: set[tuple[str, str]] = set()  # whoever does not hear is back at once, and asked again at the next look
        for _ in range(MAX_TURNS):
            async with session(self._engine.database) as db:
                turns = [t for t in await candidates.next_turns(db, agent, AT_ONCE) if (t.agent, t.step) not in given]
                for turn in turns:
                    if not turn.slots_made:
                        await candidates.make_slots(db, turn.agent)
            if not turns:
                break
            done = 0
            for turn in turns:
                offer = self._engine.offer(turn.agent, turn.host)
                outcome = await self._engine.feed(events.LeasesHeld(turn.run, turn.step, offer))
                if isinstance(outcome, Decision):
                    done += 1
                    given.add((turn.agent, turn.step))
            served += done
            if not done:
                break
        return served
