"""The duty ``webhooks``: calls the receivers of ended runs, again and again until they accept.

At least once: if a controller dies after a receiver's answer and before that is stored, the next one sends the call
again, with the same id.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import Code, ProctorError
from proctor_common.pg import transaction
from proctor_controller.db.duties import Held, holds_duty
from proctor_controller.db.runs.views import RunKey, find_run
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import session
from proctor_controller.db.webhooks import Delivery, load_due, mark_failed, mark_taken
from proctor_controller.domain.webhook import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, pause, signature
from proctor_controller.duties.outbound import NotSent, Outbound

log = structlog.get_logger(__name__)

AT_ONCE = 32
AGENT = "proctor-webhook/1"


@dataclass(frozen=True, slots=True)
class _Try:
    """The outcome of a call: the answer's status, and why it was not accepted ("" if it was)."""

    status: int | None = None
    reason: str = ""
    for_good: bool = False


class WebhookSender:
    """One turn about every second. ``give_up``: how many seconds after a run's end to stop trying."""

    def __init__(self, database: AsyncEngine, seal: Seal, outbound: Outbound, *, give_up: float) -> None:
        self._database = database
        self._seal = seal
        self._outbound = outbound
        self._give_up = give_up

    async def turn(self, held: Held) -> None:
        """Make each due call once. Raises ProctorError ``database_unavailable``."""
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return
            due = await load_due(connection, AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for delivery in due:
                tasks.create_task(self._deliver(held, delivery))

    async def _deliver(self, held: Held, delivery: Delivery) -> None:
        # One receiver's fault must not prevent the other calls.
        try:
            await self._write_down(held, delivery, await self._send(delivery))
        except ProctorError as fault:
            log.warning("webhook_not_noted", run=delivery.run, error=fault.message)

    async def _send(self, delivery: Delivery) -> _Try:
        """Call once; returns the outcome. Raises ProctorError ``database_unavailable``."""
        try:
            headers, body = await self._message(delivery)
            status = await self._outbound.post(delivery.url, headers, body)
        except NotSent as fault:
            return _Try(reason=str(fault), for_good=fault.for_good)
        except ProctorError as fault:
            if fault.code is Code.DATABASE_UNAVAILABLE:
                raise
            return _Try(reason=fault.message)
        except Exception as fault:
            # Counts as a try: otherwise the row would be due again at once, for ever.
            log.exception("webhook_not_sent", run=delivery.run)
            return _Try(reason=f"an unforeseen fault, {type(fault).__name__}; the controllers' log says more")
        if 200 <= status < 300:
            return _Try(status)
        return _Try(status, f"answered {status}" + (": redirects are not followed" if 300 <= status < 400 else ""))

    async def _write_down(self, held: Held, delivery: Delivery, went: _Try) -> None:
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return
            if not went.reason and went.status is not None:
                if await mark_taken(connection, delivery, went.status):
                    log.info("webhook_taken", run=delivery.run, tries=delivery.tries + 1)
                return
            wait = pause(delivery.tries + 1)
            over = went.for_good or delivery.age_s + wait.total_seconds() > self._give_up
            again_in = None if over else wait
            await mark_failed(connection, delivery, status=went.status, reason=went.reason, again_in=again_in)
        log.warning("webhook_given_up" if over else "webhook_refused", run=delivery.run, reason=went.reason)

    async def _message(self, delivery: Delivery) -> tuple[dict[str, str], bytes]:
        """Headers and body; the body is the same in every try."""
        async with session(self._database) as db:
            run = await find_run(db, RunKey(delivery.run, None), None)
        if run is None:
            raise NotSent("its run is gone", for_good=True)
        # Leave out what may change between two tries: the end of the hold, and this call's own state.
        shown = run.model_dump(mode="json", by_alias=True, exclude={"hold_until", "webhook"})
        body = to_json({"type": "run.finished", "timestamp": shown["finished_at"], "data": shown})
        timestamp = int(datetime.now(UTC).timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": AGENT,
            ID_HEADER: delivery.id,
            TIMESTAMP_HEADER: str(timestamp),
        }
        if delivery.signed:
            opened = self._seal.open(delivery.sealed or "", delivery.run)
            headers[SIGNATURE_HEADER] = signature(str(opened["webhook_secret"]), delivery.id, timestamp, body)
        return headers, body
