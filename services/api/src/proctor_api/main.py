"""Builds the service: connections first, then the application with its routes, then the background tasks."""

import asyncio
import socket
from contextlib import AsyncExitStack

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from proctor_api import errors
from proctor_api.auth import Authenticator
from proctor_api.catalog.recorder import Recorder
from proctor_api.catalog.streams import ResultStreams
from proctor_api.context import ApiContext
from proctor_api.controller_client import ControllerClient
from proctor_api.figures import Figures
from proctor_api.http import server
from proctor_api.http.fast_path import Straight, Ways, ways_of
from proctor_api.http.middleware import HttpFrame
from proctor_api.http.proxies import Proxies
from proctor_api.idempotency import Idempotency
from proctor_api.limits import RateLimit, Sockets
from proctor_api.logs.feeds import Feeds, Pace
from proctor_api.migrations import CHAIN
from proctor_api.routes import ALL_ROUTERS, SOCKETS, openapi
from proctor_api.settings import ApiSettings
from proctor_api.store.keys import KeyStore
from proctor_api.store.tokens import TokenStore
from proctor_api.watch import Watch
from proctor_common.bus import Bus, BusError, BusOptions
from proctor_common.clock import SystemClock
from proctor_common.errors import ProctorError, not_found
from proctor_common.metrics import make_registry, observe_bus
from proctor_common.pg import close_sessions, make_engine, migrate
from proctor_common.probe import serve_probe
from proctor_common.service import Background, StartError, Stop

log = structlog.get_logger(__name__)

USES_SECONDS = 30.0
SWEEP_SECONDS = 3600.0


