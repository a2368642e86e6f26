"""``POST /v1/testcases``: one method, once, on one agent."""

from typing import Any

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, caller_of, context_of, needs, router
from proctor_api.routes.models import CaseRequest, seconds_of
from proctor_common.errors import invalid
from proctor_common.messages.calls.runs import SUBMIT_CASE, SubmitCase
from proctor_common.messages.views import RunView
from proctor_common.states import Role

routes = router("runs")

STARTED: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"description": "/v1/runs/{id}", "schema": {"type": "string"}}}}
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again within 24 hours get the first answer, and start nothing",
    "schema": {"type": "string", "maxLength": 255},
}


@routes.post(
    "/v1/testcases",
    status_code=202,
    responses=STARTED,
    summary="Run a test case",
    openapi_extra=needs(Role.RUNNER, parameters=[KEY]),
)
async def submit_case(request: Request, case: CaseRequest) -> ViewResponse[RunView]:
    """Start a run of one method. An unknown host, plugin, method or group is a 404 that names it, wrong parameters
    are a 422 that names all faults, and an agent that is lost or drained is a 409; nothing is started then.
    ``group`` alone says where it runs; beside ``host`` or ``labels`` it is the run's group. A token that is bound to
    several groups has to name one.
    """
    context, caller = context_of(request), caller_of(request)
    places = [name for name in ("host", "labels") if getattr(case, name) is not None]
    if len(places) > 1 or (not places and case.group is None):
        message = f"one of host, group, labels says where; given: {', '.join(places) or 'none'}"
        raise invalid(message, path="host", code="place")
    timeout = seconds_of(case.timeout, "timeout")

    async def begin(run: str) -> ViewResponse[RunView]:
        body = SubmitCase(
            run=run,
            plugin=case.plugin,
            method=case.method,
            host=case.host,
            group=case.group,
            labels=case.labels,
            target=case.target,
            parameters=case.parameters,
            timeout_s=timeout,
            name=case.name,
            record=None if case.record is None else case.record.model_dump(exclude_none=True),
        )
        view = await context.controllers.ask_encoded(SUBMIT_CASE, caller.actor, body)
        return ViewResponse(view, 202, {"Location": f"/v1/runs/{run}"})

    return await context.idempotency.start(request, caller, begin)
