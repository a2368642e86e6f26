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
    "description": "1 to 255 printable characters. The same key and body again within 24 hours get the first answer "
    "and start nothing. The same key with another body is a 422; while the first request still runs, a 409",
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
    """Start a run of one method of a plugin on one agent. Give one of `host`, `labels` and `group` to say where.
    `group` beside `host` or `labels` is the group that the run belongs to; a token that is bound to several groups must
    name one. 404 for an unknown host, plugin, method, target or group; 409 if the agent is lost or draining; 422 with
    all faults of the parameters. Nothing is started in these cases.
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
