"""From a plan's text to a run that may be stored: everything checked against the agents and stored plans there are."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proctor_common.errors import Code, ProctorError, faults, not_found
from proctor_common.ids import new_id
from proctor_controller.db.plans import StoredPlan, find_plan, load_origin
from proctor_controller.db.session import Session
from proctor_controller.domain.expressions import ExpressionFault, fill_text
from proctor_controller.domain.legacy_plan import KIND as LEGACY
from proctor_controller.domain.legacy_plan import is_legacy, read_legacy
from proctor_controller.domain.plan import BadPlan, Plan, read_plan
from proctor_controller.domain.plan.calls import Call, check_call
from proctor_controller.domain.plan.compile import Birth, compile_run, find_explosion
from proctor_controller.domain.plan.masking import mask_text
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.rendering import RenderFault
from proctor_controller.domain.schemas import Fault, dotted, fault
from proctor_controller.domain.step import Kind
from proctor_controller.domain.submission import RunSpec
from proctor_controller.domain.yaml_text import BadText, Document, check_value, read_text
from proctor_controller.engine.methods import Methods
from proctor_controller.engine.nesting import Nesting

if TYPE_CHECKING:
    from proctor_controller.engine.engine import Engine

STORED_PLAN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[0-9]+)?\Z")
MAX_FAULTS = 100
MAX_NAME = 200
DOCUMENT = "~document"
"""In a run's sealed values: its exact document, where hidden texts are masked in the one that is shown."""
SECRETS = "~secrets"
"""In a run's sealed values: secrets that stand in the document itself, by the name its templates read them under."""
WEBHOOK_SECRET = "webhook_secret"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class Request:
    """A run to be planned. ``plan``: text, an object, or a stored plan's name; ``groups``: whose stored plans may be
    read, None: all · ``deleted``: the plan was read before, it is good enough whatever became of it since.
    """

    run: str
    plan: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    groups: tuple[str | None, ...] | None = None
    created_by: str = ""
    name: str | None = None
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    rerun_of: str | None = None
    deleted: bool = False
    stored: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A plan as it came. ``stored``: name and version, where it is a stored one."""

    plan: Any
    stored: tuple[str, int] | None = None

    @property
    def document(self) -> str:
        """The exact text."""
        return self.plan if isinstance(self.plan, str) else json.dumps(self.plan, ensure_ascii=False)


async def plan_run(engine: "Engine", db: Session, request: Request) -> RunSpec:
    """The run, ready to be stored. Raises 404 for an unknown stored plan, 413, 422 with all faults."""
    text = await find_text(db, request)
    document, plan = await asyncio.to_thread(read_document, text.plan, request.parameters)
    calls, children, wrong = await _check(engine, db, plan, text, request)
    if wrong:
        raise faults(in_order(document, wrong))
    birth = Birth(
        run=request.run,
        name=(request.name or plan.name)[:MAX_NAME],
        document=await asyncio.to_thread(_shown, text, document, plan, calls),
        default_timeout_s=engine.settings.run_timeout,
        group=request.group,
        created_by=request.created_by,
        plan=text.stored[0] if text.stored else plan.name[:MAX_NAME],
        plan_version=text.stored[1] if text.stored else None,
        hidden=await _hidden(engine, text, plan, calls),
        parent=request.parent,
        parent_step=request.parent_step,
        depth=request.depth,
        rerun_of=request.rerun_of,
    )
    return await asyncio.to_thread(compile_run, plan, calls, children, birth, new_id)


async def request_again(engine: "Engine", db: Session, run: str, new_run: str, by: str) -> Request | None:
    """The request that makes a run anew, of its exact document and parameters; None for a test case."""
    origin = await load_origin(db, run)
    if origin is None:
        return None
    opened = engine.seal.open(origin.sealed, run) if origin.sealed is not None else {}
    values = {name: opened.get(name, value) for name, value in origin.parameters.items()}
    return Request(
        run=new_run,
        plan=opened.get(DOCUMENT, origin.document),
        # A null is a default: it cannot be given.
        parameters={name: value for name, value in values.items() if value is not None},
        group=origin.group,
        created_by=by,
        name=origin.name,
        rerun_of=run,
        stored=None if origin.version is None else (origin.plan, origin.version),
    )


async def find_faults(engine: "Engine", db: Session, request: Request, *, complete: bool = True) -> list[Fault]:
    """All that is wrong with a plan; ``complete``: parameters that have no value are, too. Raises 404, 413."""
    text = await find_text(db, request)
    try:
        given = request.parameters if complete else None
        document, plan = await asyncio.to_thread(read_document, text.plan, given)
    except ProctorError as refused:
        if refused.code is not Code.INVALID:
            raise
        return list(refused.details["errors"])
    _, _, wrong = await _check(engine, db, plan, text, request)
    return in_order(document, wrong)


async def find_text(db: Session, request: Request) -> Text:
    """The plan's text; of a stored one the text of its version. Raises 404."""
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
    """The stored plan of a ``name`` or ``name@version``, where it may be read."""
    name, _, version = reference.partition("@")
    if len(version) > 9:
        return None
    stored = await find_plan(db, name, int(version) if version else None, deleted=deleted)
    if stored is None or (groups is not None and stored.group not in groups):
        return None
    return stored


def read_document(plan: Any, given: Mapping[str, Any] | None = None) -> tuple[Document, Plan]:
    """The plan in a text or an object. ``given`` as of ``read_plan``. Raises 422 with all faults, 413."""
    try:
        if isinstance(plan, str):
            document = read_text(plan)
        else:
            check_value(plan)
            document = Document(plan)
        if is_legacy(document.value):
            return document, read_legacy(document, given)
        return document, read_plan(document, given)
    except BadText as bad:
        if bad.fault["code"] == "too_large":
            raise ProctorError(Code.TOO_LARGE, f"the plan {bad}", limit=str(bad)) from None
        raise faults([bad.fault]) from None
    except BadPlan as bad:
        raise faults(bad.faults) from None


