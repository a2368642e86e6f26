"""The volume pool: what there is of each type, its targets, its two jobs."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import TargetRequest, TypeRef
from proctor_common.messages.calls import pools as calls
from proctor_common.messages.pages import PoolPage
from proctor_common.messages.pool_views import JobView, PoolView
from proctor_common.states import Role

routes = router("pools")


@routes.get("/v1/pools", summary="Pools of volumes", openapi_extra=needs(Role.VIEWER))
async def list_pools(request: Request) -> ViewResponse[PoolPage]:
    """Each type: its target, idle spares, those on their way, how claims fared, the last runs of both jobs."""
    return await pass_on(request, calls.LIST_POOLS, calls.PoolList())


@routes.put("/v1/pools/{type}", summary="Set a target", openapi_extra=needs(Role.ADMIN))
async def put_pool(request: Request, type: TypeRef, wish: TargetRequest) -> ViewResponse[PoolView]:
    """How many idle spares of the type there shall be. It stands until the settings file's own value changes."""
    return await pass_on(request, calls.PUT_POOL, calls.PoolPut(type=type, target=wish.target))


@routes.post("/v1/pools/replenish", status_code=202, summary="Fill the pools now", openapi_extra=needs(Role.ADMIN))
async def replenish(request: Request) -> ViewResponse[JobView]:
    """`skipped`, with the reason, where a run is still at work."""
    return await pass_on(request, calls.REPLENISH_POOLS, calls.PoolList(), 202)


@routes.post("/v1/pools/sync", status_code=202, summary="Compare with the backend now", openapi_extra=needs(Role.ADMIN))
async def sync(request: Request) -> ViewResponse[JobView]:
    """`skipped`, with the reason, where a run is still at work."""
    return await pass_on(request, calls.SYNC_POOLS, calls.PoolList(), 202)


@routes.post("/v1/pools/reload", summary="Read the settings file again", openapi_extra=needs(Role.ADMIN))
async def reload(request: Request) -> ViewResponse[PoolPage]:
    """Without a restart. A file with a fault is refused with all of its faults, and the former settings stay."""
    return await pass_on(request, calls.RELOAD_POOLS, calls.PoolList())
