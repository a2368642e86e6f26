"""The controller's process: migrate, connect, serve, watch; stop in the reverse order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog

from proctor_common import subjects
from proctor_common.bus import BusError, Message, Subscription
from proctor_common.bus.streams import event_consumer, event_stream, log_stream
from proctor_common.errors import ProctorError
from proctor_common.probe import serve_probe
from proctor_common.service import ConfigurationError, StartError, Stop
from proctor_controller.context import ProcessContext, open_context
from proctor_controller.domain.volumes.settings import BadPoolSettings
from proctor_controller.duties.duty import Duty, Work
from proctor_controller.duties.orphan_logs import OrphanLogSweep
from proctor_controller.duties.outbound import Allowed, Outbound
from proctor_controller.duties.schedules import ScheduleClock
from proctor_controller.duties.silence import SilenceSweep
from proctor_controller.duties.webhooks import WebhookSender
from proctor_controller.engine.figures import observe_engine
from proctor_controller.engine.reports import Reports
from proctor_controller.engine.watchdog import Watchdog
from proctor_controller.handlers.agents.callout import Callout
from proctor_controller.handlers.agents.forgery import Forgeries
from proctor_controller.handlers.agents.heartbeat import Heartbeats
from proctor_controller.handlers.agents.registration import Registrations
from proctor_controller.handlers.calls import Calls
from proctor_controller.handlers.runs.plans import submit_run
from proctor_controller.handlers.table import HANDLERS
from proctor_controller.pool.figures import observe_pool
from proctor_controller.settings import ControllerSettings

log = structlog.get_logger(__name__)

CALLS_AT_ONCE = 64
BEATS_AT_ONCE = 1024
REGISTRATIONS_AT_ONCE = 8
KNOCKS_AT_ONCE = 64
STUCK_AFTER = 60.0
DRAIN_SECONDS = 1.0
POOL_INTERVAL = 1.0
"""Seconds until the pool is resumed after its keeper has failed."""

Answer = Callable[[Message], Awaitable[bytes | None]]


async def run(settings: ControllerSettings, stop: Stop) -> None:
    """Run a controller until it is asked to stop. Raises StartError."""
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, stop))
        if settings.metrics_http is not None:
            stack.enter_context(serve_probe(settings.metrics_http, context.registry, lambda: health(context)))
        await ensure_streams(context)
        await start_pool(context, stack)
        served = await serve(context)
        start_duties(context)
        log.info("controller_ready", replica=context.replica)
        await stop.wait()
        # Take nothing new, so that other controllers get it, and finish what was taken.
        await asyncio.gather(*(each.close() for each in served))
        await context.engine.tasks.drain(DRAIN_SECONDS)


def health(context: ProcessContext) -> str:
    """Why the process is not well; empty if it is."""
    age = context.bus.watchdog_age
    return f"the bus has not been looked after for {age:.0f} s" if age > STUCK_AFTER else ""


async def ensure_streams(context: ProcessContext) -> None:
    """Make the streams, or change them to the settings. Raises StartError."""
    settings = context.settings
    specs = (
        log_stream(max_bytes=settings.log_max_bytes, max_age=settings.log_max_age, replicas=settings.stream_replicas),
        event_stream(max_bytes=settings.event_max_bytes, replicas=settings.stream_replicas),
    )
    try:
        for spec in specs:
            await context.bus.ensure_stream(spec)
        await context.bus.ensure_consumer(event_consumer())
    except BusError as fault:
        raise StartError(f"cannot make the streams: {fault}") from fault


async def serve(context: ProcessContext) -> list[Subscription]:
    """Take events; answer calls, heartbeats, registrations and, with an account's key, auth callouts. One of the
    controllers answers each. Raises StartError.
    """
    bus = context.bus
    beats, registrations, calls = Heartbeats(context), Registrations(context), Calls(context, HANDLERS)
    reports = Reports(context.database, context.engine.feed, Forgeries(context).note)
    observe_engine(context.registry, context.engine, reports)
    context.background.start("events", bus.consume(subjects.EVENT_STREAM, subjects.EVENT_DURABLE, reports.take))
    answers: list[tuple[str, Answer, int]] = [
        (subjects.ALL_HEARTBEATS, beats.answer, BEATS_AT_ONCE),
        (subjects.ALL_REGISTRATIONS, registrations.answer, REGISTRATIONS_AT_ONCE),
        (subjects.ALL_CALLS, calls.answer, CALLS_AT_ONCE),
    ]
    if context.issuer is not None:
        answers.insert(2, (subjects.AUTH_CALLOUT, Callout(context, context.issuer).answer, KNOCKS_AT_ONCE))
    try:
        return [
            await bus.serve(subject, answer, queue=subjects.CONTROLLERS, concurrency=limit)
            for subject, answer, limit in answers
        ]
    except BusError as fault:
        raise StartError(f"cannot serve on the bus: {fault}") from fault


def make_clock(context: ProcessContext) -> ScheduleClock:
    """The duty that starts the runs of schedules, by the same handler as the api's requests."""
    settings = context.settings
    return ScheduleClock(
        context.database,
        context.engine.services.seal,
        partial(submit_run, context),
        interval=settings.schedule_interval,
        grace=settings.schedule_grace,
    )


