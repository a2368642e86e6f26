"""Schedules: plans by the clock."""

from typing import Annotated, Any, Literal

from fastapi import Path, Request
from pydantic import ConfigDict, Field, StringConstraints

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import After, Body, GroupName, Limit, PlanGiven
from proctor_api.routes.repeated import plan_as_sent
from proctor_common.messages.calls import plans as calls
from proctor_common.messages.pages import SchedulePage
from proctor_common.messages.views import ScheduleView
from proctor_common.states import Role

routes = router("schedules")

ScheduleRef = Annotated[str, Path(description="The schedule's name", max_length=64, examples=["nightly"])]


class ScheduleRequest(Body):
    """When to run which plan."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "cron": "30 2 * * mon-fri",
                "timezone": "Europe/Berlin",
                "plan": {
                    "testplan_version": "2026-12-01",
                    "name": "nightly",
                    "steps": {
                        "hello": {
                            "uses": "linux_system.run_shell",
                            "runs_on": {"host": "local-1"},
                            "with": {"command": "echo", "args": "good night"},
                        }
                    },
                },
            }
        }
    )

    cron: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="Five fields as of crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly"
    )
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        default="UTC", description="An IANA name"
    )
    plan: PlanGiven = Field(description="A stored plan's name (and version), or a plan as of POST /v1/runs")
    parameters: dict[str, Any] = {}
    overlap: Literal["skip"] = Field(default="skip", description="A tick is skipped while the former run goes on")
    group: GroupName | None = None


@routes.get("/v1/schedules", summary="Schedules", openapi_extra=needs(Role.VIEWER))
async def list_schedules(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[SchedulePage]:
    """Schedules that the token may see, by name, each with its next tick and its newest ones."""
    return await pass_on(request, calls.LIST_SCHEDULES, calls.ScheduleList(limit=limit, cursor=cursor))


@routes.get("/v1/schedules/{name}", summary="A schedule", openapi_extra=needs(Role.VIEWER))
async def get_schedule(request: Request, name: ScheduleRef) -> ViewResponse[ScheduleView]:
    """One schedule: when it is due next, and what became of its newest ticks."""
    return await pass_on(request, calls.GET_SCHEDULE, calls.ScheduleRef(name=name))


@routes.put("/v1/schedules/{name}", summary="Make or change a schedule", openapi_extra=needs(Role.RUNNER))
async def put_schedule(request: Request, name: ScheduleRef, wanted: ScheduleRequest) -> ViewResponse[ScheduleView]:
    """Faults of the plan, its parameters, the expression or the time zone are a 422 now, not at night."""
    body = calls.SchedulePut(
        name=name,
        cron=wanted.cron,
        timezone=wanted.timezone,
        plan=await plan_as_sent(request, wanted.plan),
        parameters=wanted.parameters,
        overlap=wanted.overlap,
        group=wanted.group,
    )
    return await pass_on(request, calls.PUT_SCHEDULE, body)


@routes.delete("/v1/schedules/{name}", summary="Delete a schedule", openapi_extra=needs(Role.RUNNER))
async def delete_schedule(request: Request, name: ScheduleRef) -> ViewResponse[ScheduleView]:
    """The runs it has started go on. The answer is the schedule as it was."""
    return await pass_on(request, calls.DELETE_SCHEDULE, calls.ScheduleRef(name=name))
