"""Runs: starting them from a plan, what became of them and of their steps, and the verbs that act on them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Query, Request
from pydantic import ConfigDict, Field

from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, pass_on, router
from proctor_api.routes.models import After, Body, GroupName, Limit, RunRef, RunRequest
from proctor_api.routes.repeated import plan_as_sent
from proctor_api.routes.testcases import KEY, STARTED
from proctor_common.messages.calls import runs as calls
from proctor_common.messages.pages import EventsPage, RunPage, StepPage
from proctor_common.messages.views import DocumentView, RunView
from proctor_common.states import Role, RunResult, RunState

routes = router("runs")

StepName = Annotated[str, Path(description="The step's name, with its instance, or its id", max_length=300)]


class AgainRequest(Body):
    """What to run again."""

    model_config = ConfigDict(json_schema_extra={"example": {"failed_only": True}})

    failed_only: bool = Field(default=False, description="Steps that passed keep their outputs and are not run again")


ALL_STEPS = AgainRequest()


@routes.post(
    "/v1/runs",
    status_code=202,
    responses=STARTED,
    summary="Run a test plan",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def submit_run(request: Request, run: RunRequest) -> ViewResponse[RunView]:
    """Start a run of a plan. Faults of the plan are a 422 with all of them at once, each with line and column."""
    context, caller = context_of(request), caller_of(request)
    plan = await plan_as_sent(request, run.plan)

    async def begin(new: str) -> ViewResponse[RunView]:
        body = calls.SubmitRun(run=new, plan=plan, parameters=run.parameters, group=run.group, name=run.name)
        view = await context.controllers.ask_encoded(calls.SUBMIT_RUN, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.get("/v1/runs", summary="Runs", openapi_extra=needs(Role.VIEWER))
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
) -> ViewResponse[RunPage]:
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
    return await pass_on(request, calls.LIST_RUNS, body)


@routes.get("/v1/runs/{run}", summary="A run", openapi_extra=needs(Role.VIEWER))
async def get_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """One run by its id or number."""
    return await pass_on(request, calls.GET_RUN, calls.RunRef(run=run))


@routes.get("/v1/runs/{run}/steps", summary="A run's steps", openapi_extra=needs(Role.VIEWER))
async def list_steps(
    request: Request,
    run: RunRef,
    attempts: Annotated[Literal["all", "last"], Query(description="Every attempt, or each step's last")] = "last",
    limit: Limit = 100,
    cursor: After = None,
) -> ViewResponse[StepPage]:
    """A row a step instance, its last attempt; with `attempts=all` a row an attempt."""
    body = calls.StepList(run=run, attempts=attempts == "all", limit=limit, cursor=cursor)
    return await pass_on(request, calls.LIST_STEPS, body)


@routes.get("/v1/runs/{run}/events", summary="A run's state changes", openapi_extra=needs(Role.VIEWER))
async def list_events(
    request: Request,
    run: RunRef,
    after: Annotated[int, Query(ge=0, le=2**53, description="Behind this `seq`")] = 0,
    limit: Limit = 1000,
    cursor: Annotated[int | None, Query(ge=0, le=2**53, description="`next` of the page before")] = None,
) -> ViewResponse[EventsPage]:
    """State changes, oldest first."""
    body = calls.EventList(run=run, after=after if cursor is None else cursor, limit=limit)
    return await pass_on(request, calls.LIST_EVENTS, body)


@routes.post("/v1/runs/{run}/cancel", status_code=202, summary="Cancel a run", openapi_extra=needs(Role.RUNNER))
async def cancel_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Ask for the end of a run: what runs is killed with its process tree, and cleanup follows. Of no effect on a
    run that has finished.
    """
    return await pass_on(request, calls.CANCEL_RUN, calls.RunRef(run=run), 202)


@routes.post("/v1/runs/{run}/pause", status_code=202, summary="Pause a run", openapi_extra=needs(Role.RUNNER))
async def pause_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Nothing new is started; what runs goes on to its end, and hosts stay with the run. Its clock does not stop.
    Of no effect on a run that is paused. Where the run's state makes it impossible: 409.
    """
    return await pass_on(request, calls.PAUSE_RUN, calls.RunRef(run=run), 202)


@routes.post(
    "/v1/runs/{run}/resume", status_code=202, summary="Let a paused run go on", openapi_extra=needs(Role.RUNNER)
)
async def resume_run(request: Request, run: RunRef) -> ViewResponse[RunView]:
    """Of no effect on a run that is not paused. Where the run's state makes it impossible: 409."""
    return await pass_on(request, calls.RESUME_RUN, calls.RunRef(run=run), 202)


@routes.post(
    "/v1/runs/{run}/rerun",
    status_code=202,
    responses=STARTED,
    summary="Run it again",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def rerun_run(request: Request, run: RunRef, wanted: AgainRequest = ALL_STEPS) -> ViewResponse[RunView]:
    """A new run of the same document and parameters, with `rerun_of`. A run that has not finished: 409."""
    context, caller = context_of(request), caller_of(request)

    async def begin(new: str) -> ViewResponse[RunView]:
        body = calls.RunAgain(run=run, new_run=new, failed_only=wanted.failed_only)
        view = await context.controllers.ask_encoded(calls.RERUN, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.post(
    "/v1/runs/{run}/steps/{step}/approve", status_code=202, summary="Open a gate", openapi_extra=needs(Role.RUNNER)
)
async def approve_step(request: Request, run: RunRef, step: StepName) -> ViewResponse[RunView]:
    """For the roles that the gate names. Again: of no effect; a gate that was refused or timed out: 409."""
    return await pass_on(request, calls.APPROVE_STEP, calls.StepRef(run=run, step=step), 202)


@routes.post(
    "/v1/runs/{run}/steps/{step}/reject", status_code=202, summary="Keep a gate shut", openapi_extra=needs(Role.RUNNER)
)
async def reject_step(request: Request, run: RunRef, step: StepName) -> ViewResponse[RunView]:
    """The gate fails, and with it what depends on it. Again: of no effect; a gate that was opened: 409."""
    return await pass_on(request, calls.REJECT_STEP, calls.StepRef(run=run, step=step), 202)


@routes.get("/v1/runs/{run}/document", summary="The plan that a run was made from", openapi_extra=needs(Role.VIEWER))
async def get_document(request: Request, run: RunRef) -> ViewResponse[DocumentView]:
    """The exact text, whatever became of a stored plan since; null for a test case."""
    return await pass_on(request, calls.GET_DOCUMENT, calls.RunRef(run=run))
