"""Runs: starting them from a plan, what became of them and of their steps, and the verbs that act on them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Query, Request, Response
from pydantic import ConfigDict, Field

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import After, Body, EventsPage, GroupName, Limit, RunPage, RunRef, RunRequest, StepPage
from proctor_api.routes.repeated import plan_as_sent
from proctor_api.routes.testcases import KEY, STARTED
from proctor_common.messages import calls
from proctor_common.messages.views import DocumentView, RunView
from proctor_common.states import Role, RunResult, RunState

routes = router()

StepName = Annotated[str, Path(description="The step's name, with its instance, or its id", max_length=300)]


class AgainRequest(Body):
    """What to run again."""

    model_config = ConfigDict(json_schema_extra={"example": {"failed_only": True}})

    failed_only: bool = Field(default=False, description="Steps that passed keep their outputs and are not run again")


ALL_STEPS = AgainRequest()


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
    plan = await plan_as_sent(request, run.plan)

    async def begin(new: str) -> Response:
        body = calls.SubmitRun(run=new, plan=plan, parameters=run.parameters, group=run.group, name=run.name)
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
    request: Request,
    run: RunRef,
    after: Annotated[int, Query(ge=0, le=2**53, description="Behind this `seq`")] = 0,
    limit: Limit = 1000,
    cursor: Annotated[int | None, Query(ge=0, le=2**53, description="`next` of the page before")] = None,
) -> Response:
    """State changes, oldest first."""
    body = calls.EventList(run=run, after=after if cursor is None else cursor, limit=limit)
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


@routes.post(
    "/v1/runs/{run}/pause",
    status_code=202,
    response_model=RunView,
    tags=["runs"],
    summary="Pause a run",
    openapi_extra=needs(Role.RUNNER),
)
async def pause_run(request: Request, run: RunRef) -> Response:
    """Nothing new is started; what runs goes on to its end, and hosts stay with the run. Its clock does not stop.
    Of no effect on a run that is paused. Where the run's state makes it impossible: 409.
    """
    return await _of_run(request, "run.pause", run, 202)


@routes.post(
    "/v1/runs/{run}/resume",
    status_code=202,
    response_model=RunView,
    tags=["runs"],
    summary="Let a paused run go on",
    openapi_extra=needs(Role.RUNNER),
)
async def resume_run(request: Request, run: RunRef) -> Response:
    """Of no effect on a run that is not paused. Where the run's state makes it impossible: 409."""
    return await _of_run(request, "run.resume", run, 202)


@routes.post(
    "/v1/runs/{run}/rerun",
    status_code=202,
    response_model=RunView,
    responses=STARTED,
    tags=["runs"],
    summary="Run it again",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def rerun_run(request: Request, run: RunRef, wanted: AgainRequest = ALL_STEPS) -> Response:
    """A new run of the same document and parameters, with `rerun_of`. A run that has not finished: 409."""
    context, caller = context_of(request), caller_of(request)

    async def begin(new: str) -> Response:
        body = calls.RunAgain(run=run, new_run=new, failed_only=wanted.failed_only)
        view = await context.controllers.ask("run.rerun", caller.actor, body)
        return json_view(view, 202, {"Location": f"/v1/runs/{new}"})

    return await context.idempotency.start(request, caller, begin)


@routes.post(
    "/v1/runs/{run}/steps/{step}/approve",
    status_code=202,
    response_model=RunView,
    tags=["runs"],
    summary="Open a gate",
    openapi_extra=needs(Role.RUNNER),
)
async def approve_step(request: Request, run: RunRef, step: StepName) -> Response:
    """For the roles that the gate names. Again: of no effect; a gate that was refused or timed out: 409."""
    return await _of_gate(request, "run.approve", run, step)


@routes.post(
    "/v1/runs/{run}/steps/{step}/reject",
    status_code=202,
    response_model=RunView,
    tags=["runs"],
    summary="Keep a gate shut",
    openapi_extra=needs(Role.RUNNER),
)
async def reject_step(request: Request, run: RunRef, step: StepName) -> Response:
    """The gate fails, and with it what depends on it. Again: of no effect; a gate that was opened: 409."""
    return await _of_gate(request, "run.reject", run, step)


@routes.get(
    "/v1/runs/{run}/document",
    response_model=DocumentView,
    tags=["runs"],
    summary="The plan that a run was made from",
    openapi_extra=needs(Role.VIEWER),
)
async def get_document(request: Request, run: RunRef) -> Response:
    """The exact text, whatever became of a stored plan since; null for a test case."""
    return await _of_run(request, "run.document", run)


async def _of_gate(request: Request, op: str, run: str, step: str) -> Response:
    body = calls.StepRef(run=run, step=step)
    return json_view(await context_of(request).controllers.ask(op, caller_of(request).actor, body), 202)


async def _of_run(request: Request, op: str, run: str, status: int = 200) -> Response:
    view = await context_of(request).controllers.ask(op, caller_of(request).actor, calls.RunRef(run=run))
    return json_view(view, status)
