"""Groups: named sets of agents that isolate teams from each other."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import After, AgentRef, GroupRef, Limit
from proctor_common.messages.calls import agents as calls
from proctor_common.messages.pages import GroupPage
from proctor_common.messages.views import GroupView
from proctor_common.states import Role

routes = router("groups")


@routes.get("/v1/groups", summary="List groups", openapi_extra=needs(Role.VIEWER))
async def list_groups(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[GroupPage]:
    """Groups that the token may see, by name."""
    return await pass_on(request, calls.LIST_GROUPS, calls.GroupList(limit=limit, cursor=cursor))


@routes.get("/v1/groups/{group}", summary="Show a group", openapi_extra=needs(Role.VIEWER))
async def get_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """The group and the host names of its agents. 404 if there is none, or the token may not see it."""
    return await pass_on(request, calls.GET_GROUP, calls.GroupRef(name=group))


@routes.put("/v1/groups/{group}", summary="Create a group", openapi_extra=needs(Role.ADMIN))
async def put_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """Create an empty group. No effect if it exists. 403 for a token that is bound to other groups."""
    return await pass_on(request, calls.PUT_GROUP, calls.GroupRef(name=group))


@routes.delete("/v1/groups/{group}", summary="Delete a group", openapi_extra=needs(Role.ADMIN))
async def delete_group(request: Request, group: GroupRef) -> ViewResponse[GroupView]:
    """Delete the group; its agents stay. The answer is the group as it was."""
    return await pass_on(request, calls.DELETE_GROUP, calls.GroupRef(name=group))


@routes.put("/v1/groups/{group}/agents/{agent}", summary="Add an agent to a group", openapi_extra=needs(Role.ADMIN))
async def bind_agent(request: Request, group: GroupRef, agent: AgentRef) -> ViewResponse[GroupView]:
    """No effect if the agent is in the group."""
    return await pass_on(request, calls.BIND_AGENT, calls.GroupBinding(name=group, agent=agent))


@routes.delete(
    "/v1/groups/{group}/agents/{agent}", summary="Remove an agent from a group", openapi_extra=needs(Role.ADMIN)
)
async def unbind_agent(request: Request, group: GroupRef, agent: AgentRef) -> ViewResponse[GroupView]:
    """No effect if the agent is not in the group."""
    return await pass_on(request, calls.UNBIND_AGENT, calls.GroupBinding(name=group, agent=agent))
