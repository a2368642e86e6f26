"""VNFs: each has one volume, from the pool where a spare is at hand."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, pass_on, router
from proctor_api.routes.models import After, Limit, VnfpRef, VnfpRequest
from proctor_api.routes.testcases import KEY
from proctor_common.messages.calls import pools as calls
from proctor_common.messages.pages import VnfpPage
from proctor_common.messages.pool_views import VnfpView
from proctor_common.states import Role, VnfpState

routes = router("pools")


@routes.post(
    "/v1/vnfps",
    status_code=202,
    responses={202: {"headers": {"Location": {"description": "/v1/vnfps/{id}", "schema": {"type": "string"}}}}},
    summary="Create a VNF",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def create_vnfp(request: Request, wish: VnfpRequest) -> ViewResponse[VnfpView]:
    """`active` at once where a spare at least as large is idle; else `creating` until a volume was made for it."""
    context, caller = context_of(request), caller_of(request)

    async def begin(vnfp: str) -> ViewResponse[VnfpView]:
        body = calls.VnfpCreate(id=vnfp, name=wish.name, type=wish.type, size_gb=wish.size_gb)
        view = await context.controllers.ask_encoded(calls.CREATE_VNFP, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/vnfps/{vnfp}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/vnfps", summary="VNFs", openapi_extra=needs(Role.VIEWER))
async def list_vnfps(
    request: Request, state: VnfpState | None = None, limit: Limit = 100, cursor: After = None
) -> ViewResponse[VnfpPage]:
    """The newest first; deleted ones only with `?state=deleted`."""
    return await pass_on(request, calls.LIST_VNFPS, calls.VnfpList(state=state, limit=limit, cursor=cursor))


@routes.get("/v1/vnfps/{vnfp}", summary="A VNF", openapi_extra=needs(Role.VIEWER))
async def get_vnfp(request: Request, vnfp: VnfpRef) -> ViewResponse[VnfpView]:
    """A VNF with its volume."""
    return await pass_on(request, calls.GET_VNFP, calls.VnfpRef(vnfp=vnfp))


@routes.delete("/v1/vnfps/{vnfp}", status_code=202, summary="Delete a VNF", openapi_extra=needs(Role.RUNNER))
async def delete_vnfp(request: Request, vnfp: VnfpRef) -> ViewResponse[VnfpView]:
    """Its volume is deleted with it. Again changes nothing."""
    return await pass_on(request, calls.DELETE_VNFP, calls.VnfpRef(vnfp=vnfp), 202)
