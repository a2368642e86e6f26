"""Groups: named sets of agents, for isolation."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import After, AgentRef, GroupRef, Limit
from proctor_common.messages.calls import agents as calls
from proctor_common.messages.pages import GroupPage
from proctor_common.messages.views import GroupView
from proctor_common.states import Role

routes = router("groups")


@routes.get("/v1/groups", summary="Groups", openapi_extra=needs(Role.VIEWER))
async def list_groups(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[GroupPage]:
    """Groups that the token may see, by name."""
    return await pass_on(request, calls.LIST_GROUPS, calls.GroupList(limit=limit, cursor=cursor))


@routes.get("/v1/groups/{group}", summary="A group", openapi_extra=needs(Role.VIEWER))
async def get_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """A group and the host names of its agents."""
    return await pass_on(request, calls.GET_GROUP, calls.GroupRef(name=group))


@routes.put("/v1/groups/{group}", summary="Make a group", openapi_extra=needs(Role.ADMIN))
async def put_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """Of no effect where it exists."""
    return await pass_on(request, calls.PUT_GROUP, calls.GroupRef(name=group))


@routes.delete("/v1/groups/{group}", summary="Delete a group", openapi_extra=needs(Role.ADMIN))
async def delete_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """Its agents stay. The answer is the group as it was."""
    return await pass_on(request, calls.DELETE_GROUP, calls.GroupRef(name=group))


@routes.put("/v1/groups/{group}/agents/{agent}", summary="Bind an agent to a group", openapi_extra=needs(Role.ADMIN))
async def bind_agent(request: Request, group: GroupRef, agent: AgentRef) -> ViewResponse[GroupView]:
    """Of no effect where it is bound."""
    return await pass_on(request, calls.BIND_AGENT, calls.GroupBinding(name=group, agent=agent))


@routes.delete(
    "/v1/groups/{group}/agents/{agent}", summary="Take an agent out of a group", openapi_extra=needs(Role.ADMIN)
)
async def unbind_agent(request: Request, group: GroupRef, agent: AgentRef) -> ViewResponse[GroupView]:
    """Of no effect where it is not bound."""
    return await pass_on(request, calls.UNBIND_AGENT, calls.GroupBinding(name=group, agent=agent))
