"""Volumes: spares, and the volumes of VNFs and runs."""

from typing import Annotated

from fastapi import Query, Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import After, Limit, VolumeRef
from proctor_common.messages.calls import pools as calls
from proctor_common.messages.pages import VolumePage
from proctor_common.messages.pool_views import VolumeView
from proctor_common.states import Role, VolumeState

routes = router("pools")
Type = Annotated[str | None, Query(max_length=64, description="Only volumes of this type")]


@routes.get("/v1/volumes", summary="List volumes", openapi_extra=needs(Role.VIEWER))
async def list_volumes(
    request: Request, state: VolumeState | None = None, type: Type = None, limit: Limit = 100, cursor: After = None
) -> ViewResponse[VolumePage]:
    """Volumes, newest first. Deleted ones are listed only with `state=deleted`."""
    body = calls.VolumeList(state=state, type=type, limit=limit, cursor=cursor)
    return await pass_on(request, calls.LIST_VOLUMES, body)


@routes.delete(
    "/v1/volumes/{volume}", status_code=202, summary="Delete a retained volume", openapi_extra=needs(Role.RUNNER)
)
async def delete_volume(request: Request, volume: VolumeRef) -> ViewResponse[VolumeView]:
    """Delete a volume that its run kept (`on_end: retain`). 409 for a volume of a VNF, a run or the pool."""
    return await pass_on(request, calls.DELETE_VOLUME, calls.VolumeRef(volume=volume), 202)
