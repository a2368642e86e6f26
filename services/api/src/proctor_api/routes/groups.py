"""Groups: named sets of agents, for isolation."""

from fastapi import Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import After, AgentRef, GroupPage, GroupRef, Limit
from proctor_common.messages import calls
from proctor_common.messages.views import GroupView
from proctor_common.states import Role

routes = router()


@routes.get("/v1/groups", response_model=GroupPage, tags=["groups"], summary="Groups", openapi_extra=needs(Role.VIEWER))
async def list_groups(request: Request, limit: Limit = 100, cursor: After = None) -> Response:
    """Groups that the token may see, by name."""
    body = calls.GroupList(limit=limit, cursor=cursor)
    return json_view(await context_of(request).controllers.ask("group.list", caller_of(request).actor, body))


@routes.get(
    "/v1/groups/{group}", response_model=GroupView, tags=["groups"], summary="A group", openapi_extra=needs(Role.VIEWER)
)
async def get_group(request: Request, group: GroupRef) -> Response:
    """A group and the host names of its agents."""
    return await _of_group(request, "group.get", group)


@routes.put(
    "/v1/groups/{group}",
    response_model=GroupView,
    tags=["groups"],
    summary="Make a group",
    openapi_extra=needs(Role.ADMIN),
)
async def put_group(request: Request, group: GroupRef) -> Response:
    """Of no effect where it exists."""
    return await _of_group(request, "group.put", group)


@routes.delete(
    "/v1/groups/{group}",
    response_model=GroupView,
    tags=["groups"],
    summary="Delete a group",
    openapi_extra=needs(Role.ADMIN),
)
async def delete_group(request: Request, group: GroupRef) -> Response:
    """Its agents stay. The answer is the group as it was."""
    return await _of_group(request, "group.delete", group)


@routes.put(
    "/v1/groups/{group}/agents/{agent}",
    response_model=GroupView,
    tags=["groups"],
    summary="Bind an agent to a group",
    openapi_extra=needs(Role.ADMIN),
)
async def bind_agent(request: Request, group: GroupRef, agent: AgentRef) -> Response:
    """Of no effect where it is bound."""
    return await _of_binding(request, "group.bind", group, agent)


@routes.delete(
    "/v1/groups/{group}/agents/{agent}",
    response_model=GroupView,
    tags=["groups"],
    summary="Take an agent out of a group",
    openapi_extra=needs(Role.ADMIN),
)
async def unbind_agent(request: Request, group: GroupRef, agent: AgentRef) -> Response:
    """Of no effect where it is not bound."""
    return await _of_binding(request, "group.unbind", group, agent)


async def _of_group(request: Request, op: str, group: str) -> Response:
    body = calls.GroupRef(name=group)
    return json_view(await context_of(request).controllers.ask(op, caller_of(request).actor, body))


async def _of_binding(request: Request, op: str, group: str, agent: str) -> Response:
    body = calls.GroupBinding(name=group, agent=agent)
    return json_view(await context_of(request).controllers.ask(op, caller_of(request).actor, body))