class App(FastAPI):
    """FastAPI's app with a fast path past it (``http/fast_path.py``)."""

    ways: Ways
    short: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, on the fast path if its route has one. HEAD is GET without the body."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # A copy: uvicorn leaves the body out by the method in its own scope.
            scope, send = {**scope, "method": "GET"}, _ending(send)
        if scope["type"] == "http" and (scope["method"], scope["path"]) in self.ways:
            await self.short(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _ending(send: Send) -> Send:
    """End the response after its headers; otherwise a long body would be produced for nothing."""
    ended = False

    async def send_head(message: Message) -> None:
        nonlocal ended
        if not ended:
            ended = message["type"] == "http.response.body"
            await send({"type": "http.response.body"} if ended else message)

    return send_head


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path that has no route: 404, also for a websocket, where the framework answers 403."""
    if scope["type"] == "websocket":
        fault = not_found("path", scope["path"])
        await WebSocket(scope, receive, send).send_denial_response(errors.problem(fault, scope["path"]))
    else:
        raise HTTPException(404)


def make_app(context: ApiContext) -> FastAPI:
    """The application over a context. Connects to nothing."""
    app = App(
        title="Proctor",
        version=openapi.version(),
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        strict_content_type=False,
    )
    app.state.context = context
    app.state.large_bodies = asyncio.Semaphore(1)
    app.state.streams = ResultStreams(context.engine)
    app.state.recorder = Recorder(context)
    app.add_middleware(HttpFrame, figures=context.figures)
    settings = context.settings
    if settings.root_path or settings.trusted_proxies:
        app.add_middleware(Proxies, root_path=settings.root_path, trusted=settings.proxies)
    errors.install(app)
    app.router.default = _nowhere
    # Not by include_router: it would build every route again and match each request twice.
    app.state.routes = [route for router in ALL_ROUTERS for route in router.routes]
    app.router.routes += [*app.state.routes, *(WebSocketRoute(path, endpoint) for path, endpoint in SOCKETS)]
    openapi.install(app)
    app.ways = ways_of(app.state.routes)
    app.short = HttpFrame(Straight(app, app.ways), context.figures)
    if settings.root_path or settings.trusted_proxies:
        app.short = Proxies(app.short, root_path=settings.root_path, trusted=settings.proxies)
    return app


async def make_context(settings: ApiSettings, stack: AsyncExitStack) -> ApiContext:
    """Connect to PostgreSQL and NATS, migrate the schema, store the first token; ``stack`` closes everything.

    Waits up to ``start_timeout`` seconds for each. Raises StartError.
    """
    clock = SystemClock()
    engine = make_engine(
        settings.database_url,
        application_name="proctor-api",
        password=settings.database_password.get_secret_value() if settings.database_password else None,
        pool_size=settings.database_pool,
    )
    stack.push_async_callback(engine.dispose)
    stack.push_async_callback(close_sessions, engine)
    await migrate(engine, CHAIN, wait=settings.start_timeout)
    tokens = TokenStore(engine)
    if settings.first_token is not None:
        try:
            if await tokens.add_first(settings.first_token.get_secret_value()):
                log.info("first_token_stored")
        except ProctorError as fault:
            raise StartError(fault.message) from fault
    options = BusOptions(
        servers=settings.nats_urls,
        name="proctor-api",
        inbox_prefix=settings.nats_inbox,
        nkey_seed=settings.nats_nkey.get_secret_value() if settings.nats_nkey else None,
        ca_file=str(settings.nats_ca_file) if settings.nats_ca_file else None,
        start_timeout=settings.start_timeout,
        allow_plaintext=settings.allow_plaintext,
    )
    try:
        bus = await stack.enter_async_context(Bus(options))
    except BusError as fault:
        raise StartError(str(fault)) from fault
    registry = make_registry()
    observe_bus(registry, bus)
    controllers = ControllerClient(bus, settings.call_timeout)
    watch = Watch(bus, controllers)
    await watch.start()
    context = ApiContext(
        settings=settings,
        clock=clock,
        bus=bus,
        engine=engine,
        tokens=tokens,
        auth=Authenticator(settings, tokens, clock),
        controllers=controllers,
        idempotency=Idempotency(KeyStore(engine)),
        feeds=Feeds(bus, controllers, watch, Pace(settings.log_tick, settings.record_check)),
        watch=watch,
        sockets=Sockets(settings.sockets_per_token),
        tries=RateLimit(settings.login_tries, 60.0, clock.monotonic),
        registry=registry,
        figures=Figures(registry),
    )
    context.figures.gauge("proctor_api_websockets", "Open websockets", lambda: context.sockets.total)
    context.figures.gauge("proctor_api_watched_runs", "Runs whose log somebody follows", lambda: context.feeds.count)
    return context


async def serve(settings: ApiSettings, stop: Stop, listening: socket.socket) -> None:
    """Run the service on a socket from :func:`bind` until ``stop`` is set. Raises StartError."""
    for fault in settings.plaintext_faults:
        log.warning("plaintext_allowed", fault=fault)
    if settings.no_auth:
        log.warning("no_auth", meaning="every caller is admin")
    async with AsyncExitStack() as stack:
        stack.callback(listening.close)
        context = await make_context(settings, stack)
        app = make_app(context)
        http = server.make_server(app, settings)
        if settings.metrics_http is not None:
            # `/healthz` and `/readyz` at the api's own address tell whether the process is well.
            stack.enter_context(serve_probe(settings.metrics_http, context.registry, lambda: ""))
        await app.state.recorder.start()
        background = await stack.enter_async_context(Background(stop))
        background.start("watch", context.watch.run())
        background.start("heal", context.watch.heal(settings.record_check))
        background.start("recorder", app.state.recorder.run())
        background.start("token uses", _note_uses(context, stop))
        background.start("sweep", _sweep(context, stop))
        log.info("listening", http=settings.http, tls=settings.tls)
        await server.run(http, listening, stop)


async def _note_uses(context: ApiContext, stop: Stop) -> None:
    """Store when tokens were last used: every USES_SECONDS, and once more at the end."""
    ending = False
    while not ending:
        ending = await stop.sleep(USES_SECONDS)
        uses = context.auth.take_uses()
        if uses:
            try:
                await context.tokens.note_use(uses)
            except ProctorError as fault:
                log.warning("token_uses_lost", error=fault.message)


async def _sweep(context: ApiContext, stop: Stop) -> None:
    """Delete expired idempotency keys every SWEEP_SECONDS."""
    while not await stop.sleep(SWEEP_SECONDS):
        try:
            await KeyStore(context.engine).sweep()
        except ProctorError as fault:
            log.warning("sweep_failed", error=fault.message)
