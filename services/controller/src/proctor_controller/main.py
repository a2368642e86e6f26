"""The controller's process: migrate, connect, serve, watch; end in the reverse order."""

import asyncio

import structlog

from proctor_common import subjects
from proctor_common.bus import BusError
from proctor_common.bus.streams import event_consumer, event_stream, log_stream
from proctor_common.errors import ProctorError
from proctor_common.service import StartError, Stop
from proctor_controller.context import ProcessContext, open_context
from proctor_controller.engine.reports import Reports
from proctor_controller.engine.watchdog import Watchdog
from proctor_controller.handlers.callout import Callout
from proctor_controller.handlers.calls import Calls
from proctor_controller.handlers.heartbeat import Heartbeats
from proctor_controller.handlers.registration import Registrations
from proctor_controller.handlers.table import HANDLERS
from proctor_controller.settings import ControllerSettings

log = structlog.get_logger(__name__)

CALLS_AT_ONCE = 64
BEATS_AT_ONCE = 1024
REGISTRATIONS_AT_ONCE = 8
KNOCKS_AT_ONCE = 64


async def run(settings: ControllerSettings, stop: Stop) -> None:
    """Run a controller until it is asked to stop. Raises StartError."""
    if settings.plain_urls():
        log.warning("plaintext_allowed", urls=settings.plain_urls(), risk="whoever listens on the way reads the bus")
    async with open_context(settings, stop) as context:
        await ensure_streams(context)
        await serve(context)
        reports = Reports(context.engine)
        context.background.start(
            "reports", context.bus.consume(subjects.EVENT_STREAM, subjects.EVENT_DURABLE, reports.take)
        )
        context.background.start("watchdog", watch(context))
        log.info("controller_ready", replica=context.replica)
        await stop.wait()


async def watch(context: ProcessContext) -> None:
    """Let the watchdog look every ``watchdog_interval`` seconds, until cancelled."""
    watchdog = Watchdog(context.engine)
    while True:
        try:
            await watchdog.tick()
        except ProctorError as fault:
            log.warning("watchdog_not_done", error=fault.message)
        await asyncio.sleep(context.settings.watchdog_interval)


async def ensure_streams(context: ProcessContext) -> None:
    """Make the streams, or change them to what the settings say. Raises StartError."""
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


async def serve(context: ProcessContext) -> None:
    """Answer calls, heartbeats, registrations and, with an account's key, the servers' questions about clients.

    Each request is answered by one of the controllers. Raises StartError.
    """
    bus, queue = context.bus, subjects.CONTROLLERS
    beats, registrations = Heartbeats(context), Registrations(context)
    try:
        if context.issuer is not None:
            callout = Callout(context, context.issuer)
            await bus.serve(subjects.AUTH_CALLOUT, callout.answer, queue=queue, concurrency=KNOCKS_AT_ONCE)
        await bus.serve(subjects.ALL_HEARTBEATS, beats.answer, queue=queue, concurrency=BEATS_AT_ONCE)
        await bus.serve(
            subjects.ALL_REGISTRATIONS, registrations.answer, queue=queue, concurrency=REGISTRATIONS_AT_ONCE
        )
        await bus.serve(subjects.ALL_CALLS, Calls(context, HANDLERS).answer, queue=queue, concurrency=CALLS_AT_ONCE)
    except BusError as fault:
        raise StartError(f"cannot serve on the bus: {fault}") from fault
