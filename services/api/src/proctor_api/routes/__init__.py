"""HTTP routes, one file per noun. The app serves ``ALL_ROUTERS`` and ``SOCKETS``."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.websockets import WebSocket

from proctor_api import tail
from proctor_api.routes import (
    agents,
    artefacts,
    audit,
    docs,
    groups,
    junit,
    legacy,
    logs,
    records,
    runs,
    schedules,
    session,
    system,
    testapi,
    testcases,
    testplans,
    tokens,
)
from proctor_api.routes.dashboard import page
from proctor_api.routes.pool import pools, vnfps, volumes
from proctor_api.routes.testapi import transfer

ALL_ROUTERS: tuple[APIRouter, ...] = (
    # The most used routes come first, because the router tries them in order.
    testcases.routes,
    testapi.results.routes,
    runs.routes,
    logs.routes,
    junit.routes,
    artefacts.routes,
    records.routes,
    transfer.routes,
    testplans.routes,
    schedules.routes,
    pools.routes,
    volumes.routes,
    vnfps.routes,
    agents.routes,
    groups.routes,
    tokens.routes,
    session.routes,
    audit.routes,
    system.routes,
    *legacy.ROUTERS,
    docs.routes,
    page.routes,
    *testapi.ROUTERS,
)
SOCKETS: tuple[tuple[str, Callable[[WebSocket], Awaitable[None]]], ...] = (
    ("/v1/runs/{run}/logs/tail", tail.tail_log),
    ("/v1/runs/{run}/events", tail.tail_run_events),
    ("/v1/events", tail.tail_all_events),
)