async def check_stored(db: Session, name: str, plan: Any, groups: tuple[str, ...] | None) -> None:
    """Whether a plan may be stored under this name: its language, and that it does not nest itself. What agents and
    other plans there are is for its runs. Raises 422 with all faults, 413.
    """
    document, read = await asyncio.to_thread(read_document, plan)
    wrong: list[Fault] = find_explosion(read)
    if read.secret_texts:
        message = "a stored plan is for all to read: name a secret here, or take it as a hidden parameter"
        wrong.append(
            fault(f"holds a hidden value: {message}", "webhook.secret" if read.webhook_secret else "parameters")
        )
    nesting = Nesting(db, groups, name, 0)
    for step in read.steps:
        if step.kind is Kind.PLAN:
            wrong += await nesting.check_circle(step)
    if wrong:
        raise faults(in_order(document, wrong))


def in_order(document: Document, wrong: list[Fault]) -> list[Fault]:
    """The first of the faults by their places in the text."""
    found = [placed(document, each) for each in wrong]
    return sorted(found, key=lambda each: (each["line"] or 0, each["column"] or 0))[:MAX_FAULTS]


def placed(document: Document, wrong: Fault) -> Fault:
    """The fault with its place in the text: that of the nearest part that has one."""
    path = str(wrong["path"])
    while path and path not in document.places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    line, column = document.places.get(path, (None, None))
    return {**wrong, "line": line, "column": column}


async def _check(
    engine: "Engine", db: Session, plan: Plan, text: Text, request: Request
) -> tuple[dict[Path, Call], dict[Path, str], list[Fault]]:
    """Every call against what agents publish, every nested plan against what is stored."""
    wrong = find_explosion(plan)
    if wrong:
        return {}, {}, wrong
    for name, reference in plan.secrets.items():
        try:
            await engine.scopes.secret(reference)
        except RenderFault as none:
            wrong.append(fault(str(none), f"secrets.{name}", "not_found"))
    methods = Methods(db, plan, request.group)
    schemas: dict[Path, Mapping[str, Any]] = {}
    for step in plan.calls():
        if step.kind is Kind.METHOD:
            schema = await methods.find(step)
            if isinstance(schema, Mapping):
                schemas[step.path] = schema
            else:
                wrong += schema
    # Half a megabyte of templates takes a while: other requests go on meanwhile.
    calls = await asyncio.to_thread(_check_calls, plan, schemas)
    nesting = Nesting(db, request.groups, text.stored[0] if text.stored else None, request.depth)
    children: dict[Path, str] = {}
    for step in plan.steps:
        if step.kind is Kind.PLAN:
            literals = sum(len(call.kept) for call in calls.values())
            children[step.path], calls[step.path] = await nesting.check(step, plan.hidden, literal_from=literals)
    wrong += [each for call in calls.values() for each in call.faults]
    if plan.kind == LEGACY:
        wrong = [_in_legacy_words(each) for each in wrong]
    return calls, children, wrong


def _check_calls(plan: Plan, schemas: Mapping[Path, Mapping[str, Any]]) -> dict[Path, Call]:
    calls: dict[Path, Call] = {}
    literals = 0
    for step in plan.calls():
        if step.path in schemas:
            call = check_call(step, schemas[step.path], plan.hidden, literal_from=literals)
            literals += len(call.kept)
            calls[step.path] = call
    return calls


def _in_legacy_words(wrong: Fault) -> Fault:
    """The fault with the names that the seed's plans have for the same members."""
    path = str(wrong["path"])
    for ours, theirs in ((".with", ".parameters"), (".runs_on", ".host"), (".uses", ".method")):
        head, found, tail = path.rpartition(ours)
        if found and (not tail or tail[0] in ".["):
            return {**wrong, "path": f"{head}{theirs}{tail}"}
    return wrong


def _shown(text: Text, document: Document, plan: Plan, calls: Mapping[Path, Call]) -> str:
    return mask_text(text.document, document.value, _texts(plan, calls))


def _texts(plan: Plan, calls: Mapping[Path, Call]) -> list[str]:
    """Hidden texts that stand in the document."""
    return list(dict.fromkeys([*plan.secret_texts, *(text for call in calls.values() for text in call.texts)]))


async def _hidden(engine: "Engine", text: Text, plan: Plan, calls: Mapping[Path, Call]) -> dict[str, Any]:
    """What is sealed with the run: hidden parameters by their names, and what goes by no name of a parameter."""
    hidden: dict[str, Any] = {name: plan.values[name] for name in plan.hidden if name in plan.values}
    kept = {name: value for call in calls.values() for name, value in call.kept.items()}
    if kept:
        hidden[SECRETS] = kept
    if _texts(plan, calls):
        hidden[DOCUMENT] = text.document
    if plan.webhook_secret is not None:
        hidden[WEBHOOK_SECRET] = await _webhook_secret(engine, plan)
    return hidden


async def _webhook_secret(engine: "Engine", plan: Plan) -> str:
    path = dotted(["webhook", "secret"])
    try:
        secrets = {name: await engine.scopes.secret(reference) for name, reference in plan.secrets.items()}
        return fill_text(plan.webhook_secret or "", {"params": plan.values, "secrets": secrets})
    except (RenderFault, ExpressionFault) as wrong:
        raise faults([fault(str(wrong), path)]) from None
