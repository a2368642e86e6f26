"""VNFs: each has one volume, from the pool if a spare is ready."""

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
    """The VNF is `active` at once if a spare of at least its size is ready; else it is `creating` until its volume is
    made. 404 for an unknown type.
    """
    context, caller = context_of(request), caller_of(request)

    async def begin(vnfp: str) -> ViewResponse[VnfpView]:
        body = calls.VnfpCreate(id=vnfp, name=wish.name, type=wish.type, size_gb=wish.size_gb)
        view = await context.controllers.ask_encoded(calls.CREATE_VNFP, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/vnfps/{vnfp}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/vnfps", summary="List VNFs", openapi_extra=needs(Role.VIEWER))
async def list_vnfps(
    request: Request, state: VnfpState | None = None, limit: Limit = 100, cursor: After = None
) -> ViewResponse[VnfpPage]:
    """VNFs, newest first. Deleted ones are listed only with `state=deleted`."""
    return await pass_on(request, calls.LIST_VNFPS, calls.VnfpList(state=state, limit=limit, cursor=cursor))


@routes.get("/v1/vnfps/{vnfp}", summary="Show a VNF", openapi_extra=needs(Role.VIEWER))
async def get_vnfp(request: Request, vnfp: VnfpRef) -> ViewResponse[VnfpView]:
    """One VNF with its volume. 404 if there is none."""
    return await pass_on(request, calls.GET_VNFP, calls.VnfpRef(vnfp=vnfp))


@routes.delete("/v1/vnfps/{vnfp}", status_code=202, summary="Delete a VNF", openapi_extra=needs(Role.RUNNER))
async def delete_vnfp(request: Request, vnfp: VnfpRef) -> ViewResponse[VnfpView]:
    """Delete the VNF and its volume. No effect on a VNF that is being deleted."""
    return await pass_on(request, calls.DELETE_VNFP, calls.VnfpRef(vnfp=vnfp), 202)
