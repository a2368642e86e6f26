"""``/v2.1/testplan``: test plans in the shapes of the legacy framework."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from proctor_api.context import ApiContext
from proctor_api.routes.guard import ViewResponse, caller_of, context_of, json_view, needs, router
from proctor_api.routes.legacy.testcases import number_of, renamed
from proctor_api.routes.repeated import plan_as_sent
from proctor_api.routes.testcases import KEY
from proctor_common import subjects
from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError, not_found
from proctor_common.messages.base import BadMessage, Encoded
from proctor_common.messages.calls.runs import (
    GET_DOCUMENT,
    GET_RUN,
    LIST_STEPS,
    SUBMIT_RUN,
    RunRef,
    StepList,
    SubmitRun,
)
from proctor_common.messages.log import decode_chunk
from proctor_common.messages.views import StepView
from proctor_common.states import Role, StepResult, StepState

routes = router("v2.1")

PAGE = 50
LOG_LIMIT = 64 * 1024
READ_AT_ONCE = 8
NAME = re.compile(r"^case-([0-9]{1,9})-step-([0-9]{1,9})\Z")
"""The controller's names of the steps of a legacy plan: number of the block, number of the child."""
DESCRIPTION = "DESCRIPTION"
MASK = "***"
SHOWN_FAULTS = 10
PASSED = frozenset({StepResult.PASSED, StepResult.REUSED})


class LegacyPlan(BaseModel):
    """A test plan of numbered blocks. Unknown members are ignored, as in the legacy framework."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "example": {
                "name": "two steps",
                "environment": {"Data": {"STA1": "local-1"}},
                "testplan": {
                    "1": {
                        "Serial-Step-1": {
                            "DESCRIPTION": "one after the other",
                            "1": {
                                "plugin": "linux_system",
                                "host": {"get_param": "Data:STA1"},
                                "method": "run_shell",
                                "parameters": {"command": "echo", "args": "hello"},
                            },
                        }
                    }
                },
            }
        },
    )

    name: str = Field(min_length=1, max_length=200)
    environment: dict[str, Any] | None = None
    testplan: dict[str, Any]


@routes.post(
    "/v2.1/testplan", status_code=202, summary="Run a test plan", openapi_extra=needs(Role.RUNNER, parameters=[KEY])
)
async def submit_legacy_plan(request: Request, plan: LegacyPlan) -> ViewResponse[dict[str, int]]:
    """Start a test plan. The answer is `{"TestPlan": n}`, with the number of the run. 422 with the first ten faults of
    the plan in `message`.
    """
    context, caller = context_of(request), caller_of(request)

    taken = {"name": plan.name, "environment": plan.environment or {}, "testplan": plan.testplan}
    document = await plan_as_sent(request, taken, None)

    async def begin(run: str) -> ViewResponse[dict[str, int]]:
        body = SubmitRun(run=run, plan=document)
        try:
            view = await context.controllers.ask(SUBMIT_RUN, caller.actor, body)
        except ProctorError as fault:
            raise _with_places(fault) from None
        return ViewResponse(Encoded(orjson.dumps({"TestPlan": view.number})), 202)

    return await context.idempotency.start(request, caller, begin)


def _with_places(fault: ProctorError) -> ProctorError:
    """The fault with its first SHOWN_FAULTS errors and their places in its message: these routes show only that."""
    errors = fault.details.get("errors") or []
    told = "; ".join(f"{each['path']}: {each['message']}".removeprefix(": ") for each in errors[:SHOWN_FAULTS])
    more = f" (and {len(errors) - SHOWN_FAULTS} more)" if len(errors) > SHOWN_FAULTS else ""
    return ProctorError(fault.code, f"{told}{more}" if told else fault.message, **fault.details)


@routes.get(
    "/v2.1/testplan/{number}",
    response_model=dict[str, Any],
    summary="Show a test plan",
    openapi_extra=needs(Role.VIEWER),
)
async def get_legacy_plan(request: Request, number: str) -> Response:
    """`{"TestCase : n": {"TestStep : k": {input, output}}}`. `output` is `{log, result}` with the result PASS or FAIL;
    it is `{}` until the step has ended.
    """
    context, actor = context_of(request), caller_of(request).actor
    ref = number_of(number, "testplan")
    try:
        run = await context.controllers.ask(GET_RUN, actor, RunRef(run=ref))
        if run.kind != "seed":
            raise not_found("testplan", number)
        document = await context.controllers.ask(GET_DOCUMENT, actor, RunRef(run=ref))
    except ProctorError as fault:
        raise renamed(fault, "testplan", number) from fault
    inputs = dict(inputs_of(document.document))
    cases: dict[int, dict[int, dict[str, Any]]] = {}
    cursor: str | None = None
    while True:
        page = await context.controllers.ask(LIST_STEPS, actor, StepList(run=ref, limit=PAGE, cursor=cursor))
        for (case, place), step, output in await _outputs(context, run.id, page.items):
            shown = {"input": _masked(inputs.get((case, place)) or _input(step), step), "output": output}
            cases.setdefault(case, {})[place] = shown
        cursor = page.next
        if cursor is None:
            break
    shown_cases = {
        f"TestCase : {case}": {f"TestStep : {place}": steps[place] for place in sorted(steps)}
        for case, steps in sorted(cases.items())
    }
    return json_view(orjson.dumps(shown_cases))


# -- what went in -----------------------------------------------------------------------------------------------------


def inputs_of(document: str | None) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Number of the block, number of the child, and the child's input with ``get_param`` resolved; nothing if the
    document is not JSON.
    """
    try:
        plan = orjson.loads(document or "null")
    except orjson.JSONDecodeError:
        return  # YAML: the step's own parameters are shown then
    if not isinstance(plan, dict):
        return
    environment = plan.get("environment")
    for name, block in (plan.get("testplan") or {}).items():
        if not (isinstance(block, dict) and name.isascii() and name.isdecimal()):
            continue
        place = 0
        for group in block.values():
            for key, child in group.items() if isinstance(group, dict) else ():
                if isinstance(child, dict) and key.upper() != DESCRIPTION:
                    place += 1
                    shown = {key: child.get(key) for key in ("plugin", "host", "method", "parameters")}
                    shown["parameters"] = shown["parameters"] or {}
                    yield (int(name), place), resolve(shown, environment)


