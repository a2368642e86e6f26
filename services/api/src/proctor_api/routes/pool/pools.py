"""The volume pool: what there is of each type, its targets, its two jobs."""

from fastapi import Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import PoolPage, TargetRequest, TypeRef
from proctor_common.messages import pool_calls
from proctor_common.messages.pool_views import JobView, PoolView
from proctor_common.states import Role

routes = router()


@routes.get(
    "/v1/pools", response_model=PoolPage, tags=["pools"], summary="Pools of volumes", openapi_extra=needs(Role.VIEWER)
)
async def list_pools(request: Request) -> Response:
    """Each type: its target, idle spares, those on their way, how claims fared, the last runs of both jobs."""
    return await _ask(request, "pool.list")


@routes.put(
    "/v1/pools/{type}",
    response_model=PoolView,
    tags=["pools"],
    summary="Set a target",
    openapi_extra=needs(Role.ADMIN),
)
async def put_pool(request: Request, type: TypeRef, wish: TargetRequest) -> Response:
    """How many idle spares of the type there shall be. It stands until the settings file's own value changes."""
    body = pool_calls.PoolPut(type=type, target=wish.target)
    return json_view(await context_of(request).controllers.ask("pool.put", caller_of(request).actor, body))


@routes.post(
    "/v1/pools/replenish",
    status_code=202,
    response_model=JobView,
    tags=["pools"],
    summary="Fill the pools now",
    openapi_extra=needs(Role.ADMIN),
)
async def replenish(request: Request) -> Response:
    """`skipped`, with the reason, where a run is still at work."""
    return await _ask(request, "pool.replenish", 202)


@routes.post(
    "/v1/pools/sync",
    status_code=202,
    response_model=JobView,
    tags=["pools"],
    summary="Compare with the backend now",
    openapi_extra=needs(Role.ADMIN),
)
async def sync(request: Request) -> Response:
    """`skipped`, with the reason, where a run is still at work."""
    return await _ask(request, "pool.sync", 202)


@routes.post(
    "/v1/pools/reload",
    response_model=PoolPage,
    tags=["pools"],
    summary="Read the settings file again",
    openapi_extra=needs(Role.ADMIN),
)
async def reload(request: Request) -> Response:
    """Without a restart. A file with a fault is refused with all of its faults, and the former settings stay."""
    return await _ask(request, "pool.reload")


async def _ask(request: Request, op: str, status: int = 200) -> Response:
    view = await context_of(request).controllers.ask(op, caller_of(request).actor, pool_calls.PoolList())
    return json_view(view, status)
