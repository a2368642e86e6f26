"""Runs: starting them from a plan, what became of them and of their steps, cancelling them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query, Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.shapes import After, EventsPage, GroupName, Limit, RunPage, RunRef, RunRequest, StepPage
from proctor_api.routes.testcases import KEY, STARTED
from proctor_common.messages import calls
from proctor_common.messages.views import RunView
from proctor_common.states import Role, RunResult, RunState

routes = router()


@routes.post(
    "/v1/runs",
    status_code=202,
    response_model=RunView,
    responses=STARTED,
    tags=["runs"],
    summary="Run a test plan",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def submit_run(request: Request, run: RunRequest) -> Response:
    """Start a run of a plan. Faults of the plan are a 422 with all of them at once, each with line and column."""
    context, caller = context_of(request), caller_of(request)

    async def begin(new: str) -> Response:
        body = calls.SubmitRun(run=new, plan=run.plan, parameters=run.parameters, group=run.group, name=run.name)
        view = await context.controllers.ask("run.submit", caller.actor, body)
        return json_view(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/runs", response_model=RunPage, tags=["runs"], summary="Runs", openapi_extra=needs(Role.VIEWER))
async def list_runs(
    request: Request,
    *,
    state: RunState | None = None,
    result: RunResult | None = None,
    plan: Annotated[str | None, Query(max_length=200)] = None,
    host: Annotated[str | None, Query(max_length=200)] = None,
    group: GroupName | None = None,
    since: Annotated[datetime | None, Query(description="Created at or after")] = None,
    limit: Limit = 100,
    cursor: After = None,
) -> Response:
    """Runs that the token may see, newest first."""
    body = calls.RunList(
        state=state,
        result=result,
        plan=plan,
        host=host,
        group=group,
        since=since.isoformat() if since is not None else None,
        limit=limit,
        cursor=cursor,
    )
    return json_view(await context_of(request).controllers.ask("run.list", caller_of(request).actor, body))


@routes.get("/v1/runs/{run}", response_model=RunView, tags=["runs"], summary="A run", openapi_extra=needs(Role.VIEWER))
async def get_run(request: Request, run: RunRef) -> Response:
    """One run by its id or number."""
    return await _of_run(request, "run.get", run)


@routes.get(
    "/v1/runs/{run}/steps",
    response_model=StepPage,
    tags=["runs"],
    summary="A run's steps",
    openapi_extra=needs(Role.VIEWER),
)
async def list_steps(
    request: Request,
    run: RunRef,
    attempts: Annotated[Literal["all", "last"], Query(description="Every attempt, or each step's last")] = "last",
    limit: Limit = 100,
    cursor: After = None,
) -> Response:
    """A row a step instance, its last attempt; with `attempts=all` a row an attempt."""
    body = calls.StepList(run=run, attempts=attempts == "all", limit=limit, cursor=cursor)
    return json_view(await context_of(request).controllers.ask("run.steps", caller_of(request).actor, body))


@routes.get(
    "/v1/runs/{run}/events",
    response_model=EventsPage,
    tags=["runs"],
    summary="A run's state changes",
    openapi_extra=needs(Role.VIEWER),
)
async def list_events(
    request: Request, run: RunRef, after: Annotated[int, Query(ge=0, le=2**53)] = 0, limit: Limit = 1000
) -> Response:
    """State changes behind the `seq` in `after`, oldest first."""
    body = calls.EventList(run=run, after=after, limit=limit)
    return json_view(await context_of(request).controllers.ask("run.events", caller_of(request).actor, body))


@routes.post(
    "/v1/runs/{run}/cancel",
    status_code=202,
    response_model=RunView,
    tags=["runs"],
    summary="Cancel a run",
    openapi_extra=needs(Role.RUNNER),
)
async def cancel_run(request: Request, run: RunRef) -> Response:
    """Ask for the end of a run: what runs is killed with its process tree, and cleanup follows. Of no effect on a
    run that has finished.
    """
    return await _of_run(request, "run.cancel", run, 202)


async def _of_run(request: Request, op: str, run: str, status: int = 200) -> Response:
    view = await context_of(request).controllers.ask(op, caller_of(request).actor, calls.RunRef(run=run))
    return json_view(view, status)
