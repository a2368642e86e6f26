"""Health, readiness, metrics, version."""

import asyncio

from fastapi import Request, Response

from proctor_api.errors import no_upgrade
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


@routes.get("/healthz", summary="Liveness", openapi_extra=anyone())
async def healthz() -> ViewResponse[Standing]:
    """200 as long as the process answers. NATS and PostgreSQL are not checked: a restart would not bring them back."""
    return ViewResponse(Standing(status="ok").encoded())


@routes.get("/readyz", summary="Readiness", openapi_extra=anyone())
async def readyz(request: Request) -> ViewResponse[Standing]:
    """A NATS round trip and a database query, with a timeout of 2 s each. 503 if one of them fails."""
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


@routes.get("/metrics", summary="Metrics", openapi_extra=needs(Role.VIEWER))
async def show_metrics(request: Request) -> Response:
    """Metrics of this process in the text format of Prometheus."""
    return Response(metrics.render(context_of(request).registry), media_type=metrics.CONTENT_TYPE)


@routes.get("/v1/version", summary="Show the version", openapi_extra=needs(Role.VIEWER))
async def show_version() -> ViewResponse[VersionView]:
    """The version of Proctor and the versions of its API."""
    return ViewResponse(VersionView(version=openapi.version(), api=["v1", "v2.1"]).encoded())


@routes.get("/v1/runs/{run}/logs/tail", include_in_schema=False, openapi_extra=anyone())
@routes.get("/v1/events", include_in_schema=False, openapi_extra=anyone())
async def refuse_plain(request: Request) -> Response:
    """What is a websocket alone."""
    raise no_upgrade(request.scope["path"])
