"""The volume pool: spares of each type, their targets, and the two jobs of the pool."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import TargetRequest, TypeRef
from proctor_common.messages.calls import pools as calls
from proctor_common.messages.pages import PoolPage
from proctor_common.messages.pool_views import JobView, PoolView
from proctor_common.states import Role

routes = router("pools")


@routes.get("/v1/pools", summary="List the pools", openapi_extra=needs(Role.VIEWER))
async def list_pools(request: Request) -> ViewResponse[PoolPage]:
    """Each type with its target, its spares, statistics of claims, and the last execution of both jobs."""
    return await pass_on(request, calls.LIST_POOLS, calls.PoolList())


@routes.put("/v1/pools/{type}", summary="Set a pool's target", openapi_extra=needs(Role.ADMIN))
async def put_pool(request: Request, type: TypeRef, wish: TargetRequest) -> ViewResponse[PoolView]:
    """Set how many spares of the type are kept ready. It holds until the value in the settings file changes."""
    return await pass_on(request, calls.PUT_POOL, calls.PoolPut(type=type, target=wish.target))


@routes.post("/v1/pools/replenish", status_code=202, summary="Fill the pools now", openapi_extra=needs(Role.ADMIN))
async def replenish(request: Request) -> ViewResponse[JobView]:
    """Make spares up to each pool's target. The outcome is `skipped`, with the reason, if that is under way already."""
    return await pass_on(request, calls.REPLENISH_POOLS, calls.PoolList(), 202)


@routes.post(
    "/v1/pools/sync", status_code=202, summary="Synchronise with the backend now", openapi_extra=needs(Role.ADMIN)
)
async def sync(request: Request) -> ViewResponse[JobView]:
    """Read the volumes' states from the backend. `skipped`, with the reason, if that is under way already."""
    return await pass_on(request, calls.SYNC_POOLS, calls.PoolList(), 202)


@routes.post("/v1/pools/reload", summary="Read the settings file again", openapi_extra=needs(Role.ADMIN))
async def reload(request: Request) -> ViewResponse[PoolPage]:
    """Read the settings file without a restart. 422 with all faults of the file, and the settings stay; 409 if the
    controller has no settings file.
    """
    return await pass_on(request, calls.RELOAD_POOLS, calls.PoolList())
