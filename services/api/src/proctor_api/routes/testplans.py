"""Stored test plans, each change a new version, and checking a plan without running it."""

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import ConfigDict, Field

from proctor_api.controller_client import SELF
from proctor_api.routes.guard import ViewResponse, anyone, context_of, needs, pass_on, router
from proctor_api.routes.models import After, Body, GroupName, Limit, PlanGiven
from proctor_api.routes.repeated import plan_as_sent
from proctor_common.messages.calls import plans as calls
from proctor_common.messages.pages import PlanPage
from proctor_common.messages.views import PlanFaults, PlanView
from proctor_common.states import Role

routes = router("test plans")

EXAMPLE: dict[str, Any] = {
    "testplan_version": "2026-12-01",
    "name": "hello",
    "parameters": {"who": {"type": "string", "default": "world"}},
    "steps": {
        "hello": {
            "uses": "linux_system.run_shell",
            "runs_on": {"host": "local-1"},
            "with": {"command": "echo", "args": "hello ${{ params.who }}"},
        }
    },
}
PlanRef = Annotated[str, Path(description="The plan's name", max_length=64, examples=["hello"])]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="One of its versions; absent: the newest")]


class ValidateRequest(Body):
    """A plan to check: an object, YAML or JSON text, or a stored plan's name (and version)."""

    model_config = ConfigDict(json_schema_extra={"example": {"plan": EXAMPLE}})

    plan: PlanGiven
    parameters: dict[str, Any] | None = Field(
        default=None, description="Checked with it; absent: those that it needs are not asked for"
    )
    group: GroupName | None = None


class PlanRequest(Body):
    """A plan to keep: YAML or JSON text, kept as it is, or an object."""

    model_config = ConfigDict(json_schema_extra={"example": {"plan": EXAMPLE}})

    plan: PlanGiven
    group: GroupName | None = Field(default=None, description="Whom it belongs to; absent: as it was, or nobody")


@routes.get(
    "/docs/testplan.schema.json",
    response_model=dict[str, Any],
    summary="The JSON Schema of test plans",
    openapi_extra=anyone(),
)
async def show_schema(request: Request) -> Response:
    """For editors, which send no token; the first line of a plan: `# yaml-language-server: $schema=<this address>`."""
    schema = await context_of(request).controllers.ask_encoded(calls.SHOW_PLAN_SCHEMA, SELF, calls.PlanSchema())
    return Response(schema.data, media_type="application/schema+json", headers={"Cache-Control": "public, max-age=300"})


@routes.post("/v1/testplans/validate", summary="Check a test plan", openapi_extra=needs(Role.VIEWER))
async def validate_plan(request: Request, wanted: ValidateRequest) -> ViewResponse[PlanFaults]:
    """Every fault at once, each with line and column (for text) and path; none: it may be run. Nothing is started."""
    plan = await plan_as_sent(request, wanted.plan)
    body = calls.PlanValidate(plan=plan, parameters=wanted.parameters, group=wanted.group)
    return await pass_on(request, calls.VALIDATE_PLAN, body)


@routes.get("/v1/testplans", summary="Stored plans", openapi_extra=needs(Role.VIEWER))
async def list_plans(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[PlanPage]:
    """The newest version of each plan that the token may see, by name."""
    return await pass_on(request, calls.LIST_PLANS, calls.PlanList(limit=limit, cursor=cursor))


@routes.get("/v1/testplans/{name}", summary="A stored plan", openapi_extra=needs(Role.VIEWER))
async def get_plan(request: Request, name: PlanRef, version: Version = None) -> ViewResponse[PlanView]:
    """A version of a plan, with its exact text."""
    return await pass_on(request, calls.GET_PLAN, calls.PlanRef(name=name, version=version))


@routes.put("/v1/testplans/{name}", summary="Store a plan", openapi_extra=needs(Role.RUNNER))
async def put_plan(request: Request, name: PlanRef, wanted: PlanRequest) -> ViewResponse[PlanView]:
    """A new version; the same text again makes none. Faults of the plan are a 422 with all of them at once."""
    plan = await plan_as_sent(request, wanted.plan)
    return await pass_on(request, calls.PUT_PLAN, calls.PlanPut(name=name, plan=plan, group=wanted.group))


@routes.delete("/v1/testplans/{name}", summary="Delete a stored plan", openapi_extra=needs(Role.RUNNER))
async def delete_plan(request: Request, name: PlanRef) -> ViewResponse[PlanView]:
    """All its versions. Runs of it go on, and keep the text they were made from."""
    return await pass_on(request, calls.DELETE_PLAN, calls.PlanRef(name=name))
