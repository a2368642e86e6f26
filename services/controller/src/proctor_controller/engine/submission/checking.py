"""Checks a plan against what there is: agents and their methods, stored plans, secrets, types of volumes."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_common.limits import MAX_PLAN_DEPTH
from proctor_controller.db.pool.pools import load_sizes
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.hosts.leasing import want_too_many
from proctor_controller.domain.hosts.requirements import HostRole
from proctor_controller.domain.plan import Plan
from proctor_controller.domain.plan.calls import CheckedCall, check_call
from proctor_controller.domain.plan.compile import find_explosion
from proctor_controller.domain.plan.entry import Reading
from proctor_controller.domain.plan.model import Path, PlanStep
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.domain.runs.step import StepKind
from proctor_controller.engine.scopes import Scopes
from proctor_controller.engine.submission.methods import Methods
from proctor_controller.engine.submission.nesting import Nested, Nesting


@dataclass(slots=True)
class Checked:
    """``calls``: of each step by its path; ``children``: the exact stored plan of a nested one's path; ``faults``:
    what is wrong beside what is wrong with the document itself.
    """

    calls: dict[Path, CheckedCall] = field(default_factory=dict)
    children: dict[Path, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class Checking:
    """Checks a plan, and those that are nested in it. ``group``: of the run."""

    def __init__(self, scopes: Scopes, db: Session, nesting: Nesting, group: str | None) -> None:
        self._scopes = scopes
        self._db = db
        self._nesting = nesting
        self._group = group
        self._methods = Methods(db, group)
        self._below: dict[str, list[Fault]] = {}

    async def check(self, reading: Reading, trail: tuple[str, ...] | None = None) -> Checked:
        """Every call against what agents publish, every nested plan against what is stored, with its own calls.

        ``trail``: the stored plans that it is nested in.
        """
        trail = self._nesting.trail if trail is None else trail
        if reading.faults.is_full:
            # There are more faults already than are reported.
            return Checked()
        checked = Checked(faults=reading.new(find_explosion(reading.plan)))
        await self._check_secrets(reading, checked)
        await self._check_volumes(reading, checked)
        await self._check_methods(reading, checked)
        for step in reading.plan.steps:
            if step.kind is StepKind.PLAN:
                await self._check_child(reading, step, checked, trail)
        return checked

    async def _check_secrets(self, reading: Reading, checked: Checked) -> None:
        for name, reference in reading.plan.secrets.items():
            try:
                await self._scopes.secret(reference, self._group)
            except RenderFault as none:
                path = _path_of_secret(reading.document.value, name)
                checked.faults += reading.new([fault("not_found", str(none), dotted(path))])

    async def _check_volumes(self, reading: Reading, checked: Checked) -> None:
        wanted = [want for want in reading.plan.wants.volumes if reading.is_sound("volumes", want.name, "type")]
        known = await load_sizes(self._db) if wanted else {}
        for want in wanted:
            # A type may hang on a parameter that nobody has given yet. Where there is no pool at all the claim says so.
            if known and want.type and want.type not in known:
                message = f"there is no type of volume {want.type!r}; there is {', '.join(sorted(known))}"
                path = dotted(["volumes", want.name, "type"])
                checked.faults += reading.new([fault("not_found", message, path)])

    async def _check_methods(self, reading: Reading, checked: Checked) -> None:
        found = reading.plan.wants.roles
        # Which hosts a role may have does not hang on how many it takes: none of their faults follows from one there.
        roles = {role.name: role for role in found if reading.is_sound("hosts", role.name, but=("count", "exclusive"))}
        schemas: dict[Path, Mapping[str, Any]] = {}
        for step in (each for call in reading.plan.calls() for each in call.spread()):
            if step.kind is StepKind.METHOD and step.plugin and step.method:
                role = roles.get(step.role or "")
                method = await self._methods.find(step, role)
                of_role = "" if role is None else dotted(["hosts", role.name])
                checked.faults += [wrong for wrong in method.faults if wrong["path"] == of_role]
                checked.faults += reading.new((w for w in method.faults if w["path"] != of_role), step.path)
                if method.schema is not None:
                    schemas[step.path] = method.schema
        await self._check_roles(reading, roles, checked)
        # Half a megabyte of templates takes a while: other requests go on meanwhile.
        checked.calls = await asyncio.to_thread(_check_calls, reading, schemas)
        for path, call in checked.calls.items():
            checked.faults += reading.new(call.faults, path)

    async def _check_roles(self, reading: Reading, roles: Mapping[str, HostRole], checked: Checked) -> None:
        """Whether there are hosts for each role, and for all of them together."""
        asked = {(step.role, step.plugin) for call in reading.plan.calls() for step in call.spread()}
        fitting: dict[str, tuple[str, ...]] = {}
        for role in roles.values():
            # That there is no plugin which its steps ask for too, they tell.
            found = await self._methods.of_role(role, reported=(role.name, role.plugin) in asked)
            checked.faults += reading.new(found.faults)
            if not found.faults:
                fitting[role.name] = found.agents
        whole = [role for role in roles.values() if role.name in fitting and reading.is_sound("hosts", role.name)]
        if len(whole) > 1 and want_too_many(whole, fitting):
            wanted = ", ".join(f"{role.count} for {role.name}{' alone' if role.exclusive else ''}" for role in whole)
            message = f"the roles together want more hosts than there are: {wanted}"
            checked.faults += reading.new([fault("not_found", message, "hosts")])

    async def _check_child(self, reading: Reading, step: PlanStep, checked: Checked, trail: tuple[str, ...]) -> None:
        literals = sum(len(call.kept) for call in checked.calls.values())
        nested = await self._nesting.check(reading.checkable(step), reading.plan.hidden, literal_from=literals)
        checked.children[step.path], checked.calls[step.path] = nested.exact, nested.call
        wrong = list(nested.call.faults)
        if nested.reading is not None:
            wrong += await self._check_below(step, nested, nested.reading, trail)
            checked.faults += reading.new(_check_outputs(reading.plan, step, nested.exact, nested.reading))
        checked.faults += reading.new(wrong, step.path)

    async def _check_below(
        self, step: PlanStep, nested: Nested, reading: Reading, trail: tuple[str, ...]
    ) -> list[Fault]:
        """What is wrong with a nested plan as it stands now, said of the step that names it."""
        name, where = nested.exact.partition("@")[0], dotted([*step.path, "plan"])
        shown = " -> ".join((*trail, name))
        if name in trail:
            return [fault("cycle", f"the plan nests itself: {shown}", where)]
        if self._nesting.depth + len(trail) - len(self._nesting.trail) >= MAX_PLAN_DEPTH:
            return [fault("too_deep", f"plans are nested more than {MAX_PLAN_DEPTH} deep: {shown}", where)]
        if nested.key not in self._below:
            checked = await self.check(reading, (*trail, name))
            self._below[nested.key] = reading.all(checked.faults)
        return [_of_child(step, nested.exact, wrong) for wrong in self._below[nested.key]]


def _check_calls(reading: Reading, schemas: Mapping[Path, Mapping[str, Any]]) -> dict[Path, CheckedCall]:
    calls: dict[Path, CheckedCall] = {}
    literals = 0
    plan: Plan = reading.plan
    for step in plan.calls():
        if step.path in schemas:
            whole, words = reading.checkable(step), reading.document.words
            call = check_call(whole, schemas[step.path], plan.hidden, literal_from=literals, words=words)
            literals += len(call.kept)
            calls[step.path] = call
    return calls


def _path_of_secret(document: Any, name: str) -> Path:
    """Where the plan names a secret: once for all, or in a step."""
    declared = document.get("secrets")
    if not isinstance(declared, dict) or name not in declared:
        for step, written in document.get("steps", {}).items():
            own = written.get("secrets") if isinstance(written, dict) else None
            if isinstance(own, dict) and name in own:
                return ("steps", step, "secrets", name)
    return ("secrets", name)


def _check_outputs(plan: Plan, step: PlanStep, exact: str, nested: Reading) -> Iterator[Fault]:
    """Outputs of a nested plan's step that others read, and that it will not have."""
    own = step.rules.outputs if step.rules is not None else {}
    names = {*own, *nested.plan.wants.outputs}
    for path, of, name in plan.asked:
        if of == step.name and name not in names and nested.is_sound("outputs"):
            message = f"the plan {exact} of the step {of} has no output {name[:60]!r}{hint(name, names)}"
            yield fault("unknown_name", message, dotted(path))


def _of_child(step: PlanStep, exact: str, wrong: Fault) -> Fault:
    place = f" (line {wrong['line']})" if wrong["line"] else ""
    message = f"the plan {exact} cannot run here: {wrong['path']}{place}: {wrong['message']}"
    return fault("nested", message, dotted([*step.path, "plan"]))
