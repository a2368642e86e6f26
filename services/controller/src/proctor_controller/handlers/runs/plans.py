"""``run.submit``, ``plan.validate``, ``plan.schema``: a test plan is checked as a whole before it is stored. No SQL."""

import json
from functools import cache

from proctor_common.errors import invalid, not_found
from proctor_common.ids import GROUP_NAME, is_id
from proctor_common.messages.base import Encoded, JsonObject
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.plans import PlanSchema, PlanValidate
from proctor_common.messages.calls.runs import SubmitRun
from proctor_common.messages.views import PlanFaults, RunView
from proctor_controller.context import ProcessContext
from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.runs.submissions import DuplicateRun
from proctor_controller.db.session import session
from proctor_controller.domain.plan.schema import plan_schema
from proctor_controller.engine.submission.planning import PlanningRequest, find_faults, prepare_run
from proctor_controller.handlers.access import existing_run, groups_of, run_group


async def submit_run(context: ProcessContext, actor: Actor, body: SubmitRun) -> RunView:
    """Start a test plan as a run. The same run id again returns the run."""
    engine = context.engine
    if not is_id(body.run):
        raise invalid("is not an id", path="run")
    request = PlanningRequest(
        run=body.run,
        plan=body.plan,
        parameters=body.parameters,
        group=_group(actor, body.group),
        groups=groups_of(actor),
        created_by=actor.name,
        name=body.name,
    )
    async with session(engine.database) as db:
        try:
            spec = await prepare_run(engine.services, db, request)
            return await engine.submissions.submit(db, spec, await read_clock(db))
        except DuplicateRun:
            return await existing_run(db, actor, body.run)


async def validate_plan(context: ProcessContext, actor: Actor, body: PlanValidate) -> PlanFaults:
    """``plan.validate``: every fault; nothing starts."""
    request = PlanningRequest(
        run="",
        plan=body.plan,
        parameters=body.parameters or {},
        group=_group(actor, body.group),
        groups=groups_of(actor),
    )
    async with session(context.engine.database) as db:
        found = await find_faults(context.engine.services, db, request, complete=body.parameters is not None)
    return PlanFaults(errors=[dict(each) for each in found])


async def show_schema(context: ProcessContext, actor: Actor, body: PlanSchema) -> Encoded[JsonObject]:
    """``plan.schema``: the JSON Schema of plans, for editors."""
    return Encoded(_schema())


@cache
def _schema() -> bytes:
    return json.dumps(plan_schema(), indent=2, ensure_ascii=False).encode()


def _group(actor: Actor, group: str | None) -> str | None:
    if group is not None and not GROUP_NAME.match(group):
        raise not_found("group", group[:200])
    return run_group(actor, group)
