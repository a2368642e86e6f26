"""Health, readiness, metrics, version."""

import asyncio

from fastapi import Request, Response

from proctor_api.routes import openapi
from proctor_api.routes.guard import ViewResponse, anyone, context_of, needs, router
from proctor_api.routes.models import Standing, VersionView
from proctor_common import metrics
from proctor_common.bus import BusError
from proctor_common.errors import ProctorError
from proctor_common.pg import check_database
from proctor_common.states import Role

routes = router("system")

CHECK_SECONDS = 2.0


@routes.get("/healthz", summary="Whether the process lives", openapi_extra=anyone())
async def healthz() -> ViewResponse[Standing]:
    """An answer at all means that the process lives and its loop turns. The bus is watched by a supervisor that
    replaces a dead connection; while NATS itself is away there is nothing that a restart would mend.
    """
    return ViewResponse(Standing(status="ok").encoded())


@routes.get("/readyz", summary="Whether requests can be served", openapi_extra=anyone())
async def readyz(request: Request) -> ViewResponse[Standing]:
    """A NATS round trip and a query, 2 s each; 503 where one of them fails."""
    context = context_of(request)

    async def of(check: str) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await (context.bus.rtt() if check == "bus" else check_database(context.engine))
        except (BusError, ProctorError, TimeoutError):
            return "failed"
        return "ok"

    names = ("bus", "database")
    checks = dict(zip(names, await asyncio.gather(*(of(name) for name in names)), strict=True))
    ready = all(answer == "ok" for answer in checks.values())
    view = Standing(status="ok" if ready else "failed", checks=checks)
    return ViewResponse(view.encoded(), 200 if ready else 503, {} if ready else {"Retry-After": "2"})


@routes.get("/metrics", summary="Figures for Prometheus", openapi_extra=needs(Role.VIEWER))
async def show_metrics(request: Request) -> Response:
    """The text format of Prometheus."""
    return Response(metrics.render(context_of(request).registry), media_type=metrics.CONTENT_TYPE)


@routes.get("/v1/version", summary="The version", openapi_extra=needs(Role.VIEWER))
async def show_version() -> ViewResponse[VersionView]:
    """What runs here."""
    return ViewResponse(VersionView(version=openapi.version(), api=["v1", "v2.1"]).encoded())
