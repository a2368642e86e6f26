"""What the control side of agents tells the engine: heartbeats, losses, returns, room for work."""

from collections.abc import Iterable, Sequence

import structlog

from proctor_common.ids import is_id
from proctor_common.messages.events import AttemptRef, Heartbeat
from proctor_controller.db.runs.attempts import Live, Ref, find_standings, live_attempts
from proctor_controller.db.session import session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import QueryAttempt
from proctor_controller.engine.engine import Engine

log = structlog.get_logger(__name__)

MAX_REFS = 5000
SETTLE_SECONDS = 15.0
"""How long an attempt may be missing from heartbeats before the agent is asked for it: a beat may be older than the
order."""
MAX_ATTEMPT = 2**31 - 1


class EngineWork:
    """The engine as the agents' side sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def reconcile(self, agent: str, heartbeat: Heartbeat) -> tuple[list[AttemptRef], list[AttemptRef]]:
        """Compare an agent's attempts with the rows: the ends that are committed, and what it should not have."""
        alive, ended = _refs(heartbeat.attempts), _refs(heartbeat.ended)
        async with session(self._engine.database) as db:
            listed = [*alive, *ended]
            standings = await find_standings(db, agent, listed) if listed else []
            held = await live_attempts(db, agent)
        confirmed = [_ref(each.ref) for each in standings[len(alive) :] if each.reported or not each.known]
        unwanted = [_ref(each.ref) for each in standings[: len(alive)] if each.ended or not each.known]
        self._look_for_missing(agent, held, set(alive), set(ended))
        return confirmed, unwanted

    def _look_for_missing(self, agent: str, held: Sequence[Live], alive: set[Ref], ended: set[Ref]) -> None:
        """Attempts that the agent should have and does not list are asked for; lost ones that it lists live."""
        for each in held:
            ref = Ref(each.step, each.attempt, each.token)
            if ref in alive and each.state == "lost":
                event = events.StillRunning(each.run, each.step, each.attempt, each.token)
                self._feed_later("agent has it", event)
            elif ref not in alive and ref not in ended and each.state == "running" and each.age > SETTLE_SECONDS:
                log.warning("attempt_missing", agent=agent, step=each.step, attempt=each.attempt)
                self._engine.orders.query(each.run, QueryAttempt(each.step, each.attempt, each.token, agent))

    def _feed_later(self, name: str, event: events.Event) -> None:
        self._engine.tasks.start(name, self._feed(event))

    async def _feed(self, event: events.Event) -> None:
        await self._engine.feed(event)

    async def agents_lost(self, agents: Sequence[str]) -> None:
        """Their steps are lost until they come back or the grace is over. What fails here the watchdog does."""
        for agent, each in await self._live(agents):
            self._feed_later("agent lost", events.AgentLost(each.run, each.step, agent))

    async def agents_returned(self, agents: Sequence[str]) -> None:
        """Ask them for what became of their attempts."""
        for agent, each in await self._live(agents):
            if each.state == "lost":
                self._feed_later("agent returned", events.AgentReturned(each.run, each.step, agent))

    async def _live(self, agents: Sequence[str]) -> list[tuple[str, Live]]:
        async with session(self._engine.database) as db:
            return [(agent, each) for agent in agents for each in await live_attempts(db, agent)]

    async def capacity_changed(self, agents: Sequence[str]) -> None:
        """They may take work that waits: whole runs that have waited for such a host, and steps."""
        self._engine.tasks.start("serve agents", self._serve(agents))

    async def _serve(self, agents: Sequence[str]) -> None:
        await self._engine.leasing.look(agents=agents)
        for agent in agents:
            await self._engine.queue.serve(agent)


def _refs(given: Iterable[AttemptRef]) -> list[Ref]:
    """The references that can be looked up; no attempt has names of another shape."""
    refs = [Ref(each.step, each.attempt, each.token) for each in given]
    return [ref for ref in refs[:MAX_REFS] if is_id(ref.step) and 1 <= ref.attempt <= MAX_ATTEMPT]


def _ref(ref: Ref) -> AttemptRef:
    return AttemptRef(step=ref.step, attempt=ref.attempt, token=ref.token)
