"""Makes a run of a plan's text, ready to be stored, or lists all its faults."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_common.errors import Code, Fault, ProctorError, fault, faults, not_found
from proctor_common.ids import new_id
from proctor_controller.db.plans import StoredPlan, find_plan, load_origin
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.tree import MAX_BYTES, BadText, Document, check_value
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill_text
from proctor_controller.domain.plan import Plan
from proctor_controller.domain.plan.calls import CheckedCall
from proctor_controller.domain.plan.compile import Birth, compile_run, find_explosion
from proctor_controller.domain.plan.entry import Reading, examine
from proctor_controller.domain.plan.masking import mask_text
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.step import StepKind
from proctor_controller.domain.runs.submission import RunSpec
from proctor_controller.engine.services import EngineServices
from proctor_controller.engine.submission.checking import Checked, Checking
from proctor_controller.engine.submission.nesting import Nesting

STORED_PLAN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[0-9]+)?\Z")
MAX_NAME = 200
DOCUMENT = "~document"
"""In a run's sealed values: its exact document, if hidden texts are masked in the shown one."""
SECRETS = "~secrets"
"""In a run's sealed values: secrets written in the document, by the name under which its templates read them."""
WEBHOOK_SECRET = "webhook_secret"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class PlanningRequest:
    """A run to be planned."""

    run: str
    plan: Any
    """Text, an object, or a stored plan's name."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    groups: tuple[str | None, ...] | None = None
    """Groups whose stored plans may be read; None: all."""
    created_by: str = ""
    name: str | None = None
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    rerun_of: str | None = None
    deleted: bool = False
    """A stored plan that was deleted since may be used."""
    stored: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A plan as it came. ``stored``: name and version, if it is a stored one."""

    plan: Any
    stored: tuple[str, int] | None = None

    @property
    def document(self) -> str:
        """The exact text."""
        return self.plan if isinstance(self.plan, str) else json.dumps(self.plan, ensure_ascii=False)


async def prepare_run(services: EngineServices, db: Session, request: PlanningRequest) -> RunSpec:
    """The run, ready to be stored. Raises 404 for an unknown stored plan, 413, 422 with all faults."""
    text = await find_text(db, request)
    reading = await asyncio.to_thread(read_document, text.plan, request.parameters)
    checked = await _check(services, db, reading, text, request)
    if wrong := reading.all(checked.faults):
        raise faults(wrong)
    plan, calls = reading.plan, checked.calls
    birth = Birth(
        run=request.run,
        name=(request.name or plan.name)[:MAX_NAME],
        document=await asyncio.to_thread(_shown, text, reading, calls),
        default_timeout_s=services.settings.run_timeout,
        group=request.group,
        created_by=request.created_by,
        plan=text.stored[0] if text.stored else plan.name[:MAX_NAME],
        plan_version=text.stored[1] if text.stored else None,
        hidden=await _hidden(services, text, plan, calls, request.group),
        parent=request.parent,
        parent_step=request.parent_step,
        depth=request.depth,
        rerun_of=request.rerun_of,
    )
    return await asyncio.to_thread(compile_run, plan, calls, checked.children, birth, new_id)


async def request_again(
    services: EngineServices, db: Session, run: str, new_run: str, by: str
) -> PlanningRequest | None:
    """The request that repeats a run, with its exact document and parameters; None for a test case."""
    origin = await load_origin(db, run)
    if origin is None:
        return None
    opened = services.seal.open(origin.sealed, run) if origin.sealed is not None else {}
    values = {name: opened.get(name, value) for name, value in origin.parameters.items()}
    return PlanningRequest(
        run=new_run,
        plan=opened.get(DOCUMENT, origin.document),
        # A null comes from a default and cannot be given.
        parameters={name: value for name, value in values.items() if value is not None},
        group=origin.group,
        created_by=by,
        name=origin.name,
        rerun_of=run,
        stored=None if origin.version is None else (origin.plan, origin.version),
    )


async def find_faults(
    services: EngineServices, db: Session, request: PlanningRequest, *, complete: bool = True
) -> list[Fault]:
    """All faults of a plan; ``complete``: parameters without a value count too. Raises 404."""
    text = await find_text(db, request)
    try:
        given = request.parameters if complete else None
        reading = await asyncio.to_thread(read_document, text.plan, given)
    except ProctorError as refused:
        return list(refused.details["errors"])
    return reading.all((await _check(services, db, reading, text, request)).faults)


