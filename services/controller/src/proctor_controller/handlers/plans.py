"""``run.submit``: a test plan, checked as a whole before anything is stored. No SQL."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.errors import Code, ProctorError, faults, invalid, not_found
from proctor_common.ids import GROUP_NAME, is_id, new_id
from proctor_common.messages.calls import Actor, PlanValidate, SubmitRun
from proctor_common.messages.views import PlanFaults, RunView
from proctor_controller.context import ProcessContext
from proctor_controller.db.placing import find_candidates, read_clock
from proctor_controller.db.plans import find_plan
from proctor_controller.db.session import Session, session
from proctor_controller.db.submissions import DuplicateRun
from proctor_controller.domain.parameters import Checked, check_parameters
from proctor_controller.domain.plan import BadPlan, Plan, PlanStep, read_plan
from proctor_controller.domain.schemas import Fault
from proctor_controller.domain.submission import EdgeSpec, RunSpec, StepSpec
from proctor_controller.domain.yaml_text import BadText, Document, check_value, read_text
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.submit import submit
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.cases import MAX_NAME, existing_run

STORED_PLAN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[0-9]+)?\Z")
MAX_FAULTS = 100
MAX_VERSION_DIGITS = 9


@dataclass(frozen=True)
class Schema:
    """The JSON Schema of a step's parameters."""

    of: Mapping[str, Any]


async def submit_run(context: ProcessContext, actor: Actor, body: SubmitRun) -> RunView:
    """A test plan as a run. The same run id again: the run as it stands."""
    engine = context.engine
    if not is_id(body.run):
        raise invalid("is not an id", path="run")
    group = _group(actor, body.group)
    async with session(engine.database) as db:
        text = await _text(db, actor, body.plan)
        # Reading may take a while for half a megabyte of YAML: other requests go on meanwhile.
        document, plan = await asyncio.to_thread(_read, text, body.parameters)
        checked = await _check_steps(db, document, plan, group)
        now = await read_clock(db)
        spec = _spec(engine.settings, body, plan, checked, group=group, by=actor.name)
        try:
            return await submit(engine, db, spec, now)
        except DuplicateRun:
            return await existing_run(db, actor, body.run)


def _group(actor: Actor, group: str | None) -> str | None:
    if group is not None and not GROUP_NAME.match(group):
        raise not_found("group", group[:MAX_NAME])
    if actor.groups is None:
        return group
    if group is None:
        if len(actor.groups) != 1:
            raise invalid("name one of your groups", path="group")
        return actor.groups[0]
    if group not in actor.groups:
        raise not_found("group", group)
    return group


def read_document(plan: Any) -> tuple[Document, Plan]:
    """The plan in a text or an object. Raises 422 with all faults, 413."""
    try:
        if isinstance(plan, str):
            document = read_text(plan)
        else:
            check_value(plan)
            document = Document(plan)
        return document, read_plan(document)
    except BadText as fault:
        if fault.fault["code"] == "too_large":
            raise ProctorError(Code.TOO_LARGE, f"the plan {fault}", limit=str(fault)) from None
        raise faults([fault.fault]) from None
    except BadPlan as fault:
        raise faults(fault.faults) from None


def _read(plan: Any, parameters: Mapping[str, Any]) -> tuple[Document, Plan]:
    document, read = read_document(plan)
    if parameters:
        raise faults(
            [
                {
                    "code": "unknown_member",
                    "message": "the plan has no such parameter",
                    "path": f"parameters.{name[:100]}",
                }
                | {"line": None, "column": None}
                for name in list(parameters)[:MAX_FAULTS]
            ]
        )
    return document, read


async def _text(db: Session, actor: Actor, plan: Any) -> Any:
    """The plan's text; of a stored one the text of its version."""
    if not isinstance(plan, str) or not STORED_PLAN.match(plan):
        return plan
    name, _, version = plan.partition("@")
    if len(version) > MAX_VERSION_DIGITS:
        raise not_found("plan", plan)
    stored = await find_plan(db, name, int(version) if version else None)
    if stored is None or not actor.sees(stored.group):
        raise not_found("plan", plan)
    return stored.document


