"""Runs: start one from a plan, list runs, their steps and events, and act on them (cancel, pause, rerun, gates)."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Query, Request
from pydantic import ConfigDict, Field

from proctor_api.errors import no_upgrade
from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, pass_on, router
from proctor_api.routes.models import After, Body, GroupName, Limit, RunRef, RunRequest
from proctor_api.routes.repeated import plan_as_sent
from proctor_api.routes.testcases import KEY, STARTED
from proctor_common.messages.calls import runs as calls
from proctor_common.messages.pages import EventsPage, RunPage, StepPage
from proctor_common.messages.views import DocumentView, RunView
from proctor_common.states import Role, RunResult, RunState

routes = router("runs")

StepName = Annotated[str, Path(description="The step's name, `name[instance]` or id", max_length=300)]


class AgainRequest(Body):
    """Which steps to run again."""

    model_config = ConfigDict(json_schema_extra={"example": {"failed_only": True}})

    failed_only: bool = Field(default=False, description="Steps that passed keep their outputs and do not run again")


ALL_STEPS = AgainRequest()


@routes.post(
    "/v1/runs",
    status_code=202,
    responses=STARTED,
    summary="Run a test plan",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def submit_run(request: Request, run: RunRequest) -> ViewResponse[RunView]:
    """Start a run of a plan. 422 with all faults of the plan at once, each with line and column; nothing is started
    then. 404 if a stored plan or group is unknown.
    """
    context, caller = context_of(request), caller_of(request)
    plan = await plan_as_sent(request, run.plan)

    async def begin(new: str) -> ViewResponse[RunView]:
        body = calls.SubmitRun(run=new, plan=plan, parameters=run.parameters, group=run.group, name=run.name)
        view = await context.controllers.ask_encoded(calls.SUBMIT_RUN, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/runs", summary="List runs", openapi_extra=needs(Role.VIEWER))
async def list_runs(
    request: Request,
    *,
    state: RunState | None = None,
    result: RunResult | None = None,
    plan: Annotated[str | None, Query(max_length=200, description="Only runs of the plan with this name")] = None,
    host: Annotated[str | None, Query(max_length=200, description="Only runs with a step on this host")] = None,
    group: GroupName | None = None,
    since: Annotated[datetime | None, Query(description="Only runs created at this time or later")] = None,
    limit: Limit = 100,
    cursor: After = None,
) -> ViewResponse[RunPage]:
    """Runs that the token may see, newest first. Each filter that is given must hold."""
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
    return await pass_on(request, calls.LIST_RUNS, body)


@routes.get("/v1/runs/{run}", summary="Show a run", openapi_extra=needs(Role.VIEWER))
async def get_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """The run with this id or number. 404 if there is none, or the token may not see it."""
    return await pass_on(request, calls.GET_RUN, calls.RunRef(run=run))


@routes.get("/v1/runs/{run}/steps", summary="List a run's steps", openapi_extra=needs(Role.VIEWER))
async def list_steps(
    request: Request,
    run: RunRef,
    attempts: Annotated[
        Literal["all", "last"], Query(description="`last`: the last attempt of each step; `all`: every attempt")
    ] = "last",
    limit: Limit = 100,
    cursor: After = None,
) -> ViewResponse[StepPage]:
    """One row per step instance, in the order of the plan; with `attempts=all`, one row per attempt."""
    body = calls.StepList(run=run, attempts=attempts == "all", limit=limit, cursor=cursor)
    return await pass_on(request, calls.LIST_STEPS, body)


@routes.get("/v1/runs/{run}/events", summary="List a run's state changes", openapi_extra=needs(Role.VIEWER))
async def list_events(
    request: Request,
    run: RunRef,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only events with a `seq` above this")] = 0,
    limit: Limit = 1000,
    cursor: Annotated[int | None, Query(ge=0, le=2**53, description="`next` of the previous page")] = None,
) -> ViewResponse[EventsPage]:
    """State changes of the run and its steps, oldest first."""
    if "sec-websocket-key" in request.headers:
        raise no_upgrade(request.scope["path"])
    body = calls.EventList(run=run, after=after if cursor is None else cursor, limit=limit)
    return await pass_on(request, calls.LIST_EVENTS, body)


@routes.post("/v1/runs/{run}/cancel", status_code=202, summary="Cancel a run", openapi_extra=needs(Role.RUNNER))
async def cancel_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Cancel the run: running steps are killed with their process trees, then its cleanup runs. A finished run that
    still keeps its hosts gives them back; on any other finished run there is no effect.
    """
    return await pass_on(request, calls.CANCEL_RUN, calls.RunRef(run=run), 202)


@routes.post("/v1/runs/{run}/pause", status_code=202, summary="Pause a run", openapi_extra=needs(Role.RUNNER))
async def pause_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Start no further steps. Running steps go on to their end, the run keeps its hosts, and its timeout keeps
    counting. No effect on a paused run; 409 if the run is not running.
    """
    return await pass_on(request, calls.PAUSE_RUN, calls.RunRef(run=run), 202)


@routes.post("/v1/runs/{run}/resume", status_code=202, summary="Resume a paused run", openapi_extra=needs(Role.RUNNER))
async def resume_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Start steps again. No effect on a run that is already running; 409 if there is nothing to resume."""
    return await pass_on(request, calls.RESUME_RUN, calls.RunRef(run=run), 202)


@routes.post(
    "/v1/runs/{run}/rerun",
    status_code=202,
    responses=STARTED,
    summary="Run a run again",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def rerun_run(request: Request, run: RunRef, wanted: AgainRequest = ALL_STEPS) -> ViewResponse[RunView]:
    """Start a new run of the same text and parameters; its `rerun_of` is this run. 409 if this run has not finished, or
    if `failed_only` is set and it passed.
    """
    context, caller = context_of(request), caller_of(request)

    async def begin(new: str) -> ViewResponse[RunView]:
        body = calls.RunAgain(run=run, new_run=new, failed_only=wanted.failed_only)
        view = await context.controllers.ask_encoded(calls.RERUN, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.post(
    "/v1/runs/{run}/steps/{step}/approve", status_code=202, summary="Approve a gate", openapi_extra=needs(Role.RUNNER)
)
async def approve_step(request: Request, run: RunRef, step: StepName) -> ViewResponse[RunView]:
    """Let the run go on behind a gate. 403 unless the gate names the token's role. No effect on an approved gate; 409
    if the gate is not open yet, was rejected or timed out, or if the step is no gate.
    """
    return await pass_on(request, calls.APPROVE_STEP, calls.StepRef(run=run, step=step), 202)


@routes.post(
    "/v1/runs/{run}/steps/{step}/reject", status_code=202, summary="Reject a gate", openapi_extra=needs(Role.RUNNER)
)
async def reject_step(request: Request, run: RunRef, step: StepName) -> ViewResponse[RunView]:
    """Let a gate fail, and with it what depends on it. 403 unless the gate names the token's role. No effect on a
    rejected gate; 409 if the gate is not open yet, was approved or timed out, or if the step is no gate.
    """
    return await pass_on(request, calls.REJECT_STEP, calls.StepRef(run=run, step=step), 202)


@routes.get("/v1/runs/{run}/document", summary="Show a run's plan", openapi_extra=needs(Role.VIEWER))
async def get_document(request: Request, run: RunRef) -> ViewResponse[DocumentView]:
    """The exact text that the run was made from, even if the stored plan has changed since."""
    return await pass_on(request, calls.GET_DOCUMENT, calls.RunRef(run=run))
