"""Agents and test cases under ``/v2.1``, in the shapes and words of the legacy framework (a slave is an agent)."""

from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from proctor_api.context import ApiContext
from proctor_api.routes.guard import ViewResponse, caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import Word
from proctor_api.routes.testcases import KEY
from proctor_common.errors import Code, ProctorError, not_found
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.agents import GET_AGENT, LIST_AGENTS, AgentList, AgentRef
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import GET_RUN, LIST_STEPS, SUBMIT_CASE, RunRef, StepList, SubmitCase
from proctor_common.messages.views import AgentView, RunView, StepView
from proctor_common.states import AgentState, Role, RunResult, RunState

routes = router("v2.1")

MAX_NUMBER = 2**31 - 1
AT_ONCE = 1000


class LegacyCase(BaseModel):
    """A test case. Unknown members are ignored, as in the legacy framework."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "example": {
                "plugin": "linux_system",
                "host": "local-1",
                "method": "run_shell",
                "parameters": {"command": "ls", "args": "-alt"},
            }
        },
    )

    plugin: Word
    host: Word
    method: Word
    parameters: dict[str, Any] = Field(default={})


@routes.get("/v2.1/slaves", response_model=dict[str, Any], summary="List agents", openapi_extra=needs(Role.VIEWER))
async def list_slaves(request: Request) -> Response:
    """The agents that are not removed, by UUID: `{uuid: {host, id}}`."""
    agents = await _agents(context_of(request), caller_of(request).actor)
    return json_view(orjson.dumps({agent.id: {"host": agent.host, "id": agent.number} for agent in agents}))


@routes.get(
    "/v2.1/slaves/detail",
    response_model=dict[str, Any],
    summary="List agents with their plugins and methods",
    openapi_extra=needs(Role.VIEWER),
)
async def list_slave_details(request: Request) -> Response:
    """The agents that are not removed, by UUID: `{uuid: {compute_node_method, compute_node_type, host, id}}`.
    `compute_node_method` has the description of each method by plugin; `compute_node_type` is the plugins' names,
    joined by commas.
    """
    agents = await _agents(context_of(request), caller_of(request).actor)
    return json_view(orjson.dumps({agent.id: _detail(agent) for agent in agents}))


@routes.get(
    "/v2.1/slaves/{number}", response_model=dict[str, Any], summary="Show an agent", openapi_extra=needs(Role.VIEWER)
)
async def get_slave(request: Request, number: str) -> Response:
    """One agent by its number: `{compute_node_method, compute_node_type, host, id, uuid}`. 404 if there is none."""
    body = AgentRef(agent=number_of(number, "slave"))
    try:
        agent = await context_of(request).controllers.ask(GET_AGENT, caller_of(request).actor, body)
    except ProctorError as fault:
        raise renamed(fault, "slave", number) from fault
    if agent.state is AgentState.REMOVED:
        raise not_found("slave", number)
    return json_view(orjson.dumps({**_detail(agent), "uuid": agent.id}))


@routes.post(
    "/v2.1/testcases", status_code=202, summary="Run a test case", openapi_extra=needs(Role.RUNNER, parameters=[KEY])
)
async def submit_legacy_case(request: Request, case: LegacyCase) -> ViewResponse[dict[str, int]]:
    """Start a test case. The answer is `{"CaseId": n}`, with the number of the run."""
    context, caller = context_of(request), caller_of(request)

    async def begin(run: str) -> ViewResponse[dict[str, int]]:
        body = SubmitCase(run=run, plugin=case.plugin, method=case.method, host=case.host, parameters=case.parameters)
        view = await context.controllers.ask(SUBMIT_CASE, caller.actor, body)
        return ViewResponse(Encoded(orjson.dumps({"CaseId": view.number})), 202)

    return await context.idempotency.start(request, caller, begin)


@routes.get(
    "/v2.1/testcases/{number}",
    response_model=dict[str, Any],
    summary="Show a test case",
    openapi_extra=needs(Role.VIEWER),
)
async def get_legacy_case(request: Request, number: str) -> Response:
    """`{CaseId, Message, Status}`. `Status` is `initing`, `execute`, `successfully` or `fail`; `Message` is the output
    of the method, or why it failed.
    """
    context, actor = context_of(request), caller_of(request).actor
    ref = number_of(number, "testcase")
    try:
        run = await context.controllers.ask(GET_RUN, actor, RunRef(run=ref))
    except ProctorError as fault:
        raise renamed(fault, "testcase", number) from fault
    if run.kind != "case":
        raise not_found("testcase", number)
    page = await context.controllers.ask(LIST_STEPS, actor, StepList(run=ref, limit=1))
    message = _output(run, page.items[0] if page.items else None)
    return json_view(orjson.dumps({"CaseId": run.number, "Message": message, "Status": _status(run)}))


def _status(run: RunView) -> str:
    if run.state is RunState.FINISHED:
        return "successfully" if run.result is RunResult.PASSED else "fail"
    return "initing" if run.state in {RunState.QUEUED, RunState.ALLOCATING} else "execute"


def _output(run: RunView, step: StepView | None) -> str:
    """What the method printed or returned; if nothing, why it failed."""
    if step is None:
        return run.reason
    stdout = step.output.get("stdout")
    if isinstance(stdout, str) and stdout:
        return stdout
    if step.error is not None and step.error.get("message"):
        return str(step.error["message"])
    rest = {key: value for key, value in step.output.items() if key != "stdout"}
    if rest and "stdout" not in step.output:
        return orjson.dumps(rest).decode()
    return step.reason or run.reason


async def _agents(context: ApiContext, actor: Actor) -> list[AgentView]:
    """All agents that the caller may see and that are not removed, read page by page."""
    found: list[AgentView] = []
    cursor = None
    while True:
        page = await context.controllers.ask(LIST_AGENTS, actor, AgentList(limit=AT_ONCE, cursor=cursor))
        found += [agent for agent in page.items if agent.state is not AgentState.REMOVED]
        cursor = page.next
        if cursor is None or not page.items:
            return found


def _detail(agent: AgentView) -> dict[str, Any]:
    return {
        "compute_node_method": {
            name: {method: spec.description for method, spec in plugin.methods.items()}
            for name, plugin in agent.plugins.items()
        },
        "compute_node_type": ",".join(agent.plugins),
        "host": agent.host,
        "id": agent.number,
    }


def number_of(text: str, what: str) -> str:
    """An integer from 1 to MAX_NUMBER in the path, as text. Raises 404 for anything else."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not 0 < int(text) <= MAX_NUMBER:
        raise not_found(what, text)
    return str(int(text))


def renamed(fault: ProctorError, what: str, name: str) -> ProctorError:
    """A 404 in the words of these routes; any other fault unchanged."""
    return not_found(what, name) if fault.code is Code.NOT_FOUND else fault
