"""What the control side of agents tells the engine: heartbeats, losses, returns, room for work."""

from collections.abc import Iterable, Sequence

import structlog

from proctor_common.ids import is_id
from proctor_common.messages.events import AttemptRef, Heartbeat
from proctor_controller.db.runs.attempts import Live, Ref, find_over, find_stored_attempts, live_attempts
from proctor_controller.db.session import session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import QueryAttempt
from proctor_controller.engine.leasing import Leasing
from proctor_controller.engine.orders import Orders
from proctor_controller.engine.queue import Queue
from proctor_controller.engine.services import EngineServices, Feed

log = structlog.get_logger(__name__)

MAX_REFS = 5000
SETTLE_SECONDS = 15.0
"""How long an attempt may be missing from heartbeats before the agent is asked for it: a beat may be older than the
order."""
MAX_ATTEMPT = 2**31 - 1


class AgentStatus:
    """What the agents' control side has to tell is done here."""

    def __init__(self, services: EngineServices, feed: Feed, orders: Orders, queue: Queue, leasing: Leasing) -> None:
        self._database = services.database
        self._tasks = services.tasks
        self._feed = feed
        self._orders = orders
        self._queue = queue
        self._leasing = leasing

    async def reconcile(self, agent: str, heartbeat: Heartbeat) -> tuple[list[AttemptRef], list[AttemptRef]]:
        """Compare an agent's attempts with the rows: the ends that are committed, and what it should not have."""
        alive, ended = _refs(heartbeat.attempts), _refs(heartbeat.ended)
        async with session(self._database) as db:
            listed = [*alive, *ended]
            standings = await find_stored_attempts(db, agent, listed) if listed else []
            held = await live_attempts(db, agent)
        confirmed = [_ref(each.ref) for each in standings[len(alive) :] if each.reported or not each.known]
        unwanted = [_ref(each.ref) for each in standings[: len(alive)] if each.ended or not each.known]
        self._look_for_missing(agent, held, set(alive), set(ended))
        return confirmed, unwanted

    async def over(self, runs: Sequence[str]) -> list[str]:
        """Those of the runs that have ended with all that they are nested in, or are unknown."""
        asked = [run for run in runs[:MAX_REFS] if is_id(run)]
        async with session(self._database) as db:
            return await find_over(db, asked)

    def _look_for_missing(self, agent: str, held: Sequence[Live], alive: set[Ref], ended: set[Ref]) -> None:
        """Attempts that the agent should have and does not list are asked for; lost ones that it lists live."""
        for each in held:
            ref = Ref(each.step, each.attempt, each.token)
            if ref in alive and each.state == "lost":
                event = events.StillRunning(each.run, each.step, each.attempt, each.token)
                self._tasks.start("agent has it", self._feed(event))
            elif ref not in alive and ref not in ended and each.state == "running" and each.age > SETTLE_SECONDS:
                log.warning("attempt_missing", agent=agent, step=each.step, attempt=each.attempt)
                query = QueryAttempt(each.step, each.attempt, each.token, agent)
                self._tasks.start("query order", self._orders.query(each.run, query))

    async def agents_lost(self, agents: Sequence[str]) -> None:
        """Their steps are lost until they come back or the grace is over. What fails here the watchdog does."""
        for agent, each in await self._live(agents):
            self._tasks.start("agent lost", self._feed(events.AgentLost(each.run, each.step, agent)))

    async def agents_returned(self, agents: Sequence[str]) -> None:
        """Ask them for what became of their attempts."""
        for agent, each in await self._live(agents):
            if each.state == "lost":
                self._tasks.start("agent returned", self._feed(events.AgentReturned(each.run, each.step, agent)))

    async def _live(self, agents: Sequence[str]) -> list[tuple[str, Live]]:
        async with session(self._database) as db:
            return [(agent, each) for agent in agents for each in await live_attempts(db, agent)]

    async def capacity_changed(self, agents: Sequence[str]) -> None:
        """They may take work that waits: whole runs that have waited for such a host, and steps."""
        self._tasks.start("serve agents", self._serve(agents))

    async def _serve(self, agents: Sequence[str]) -> None:
        await self._leasing.look(agents=agents)
        for agent in agents:
            await self._queue.serve(agent)


def _refs(given: Iterable[AttemptRef]) -> list[Ref]:
    """The references that can be looked up; no attempt has names of another shape."""
    refs = [Ref(each.step, each.attempt, each.token) for each in given]
    return [ref for ref in refs[:MAX_REFS] if is_id(ref.step) and 1 <= ref.attempt <= MAX_ATTEMPT]


def _ref(ref: Ref) -> AttemptRef:
    return AttemptRef(step=ref.step, attempt=ref.attempt, token=ref.token)