def make_sender(context: ProcessContext) -> WebhookSender:
    """The duty that calls webhooks. Raises StartError."""
    settings = context.settings
    try:
        allowed = Allowed(settings.webhook_hosts, public=settings.webhook_public)
    except ValueError as fault:
        raise ConfigurationError(f"webhook_hosts: {fault}") from None
    outbound = Outbound(allowed, timeout=settings.webhook_timeout)
    return WebhookSender(context.database, context.engine.services.seal, outbound, give_up=settings.webhook_give_up)


async def start_pool(context: ProcessContext, stack: AsyncExitStack) -> None:
    """Start the pool's wake-ups and statistics, and reload its file on SIGHUP. Raises StartError."""
    pool, loop = context.pool, asyncio.get_running_loop()
    try:
        await pool.start()
    except BadPoolSettings as fault:
        raise ConfigurationError(f"pool_file: {context.settings.pool_file}: {fault}") from fault
    except (BusError, ProctorError) as fault:
        raise StartError(f"cannot start the volume pool: {fault}") from fault
    observe_pool(context.registry, pool)
    context.background.start("pool figures", pool.watch())

    def reread() -> None:
        context.background.start("pool settings", pool.reload_on_signal())

    loop.add_signal_handler(signal.SIGHUP, reread)
    stack.callback(loop.remove_signal_handler, signal.SIGHUP)


def start_duties(context: ProcessContext) -> None:
    """Start the periodic jobs: one of the controllers does each."""
    settings = context.settings
    silence = SilenceSweep(
        context.database,
        context.bus,
        context.system,
        context.engine.agent_status,
        suspect_after=settings.suspect_after,
        lost_after=settings.lost_after,
        interval=settings.sweep_interval,
    )
    orphan_logs = OrphanLogSweep(context.database, context.bus, context.clock, age=settings.stranger_age)
    engine = context.engine
    watchdog = Watchdog(engine.services, engine.feed, engine.queue, engine.leasing)

    async def watch(_: object) -> None:
        # Its writes are guarded by each run's version: a late turn changes nothing.
        await watchdog.tick()

    jobs: tuple[tuple[str, Work, float], ...] = (
        ("pool", partial(context.pool.keeper.turn, notice=engine.leasing.volumes_changed), POOL_INTERVAL),
        ("agents", silence.turn, settings.sweep_interval),
        ("watchdog", watch, settings.watchdog_interval),
        ("log-sweep", orphan_logs.turn, settings.log_sweep_interval),
        ("schedules", make_clock(context).turn, settings.schedule_interval),
        ("webhooks", make_sender(context).turn, settings.webhook_interval),
    )
    for name, work, interval in jobs:
        duty = Duty(
            name,
            work,
            database=context.database,
            owner=context.replica,
            clock=context.clock,
            interval=interval,
            lease=settings.duty_lease,
        )
        context.background.start(f"duty {name}", duty.run())
