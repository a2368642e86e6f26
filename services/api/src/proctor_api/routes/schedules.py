"""Schedules: plans that run at fixed times."""

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
        description="Five fields as in crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly"
    )
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        default="UTC", description="The IANA name of the time zone of `cron`"
    )
    plan: PlanGiven = Field(description="As for POST /v1/runs")
    parameters: dict[str, Any] = {}
    overlap: Literal["skip"] = Field(default="skip", description="`skip`: start no run while the last one is active")
    group: GroupName | None = None


@routes.get("/v1/schedules", summary="List schedules", openapi_extra=needs(Role.VIEWER))
async def list_schedules(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[SchedulePage]:
    """Schedules that the token may see, by name, each with the next and the latest times at which it is due."""
    return await pass_on(request, calls.LIST_SCHEDULES, calls.ScheduleList(limit=limit, cursor=cursor))


@routes.get("/v1/schedules/{name}", summary="Show a schedule", openapi_extra=needs(Role.VIEWER))
async def get_schedule(request: Request, name: ScheduleRef) -> ViewResponse[ScheduleView]:
    """One schedule with the next and the latest times at which it is due. 404 if there is none."""
    return await pass_on(request, calls.GET_SCHEDULE, calls.ScheduleRef(name=name))


@routes.put("/v1/schedules/{name}", summary="Create or change a schedule", openapi_extra=needs(Role.RUNNER))
async def put_schedule(request: Request, name: ScheduleRef, wanted: ScheduleRequest) -> ViewResponse[ScheduleView]:
    """Everything is checked now: 422 with the faults of the plan, its parameters, `cron` or the time zone; 409 if the
    name is taken by a schedule that the token may not see.
    """
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
    """Delete the schedule; runs that it started go on. The answer is the schedule as it was."""
    return await pass_on(request, calls.DELETE_SCHEDULE, calls.ScheduleRef(name=name))
