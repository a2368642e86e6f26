"""Takes what agents report on stream EVENT. The subject says which agent it is; its payload counts only for attempts
that this agent was given.
"""

from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import ACK, RETRY, TERMINATE, StreamMessage, Verdict
from proctor_common.errors import ProctorError
from proctor_common.ids import is_id
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import StepFinished
from proctor_common.states import StepResult
from proctor_controller.db.runs.attempts import find_given, keep_evidence
from proctor_controller.db.session import session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Stale
from proctor_controller.engine.orders import to_end
from proctor_controller.engine.services import Contended, Feed

log = structlog.get_logger(__name__)

MAX_ATTEMPT = 2**31 - 1
MAX_REPORT = 1024 * 1024
MAX_RETRY = 10.0
REPORTED = {
    StepResult.PASSED,
    StepResult.FAILED,
    StepResult.ERROR,
    StepResult.TIMED_OUT,
    StepResult.CANCELLED,
    StepResult.LOST,
}

OnForged = Callable[[str], Awaitable[None]]
"""Told of each report about an attempt that the agent was never given."""


class Reports:
    """The handler of the durable consumer: a message is acknowledged only after its commit.

    ``unreadable`` and ``forged`` count what was terminated.
    """

    def __init__(self, database: AsyncEngine, feed: Feed, on_forged: OnForged | None = None) -> None:
        self._database = database
        self._feed = feed
        self._on_forged = on_forged
        self.unreadable = 0
        self.forged = 0

    async def take(self, message: StreamMessage) -> Verdict:
        """Commit one report; while the database is away it is put back, to come again."""
        origin = subjects.parse_event(message.subject)
        try:
            finished = _read(message, origin)
        except BadMessage as fault:
            self.unreadable += 1
            log.warning("report_unreadable", subject=message.subject, seq=message.seq, reason=str(fault))
            return TERMINATE
        assert origin is not None
        try:
            outcome = await self._feed(_event(finished, origin.agent, finished.run))
            if isinstance(outcome, Stale):
                return await self._stale(finished, origin.agent, outcome)
        except (ProctorError, Contended) as fault:
            log.warning("report_not_taken", agent=origin.agent, step=finished.step, error=str(fault))
            return RETRY(min(message.deliveries, MAX_RETRY))
        return ACK

    async def _stale(self, finished: StepFinished, agent: str, why: Stale) -> Verdict:
        async with session(self._database) as db:
            given = await find_given(db, agent, finished.step, finished.attempt, finished.token)
            if given is not None and given.ended and not given.reported:
                await keep_evidence(db, agent, finished.step, finished.attempt, finished.model_dump_json())
        if given is None:
            log.warning("report_forged", agent=agent, step=finished.step, attempt=finished.attempt)
            await self._forged(agent)
            return TERMINATE
        if given.current and not given.ended and given.run != finished.run:
            # The agent holds the attempt and named another run: the run is ours to know.
            await self._feed(_event(finished, agent, given.run))
        log.info("report_stale", agent=agent, step=finished.step, attempt=finished.attempt, reason=why.why)
        return ACK

    async def _forged(self, agent: str) -> None:
        self.forged += 1
        if self._on_forged is not None:
            await self._on_forged(agent)


def _read(message: StreamMessage, origin: subjects.AttemptOrigin | None) -> StepFinished:
    if origin is None:
        raise BadMessage("a subject of another shape")
    if len(message.data) > MAX_REPORT:
        raise BadMessage(f"{len(message.data)} bytes are over the limit of {MAX_REPORT}")
    finished = decode(StepFinished, message.data)
    if (finished.step, finished.attempt) != (origin.step, origin.attempt):
        raise BadMessage("speaks of another attempt than its subject")
    if not (is_id(origin.agent) and is_id(finished.step) and is_id(finished.run)):
        raise BadMessage("ids of another shape")
    if not 1 <= finished.attempt <= MAX_ATTEMPT or finished.result not in REPORTED:
        raise BadMessage("an attempt or result that no agent can report")
    if min(finished.chunks, finished.lines, finished.bytes) < 0 or finished.chunks > MAX_ATTEMPT:
        raise BadMessage("counts out of range")
    if max(finished.lines, finished.bytes) >= 2**63 or not -(2**31) <= (finished.exit_code or 0) < 2**31:
        raise BadMessage("counts out of range")
    return finished


def _event(finished: StepFinished, agent: str, run: str) -> events.StepEnded:
    return events.StepEnded(run, finished.step, finished.attempt, finished.token, agent, to_end(finished))