async def find_text(db: Session, request: PlanningRequest) -> Text:
    """The plan's text; for a stored plan that of its version. Raises 404."""
    plan = request.plan
    if not isinstance(plan, str) or not STORED_PLAN.match(plan):
        return Text(plan, request.stored)
    stored = await find_stored(db, plan, None if request.deleted else request.groups, deleted=request.deleted)
    if stored is None:
        raise not_found("plan", plan)
    return Text(stored.document, (stored.name, stored.version))


async def find_stored(
    db: Session, reference: str, groups: tuple[str | None, ...] | None, *, deleted: bool = False
) -> StoredPlan | None:
    """The stored plan of a ``name`` or ``name@version``, if it may be read; else None."""
    name, _, version = reference.partition("@")
    if len(version) > 9:
        return None
    stored = await find_plan(db, name, int(version) if version else None, deleted=deleted)
    if stored is None or (groups is not None and stored.group not in groups):
        return None
    return stored


def read_document(plan: Any, given: Mapping[str, Any] | None = None) -> Reading:
    """The plan in a text or an object, with its faults. ``given``: as for ``read_plan``.

    Raises 422 or 413 if it cannot be read to its end.
    """
    try:
        if isinstance(plan, str):
            document = read_text(plan)
        else:
            check_value(plan)
            document = Document(plan)
    except BadText as bad:
        if bad.fault["code"] == "too_large":
            said = f"the plan {bad}"
            raise ProctorError(Code.TOO_LARGE, said, limit=MAX_BYTES, errors=[{**bad.fault, "message": said}]) from None
        raise faults([bad.fault]) from None
    return examine(document, given)


async def check_stored(db: Session, name: str, plan: Any, groups: tuple[str, ...] | None) -> None:
    """Check that a plan may be stored under this name: its language, and that it does not nest itself. Agents and other
    plans are checked when it runs. Raises 422 with all faults, 413.
    """
    reading = await asyncio.to_thread(read_document, plan)
    read = reading.plan
    wrong: list[Fault] = reading.new(find_explosion(read))
    if read.secret_texts:
        why = "a stored plan is for all to read: name a secret here, or take it as a hidden parameter"
        where = "webhook.secret" if read.webhook_secret else "parameters"
        wrong.append(fault("invalid", f"holds a hidden value: {why}", where))
    nesting = Nesting(db, groups, name, 0)
    for step in read.steps:
        if step.kind is StepKind.PLAN:
            wrong += reading.new(await nesting.check_circle(step), step.path)
    if wrong := reading.all(wrong):
        raise faults(wrong)


async def _check(
    services: EngineServices, db: Session, reading: Reading, text: Text, request: PlanningRequest
) -> Checked:
    nesting = Nesting(db, request.groups, text.stored[0] if text.stored else None, request.depth)
    return await Checking(services.scopes, db, nesting, request.group).check(reading)


def _shown(text: Text, reading: Reading, calls: Mapping[Path, CheckedCall]) -> str:
    return mask_text(text.document, reading.document.value, _texts(reading.plan, calls))


def _texts(plan: Plan, calls: Mapping[Path, CheckedCall]) -> list[str]:
    """Hidden texts that are written in the document."""
    return list(dict.fromkeys([*plan.secret_texts, *(text for call in calls.values() for text in call.texts)]))


async def _hidden(
    services: EngineServices, text: Text, plan: Plan, calls: Mapping[Path, CheckedCall], group: str | None
) -> dict[str, Any]:
    """The run's sealed values: hidden parameters by their names, and the entries above."""
    hidden: dict[str, Any] = {name: plan.values[name] for name in plan.hidden if name in plan.values}
    kept = {name: value for call in calls.values() for name, value in call.kept.items()}
    if kept:
        hidden[SECRETS] = kept
    if _texts(plan, calls):
        hidden[DOCUMENT] = text.document
    if plan.webhook_secret is not None:
        hidden[WEBHOOK_SECRET] = await _webhook_secret(services, plan, group)
    return hidden


async def _webhook_secret(services: EngineServices, plan: Plan, group: str | None) -> str:
    path = dotted(["webhook", "secret"])
    try:
        secrets = {name: await services.scopes.secret(ref, group) for name, ref in plan.secrets.items()}
        return fill_text(plan.webhook_secret or "", {"params": plan.values, "secrets": secrets})
    except (RenderFault, ExpressionFault) as wrong:
        raise faults([fault("invalid", str(wrong), path)]) from None