async def validate_plan(context: ProcessContext, actor: Actor, body: PlanValidate) -> PlanFaults:
    """``plan.validate``: every fault; nothing starts."""
    group = _group(actor, body.group)
    try:
        async with session(context.engine.database) as db:
            text = await _text(db, actor, body.plan)
            document, plan = await asyncio.to_thread(_read, text, body.parameters or {})
            await _check_steps(db, document, plan, group)
    except ProctorError as fault:
        if fault.code is not Code.INVALID:
            raise
        return PlanFaults(errors=fault.details["errors"])
    return PlanFaults()


async def _check_steps(db: Session, document: Document, plan: Plan, group: str | None) -> dict[str, Checked]:
    """Every step's method and parameters against what agents publish. Raises 422 with all faults."""
    checked: dict[str, Checked] = {}
    wrong: list[Fault] = []
    schemas: dict[tuple[Any, ...], Schema | Fault] = {}
    for step in plan.steps:
        key = (step.place, step.plugin, step.method, step.target)
        if key not in schemas:
            schemas[key] = await _find_schema(db, step, group)
        schema = schemas[key]
        if not isinstance(schema, Schema):
            wrong.append({**schema, "path": f"steps.{step.name}.{schema['path']}"})
            continue
        found = check_parameters(schema.of, step.parameters, f"steps.{step.name}.with")
        wrong += found.faults
        checked[step.name] = found
    if wrong:
        raise faults([_placed(document, fault) for fault in wrong[:MAX_FAULTS]])
    return checked


async def _find_schema(db: Session, step: PlanStep, group: str | None) -> Schema | Fault:
    """The method's schema, or what is wrong with the step."""
    found = await find_candidates(
        db, step.place, step.plugin, step.method, group=group, target=step.target, with_spec=True
    )
    able = [each for each in found if each.candidate.has_method]
    if able and not any(each.has_target for each in able):
        return _fault("target", f"{step.place} has no target {step.target}", "not_found")
    for each in found:
        if each.spec is not None:
            return Schema(each.spec.parameters)
    if not found:
        return _fault("runs_on", f"there is no {step.place}", "not_found")
    if not any(each.candidate.has_plugin for each in found):
        return _fault("uses", f"{step.place} has no plugin {step.plugin}", "not_found")
    return _fault("uses", f"plugin {step.plugin} has no method {step.method}", "not_found")


def _fault(path: str, message: str, code: str) -> Fault:
    return {"code": code, "message": message, "path": path, "line": None, "column": None}


def _placed(document: Document, fault: Fault) -> Fault:
    """The fault with its place in the text: that of the nearest part that has one."""
    path = str(fault["path"])
    while path and path not in document.places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    line, column = document.places.get(path, (None, None))
    return {**fault, "line": line, "column": column}


def _spec(
    settings: EngineSettings, body: SubmitRun, plan: Plan, checked: Mapping[str, Checked], *, group: str | None, by: str
) -> RunSpec:
    steps = tuple(_step(step, checked[step.name]) for step in plan.steps)
    edges = tuple(
        EdgeSpec(source, step.name, condition) for step in plan.steps for source, condition in step.depends_on
    )
    work = sum((step.timeout_s + step.grace_s) * step.retry.attempts for step in plan.steps)
    return RunSpec(
        id=body.run,
        name=(body.name or plan.name)[:MAX_NAME],
        kind="plan",
        steps=steps,
        edges=edges,
        plan=plan.name,
        group=group,
        created_by=by,
        timeout_s=plan.run_timeout_s or settings.run_timeout(work),
    )


def _step(step: PlanStep, checked: Checked) -> StepSpec:
    return StepSpec(
        id=new_id(),
        node=step.name,
        name=step.name,
        plugin=step.plugin,
        method=step.method,
        place=step.place,
        parameters=checked.parameters,
        secrets=checked.secrets,
        env=step.env,
        target=step.target,
        timeout_s=step.timeout_s,
        grace_s=step.grace_s,
        retry=step.retry,
        idempotent=step.idempotent,
    )


HANDLERS: Mapping[str, CallHandler] = {"run.submit": submit_run, "plan.validate": validate_plan}
