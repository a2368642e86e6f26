"""The duty ``schedules``: starts one run at each tick of a schedule, and records why if it could not.

A tick is decided first, in a transaction that only the holder of the duty can commit: firing, skipped or missed. Then a
run is started for a firing one, with an id made of the schedule and the tick. So after any crash, and however often it
is repeated, a tick starts at most one run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import SubmitRun
from proctor_common.pg import transaction
from proctor_common.states import Role
from proctor_controller.db import schedules as rows
from proctor_controller.db.audit import write_audit
from proctor_controller.db.duties import Held, holds_duty
from proctor_controller.db.schedules import Tick
from proctor_controller.db.sealing import Seal
from proctor_controller.domain.schedule import Schedule, TickOutcome, plan_ticks, run_of_tick
from proctor_controller.duties.cron import BadCron, Cron

log = structlog.get_logger(__name__)

LIMIT = 100
MOST_RECORDED = 20
"""Missed ticks that are recorded one by one; if there are more, the newest."""

Submit = Callable[[Actor, SubmitRun], Awaitable[object]]
"""Starts a run like a request of the api; the same id again starts nothing. Raises ProctorError."""


def sealed_for(schedule: str) -> str:
    """The purpose under which a schedule's plan and parameters are sealed."""
    return f"schedule {schedule}"


class ScheduleClock:
    """One turn every ``interval`` seconds; it waits for a tick within the interval, so that runs start on time.
    ``grace``: how many seconds late a tick may still start a run.
    """

    def __init__(self, database: AsyncEngine, seal: Seal, submit: Submit, *, interval: float, grace: float) -> None:
        self._database = database
        self._seal = seal
        self._submit = submit
        self._interval = interval
        self._grace = timedelta(seconds=grace)

    async def turn(self, held: Held) -> None:
        """Look once. Raises ProctorError ``database_unavailable``."""
        async with transaction(self._database) as connection:
            wait = await rows.seconds_to_next(connection)
        if wait is not None and 0 < wait < self._interval:
            await asyncio.sleep(wait)
        if wait is not None and wait < self._interval:
            await self._decide(held)
        await self._fire(held)

    async def _decide(self, held: Held) -> None:
        async with transaction(self._database) as connection:
            if not await holds_duty(connection, held):
                return
            now = await rows.read_now(connection)
            for schedule in await rows.lock_due(connection, LIMIT):
                await self._decide_one(connection, schedule, now)

    async def _decide_one(self, connection: AsyncConnection, schedule: Schedule, now: datetime) -> None:
        try:
            due = plan_ticks(schedule.next_at, now, Cron(schedule.cron, schedule.timezone).next_after, self._grace)
        except BadCron as fault:
            # Its time zone does not exist any more, or it will never be due again: record that, and look again in a
            # day.
            tick = Tick(schedule.next_at, TickOutcome.REFUSED, reason=f"{fault.path}: {fault}")
            await self._add(connection, schedule, [tick], now + timedelta(days=1))
            return
        if due is None:
            return
        ticks = [Tick(at, TickOutcome.MISSED, reason="no controller was there") for at in due.missed[-MOST_RECORDED:]]
        if len(due.missed) > MOST_RECORDED:
            log.warning("schedule_missed", schedule=schedule.name, ticks=len(due.missed))
        if due.fire is not None:
            ticks.append(await self._overlap(connection, schedule, due.fire))
        await self._add(connection, schedule, ticks, due.next_at)

    async def _overlap(self, connection: AsyncConnection, schedule: Schedule, at: datetime) -> Tick:
        former = await rows.find_unfinished(connection, schedule.id)
        if former is not None:
            number, state = former
            return Tick(at, TickOutcome.SKIPPED, reason=f"its run {number} is still {state}")
        if await rows.is_firing(connection, schedule.id):
            return Tick(at, TickOutcome.SKIPPED, reason="its former run is still being started")
        return Tick(at, TickOutcome.FIRING, run_of_tick(schedule.id, at))

    async def _add(self, connection: AsyncConnection, schedule: Schedule, ticks: list[Tick], next_at: datetime) -> None:
        for tick in await rows.add_ticks(connection, schedule.id, ticks, next_at):
            if tick.outcome is not TickOutcome.FIRING:
                await self._tell(connection, schedule, tick)

    async def _tell(self, connection: AsyncConnection, schedule: Schedule, tick: Tick) -> None:
        """No user waits for this run, so the audit and the log say why it did not start."""
        detail = {"tick": tick.at.isoformat(), "reason": tick.reason}
        log.warning(f"schedule_{tick.outcome}", schedule=schedule.name, **detail)
        action = f"schedule.{tick.outcome}"
        await write_audit(connection, actor="controller", action=action, object=schedule.name, detail=detail)

    # -- starting -------------------------------------------------------------------------------------------------

    async def _fire(self, held: Held) -> None:
        async with transaction(self._database) as connection:
            firing = await rows.load_firing(connection, LIMIT)
        for schedule, tick in firing:
            async with transaction(self._database) as connection:
                if not await holds_duty(connection, held):
                    return
                now = await rows.read_now(connection)
                late = now - tick.at > 2 * self._grace
                known = tick.run is not None and await rows.run_is_there(connection, tick.run)
            ended = await self._start(schedule, tick, late=late, known=known)
            if ended is None:
                continue
            async with transaction(self._database) as connection:
                if await rows.end_tick(connection, schedule.id, ended) and ended.outcome is not TickOutcome.STARTED:
                    await self._tell(connection, schedule, ended)

    async def _start(self, schedule: Schedule, tick: Tick, *, late: bool, known: bool) -> Tick | None:
        """The tick's outcome; None: unknown, try again."""
        if known:
            return Tick(tick.at, TickOutcome.STARTED, tick.run)
        if late or tick.run is None:
            return Tick(tick.at, TickOutcome.MISSED, reason="its run could not be started in time")
        actor = Actor(
            name=f"schedule/{schedule.name}",
            role=Role.RUNNER,
            groups=[schedule.group] if schedule.bound and schedule.group is not None else None,
        )
        try:
            whole = {"plan": schedule.plan, "parameters": schedule.parameters}
            if schedule.sealed is not None:
                whole = self._seal.open(schedule.sealed, sealed_for(schedule.id))
            body = SubmitRun(run=tick.run, group=schedule.group, **whole)
            await self._submit(actor, body)
        except ProctorError as fault:
            if fault.status >= 500:
                log.warning("schedule_not_started", schedule=schedule.name, error=fault.message)
                return None
            where = next((each["path"] for each in fault.details.get("errors", ())), "")
            reason = f"{where}: {fault.message}" if where else fault.message
            return Tick(tick.at, TickOutcome.REFUSED, reason=reason)
        log.info("schedule_started", schedule=schedule.name, run=tick.run, tick=tick.at.isoformat())
        return Tick(tick.at, TickOutcome.STARTED, tick.run)
