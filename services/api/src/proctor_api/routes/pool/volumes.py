"""Volumes: spares, and those that VNFs and runs have."""

from typing import Annotated

from fastapi import Query, Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import After, Limit, VolumePage, VolumeRef
from proctor_common.messages import pool_calls
from proctor_common.messages.pool_views import VolumeView
from proctor_common.states import Role, VolumeState

routes = router()
Type = Annotated[str | None, Query(max_length=64, description="Only volumes of this type")]


@routes.get(
    "/v1/volumes", response_model=VolumePage, tags=["pools"], summary="Volumes", openapi_extra=needs(Role.VIEWER)
)
async def list_volumes(
    request: Request, state: VolumeState | None = None, type: Type = None, limit: Limit = 100, cursor: After = None
) -> Response:
    """The newest first; deleted ones only with `?state=deleted`."""
    body = pool_calls.VolumeList(state=state, type=type, limit=limit, cursor=cursor)
    return json_view(await context_of(request).controllers.ask("volume.list", caller_of(request).actor, body))


@routes.delete(
    "/v1/volumes/{volume}",
    status_code=202,
    response_model=VolumeView,
    tags=["pools"],
    summary="Delete a retained volume",
    openapi_extra=needs(Role.RUNNER),
)
async def delete_volume(request: Request, volume: VolumeRef) -> Response:
    """One that its run has retained (`on_end: retain`); any other belongs to a VNF, a run or the pool: 409."""
    body = pool_calls.VolumeRef(volume=volume)
    return json_view(await context_of(request).controllers.ask("volume.delete", caller_of(request).actor, body), 202)
