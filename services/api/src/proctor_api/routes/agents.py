"""Agents: list, drain and remove them; permit new ones and let them join."""

from fastapi import Request

from proctor_api.controller_client import SELF
from proctor_api.routes.guard import ViewResponse, anyone, context_of, needs, pass_on, router
from proctor_api.routes.models import After, AgentRef, EnrolRequest, JoinRequest, Limit
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls import agents as calls
from proctor_common.messages.pages import AgentPage
from proctor_common.messages.views import AgentView, EnrolmentView, JoinView
from proctor_common.states import Role

routes = router("agents")


@routes.get("/v1/agents", summary="List agents", openapi_extra=needs(Role.VIEWER))
async def list_agents(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[AgentPage]:
    """Agents that the token may see, by host name, with their plugins and methods."""
    return await pass_on(request, calls.LIST_AGENTS, calls.AgentList(limit=limit, cursor=cursor))


@routes.get("/v1/agents/{agent}", summary="Show an agent", openapi_extra=needs(Role.VIEWER))
async def get_agent(request: Request, agent: AgentRef) -> ViewResponse[AgentView]:
    """The agent with this id, host name or number. 404 if there is none, or the token may not see it."""
    return await pass_on(request, calls.GET_AGENT, calls.AgentRef(agent=agent))


@routes.post("/v1/agents/{agent}/drain", status_code=202, summary="Drain an agent", openapi_extra=needs(Role.ADMIN))
async def drain_agent(request: Request, agent: AgentRef) -> ViewResponse[AgentView]:
    """Give the agent no new work. What runs there goes on to its end; runs that hold the host go on there."""
    return await pass_on(request, calls.DRAIN_AGENT, calls.AgentRef(agent=agent), 202)


@routes.post("/v1/agents/{agent}/undrain", status_code=202, summary="Undrain an agent", openapi_extra=needs(Role.ADMIN))
async def undrain_agent(request: Request, agent: AgentRef) -> ViewResponse[AgentView]:
    """Give the agent work again."""
    return await pass_on(request, calls.UNDRAIN_AGENT, calls.AgentRef(agent=agent), 202)


@routes.post("/v1/agents/{agent}/release", status_code=202, summary="Release a host", openapi_extra=needs(Role.ADMIN))
async def release_agent(request: Request, agent: AgentRef) -> ViewResponse[AgentView]:
    """Let runs lease the host exclusively again, although ended steps may have left processes on it."""
    return await pass_on(request, calls.RELEASE_AGENT, calls.AgentRef(agent=agent), 202)


@routes.delete("/v1/agents/{agent}", summary="Remove an agent", openapi_extra=needs(Role.ADMIN))
async def remove_agent(request: Request, agent: AgentRef) -> ViewResponse[AgentView]:
    """Revoke the agent's credentials and close its connection."""
    return await pass_on(request, calls.REMOVE_AGENT, calls.AgentRef(agent=agent))


@routes.post("/v1/agents/enrolments", status_code=201, summary="Permit a new agent", openapi_extra=needs(Role.ADMIN))
async def enrol_agent(request: Request, enrolment: EnrolRequest) -> ViewResponse[EnrolmentView]:
    """Make a join token. It is shown only in this answer, and valid for 15 minutes, one agent and this host name. 409
    if an agent of that host exists: remove it first.
    """
    body = calls.Enrol(host=enrolment.host, groups=enrolment.groups, labels=enrolment.labels)
    return await pass_on(request, calls.ENROL_AGENT, body, 201)


@routes.post("/v1/agents/join", summary="Join as an agent", openapi_extra=anyone())
async def join_agent(request: Request, joining: JoinRequest) -> ViewResponse[JoinView]:
    """Exchange a join token for an identity; agents call this themselves. The same token and key again get the same
    answer while the token is valid; another key is a 409. 429 after too many failed tries from one address.
    """
    context = context_of(request)
    count_try(request)
    body = calls.Join(token=joining.token, public_key=joining.public_key)
    joined = await context.controllers.ask_encoded(calls.JOIN_AGENT, SELF, body)
    # A whole lab may join from one address: only failed tries count.
    context.tries.give_back(_trier(request))
    return ViewResponse(joined)


def _trier(request: Request) -> str:
    address = request.client.host if request.client is not None else "?"
    return f"{request.scope['path']} {address}"


def count_try(request: Request) -> None:
    """Count a try of the client's address. Raises 429 if it made more than ``login_tries`` a minute."""
    context = context_of(request)
    wait = context.tries.take(_trier(request))
    if wait:
        tries = context.settings.login_tries
        raise ProctorError(Code.TOO_MANY, f"{tries} tries a minute are allowed from one address", retry_after=wait)