def resolve(value: Any, environment: Any) -> Any:
    """The value with each ``{get_param: "A:B"}`` replaced from the environment; an unknown one is left as it is."""
    if isinstance(value, dict):
        path = value.get("get_param")
        if len(value) == 1 and isinstance(path, str):
            found = environment
            for part in path.split(":"):
                if not isinstance(found, Mapping) or part not in found:
                    return value
                found = found[part]
            return found
        return {key: resolve(member, environment) for key, member in value.items()}
    if isinstance(value, list):
        return [resolve(member, environment) for member in value]
    return value


def _masked(shown: dict[str, Any], step: StepView) -> dict[str, Any]:
    """The input with parameters masked that are secret by the method's schema."""
    parameters = shown["parameters"]
    hidden = [name for name, value in step.parameters.items() if value == MASK]
    if not hidden or not isinstance(parameters, dict):
        return shown
    return {**shown, "parameters": {**parameters, **{name: MASK for name in hidden if name in parameters}}}


def _input(step: StepView) -> dict[str, Any]:
    return {"plugin": step.plugin, "host": step.host, "method": step.method, "parameters": step.parameters}


# -- what came out ----------------------------------------------------------------------------------------------------


async def _outputs(
    context: ApiContext, run: str, steps: list[StepView]
) -> list[tuple[tuple[int, int], StepView, dict[str, Any]]]:
    room = asyncio.Semaphore(READ_AT_ONCE)

    async def of(step: StepView) -> dict[str, Any]:
        if step.state is not StepState.FINISHED:
            return {}
        async with room:
            log = await _log(context, run, step)
        return {"log": _with_error(log, step), "result": "PASS" if step.result in PASSED else "FAIL"}

    known = [(found, step) for step in steps if (found := NAME.match(step.step))]
    outputs = await asyncio.gather(*(of(step) for _, step in known))
    return [
        ((int(found[1]), int(found[2])), step, output) for (found, step), output in zip(known, outputs, strict=True)
    ]


async def _log(context: ApiContext, run: str, step: StepView) -> str:
    """The step's log; if over LOG_LIMIT bytes, the end of its standard output; if empty, why the step ended.

    Raises ProctorError if NATS does not answer.
    """
    stdout = step.output.get("stdout")
    if isinstance(stdout, str) and stdout and (step.log_bytes or 0) > LOG_LIMIT:
        return _last(stdout)
    data = b""
    if step.agent is not None and step.log_bytes:
        try:
            stored = await context.bus.direct_get(
                subjects.LOG_STREAM,
                subject_filter=subjects.log(step.agent, run, step.id, step.attempt),
                batch=1000,
                max_bytes=2 * LOG_LIMIT,
            )
            chunks = {chunk.seq: chunk.data for chunk in (decode_chunk(each.data) for each in stored)}
            data = b"".join(chunks[seq] for seq in sorted(chunks))[:LOG_LIMIT]
        except BusError as fault:
            raise ProctorError(
                Code.BUS_UNAVAILABLE, "the log cannot be read just now; try again in a moment"
            ) from fault
        except BadMessage:
            data = b""
    if data:
        return data.decode("utf-8", "replace")
    if isinstance(stdout, str) and stdout:
        return _last(stdout)
    # "passed" would only repeat the result.
    how = "" if step.result in PASSED or step.result is None else step.result.value
    return str((step.error or {}).get("message") or step.reason or how)


def _with_error(log: str, step: StepView) -> str:
    """The log followed by the method's error message, which these routes show nowhere else."""
    said = str((step.error or {}).get("message") or "")
    if not said or said in log:
        return log
    room = LOG_LIMIT - len(said.encode("utf-8", "replace")) - 2
    kept = log.encode("utf-8", "replace")[: max(0, room)].decode("utf-8", "ignore").removesuffix("\n")
    return _last(f"{kept}\n{said}\n")


def _last(text: str) -> str:
    return text.encode("utf-8", "replace")[-LOG_LIMIT:].decode("utf-8", "ignore")
