"""VNFs: each has one volume, from the pool where a spare is at hand."""

from fastapi import Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import After, Limit, VnfpPage, VnfpRef, VnfpRequest
from proctor_api.routes.testcases import KEY
from proctor_common.messages import pool_calls
from proctor_common.messages.pool_views import VnfpView
from proctor_common.states import Role, VnfpState

routes = router()


@routes.post(
    "/v1/vnfps",
    status_code=202,
    response_model=VnfpView,
    responses={202: {"headers": {"Location": {"description": "/v1/vnfps/{id}", "schema": {"type": "string"}}}}},
    tags=["pools"],
    summary="Create a VNF",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def create_vnfp(request: Request, wish: VnfpRequest) -> Response:
    """`active` at once where a spare at least as large is idle; else `creating` until a volume was made for it."""
    context, caller = context_of(request), caller_of(request)

    async def begin(vnfp: str) -> Response:
        body = pool_calls.VnfpCreate(id=vnfp, name=wish.name, type=wish.type, size_gb=wish.size_gb)
        view = await context.controllers.ask("vnfp.create", caller.actor, body)
        return json_view(view, 202, {"Location": f"/v1/vnfps/{vnfp}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/vnfps", response_model=VnfpPage, tags=["pools"], summary="VNFs", openapi_extra=needs(Role.VIEWER))
async def list_vnfps(
    request: Request, state: VnfpState | None = None, limit: Limit = 100, cursor: After = None
) -> Response:
    """The newest first; deleted ones only with `?state=deleted`."""
    body = pool_calls.VnfpList(state=state, limit=limit, cursor=cursor)
    return json_view(await context_of(request).controllers.ask("vnfp.list", caller_of(request).actor, body))


@routes.get(
    "/v1/vnfps/{vnfp}", response_model=VnfpView, tags=["pools"], summary="A VNF", openapi_extra=needs(Role.VIEWER)
)
async def get_vnfp(request: Request, vnfp: VnfpRef) -> Response:
    """A VNF with its volume."""
    return await _of_vnfp(request, "vnfp.get", vnfp)


@routes.delete(
    "/v1/vnfps/{vnfp}",
    status_code=202,
    response_model=VnfpView,
    tags=["pools"],
    summary="Delete a VNF",
    openapi_extra=needs(Role.RUNNER),
)
async def delete_vnfp(request: Request, vnfp: VnfpRef) -> Response:
    """Its volume is deleted with it. Again changes nothing."""
    return await _of_vnfp(request, "vnfp.delete", vnfp, 202)


async def _of_vnfp(request: Request, op: str, vnfp: str, status: int = 200) -> Response:
    view = await context_of(request).controllers.ask(op, caller_of(request).actor, pool_calls.VnfpRef(vnfp=vnfp))
    return json_view(view, status)
