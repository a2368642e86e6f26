"""Stored test plans (each change makes a new version), and checking a plan without running it."""

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
    """A plan to check."""

    model_config = ConfigDict(json_schema_extra={"example": {"plan": EXAMPLE}})

    plan: PlanGiven
    parameters: dict[str, Any] | None = Field(
        default=None, description="Values to check with the plan; absent or null: required parameters may be missing"
    )
    group: GroupName | None = None


class PlanRequest(Body):
    """A plan to store. YAML or JSON text is stored as it is; an object is stored as JSON."""

    model_config = ConfigDict(json_schema_extra={"example": {"plan": EXAMPLE}})

    plan: PlanGiven
    group: GroupName | None = Field(
        default=None, description="The group that it belongs to; absent: as before; for a new plan, the token's"
    )


@routes.get(
    "/docs/testplan.schema.json",
    response_model=dict[str, Any],
    summary="Show the JSON Schema of test plans",
    openapi_extra=anyone(),
)
async def show_schema(request: Request) -> Response:
    """For editors, without a token. First line of a plan: `# yaml-language-server: $schema=<URL of this schema>`."""
    schema = await context_of(request).controllers.ask_encoded(calls.SHOW_PLAN_SCHEMA, SELF, calls.PlanSchema())
    return Response(schema.data, media_type="application/schema+json", headers={"Cache-Control": "public, max-age=300"})


@routes.post("/v1/testplans/validate", summary="Check a test plan", openapi_extra=needs(Role.VIEWER))
async def validate_plan(request: Request, wanted: ValidateRequest) -> ViewResponse[PlanFaults]:
    """All faults of the plan, each with its path and, if it was sent as text, line and column. Nothing is started."""
    plan = await plan_as_sent(request, wanted.plan)
    body = calls.PlanValidate(plan=plan, parameters=wanted.parameters, group=wanted.group)
    return await pass_on(request, calls.VALIDATE_PLAN, body)


@routes.get("/v1/testplans", summary="List stored plans", openapi_extra=needs(Role.VIEWER))
async def list_plans(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[PlanPage]:
    """The newest version of each plan that the token may see, by name, without the text."""
    return await pass_on(request, calls.LIST_PLANS, calls.PlanList(limit=limit, cursor=cursor))


@routes.get("/v1/testplans/{name}", summary="Show a stored plan", openapi_extra=needs(Role.VIEWER))
async def get_plan(request: Request, name: PlanRef, version: Version = None) -> ViewResponse[PlanView]:
    """One version of a plan with its exact text. 404 if there is none, or the token may not see it."""
    return await pass_on(request, calls.GET_PLAN, calls.PlanRef(name=name, version=version))


@routes.put("/v1/testplans/{name}", summary="Store a plan", openapi_extra=needs(Role.RUNNER))
async def put_plan(request: Request, name: PlanRef, wanted: PlanRequest) -> ViewResponse[PlanView]:
    """Store a new version, unless text and group are those of the newest one. 422 with all faults of the plan at once;
    409 if the name is taken by a plan that the token may not see.
    """
    plan = await plan_as_sent(request, wanted.plan)
    return await pass_on(request, calls.PUT_PLAN, calls.PlanPut(name=name, plan=plan, group=wanted.group))


@routes.delete("/v1/testplans/{name}", summary="Delete a stored plan", openapi_extra=needs(Role.RUNNER))
async def delete_plan(request: Request, name: PlanRef) -> ViewResponse[PlanView]:
    """Delete all versions. Runs of the plan go on and keep their text."""
    return await pass_on(request, calls.DELETE_PLAN, calls.PlanRef(name=name))
