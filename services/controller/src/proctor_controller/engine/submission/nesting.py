"""Checks nested plans at submission: each is stored, takes what it is given, and does not nest itself."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_common.limits import MAX_PLAN_DEPTH
from proctor_controller.db.plans import StoredPlan, find_plan
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.documents.tree import BadText, Document
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.expressions.evaluate import fill
from proctor_controller.domain.expressions.text import has_expression
from proctor_controller.domain.plan import Plan, PlanStep
from proctor_controller.domain.plan.calls import CheckedCall, keep_literals
from proctor_controller.domain.plan.entry import Reading, examine
from proctor_controller.domain.plan.model import Parameter
from proctor_controller.domain.plan.plan_parameters import BadValue, convert
from proctor_controller.domain.plan.templates import hidden_leaves
from proctor_controller.domain.runs.step import StepKind

MAX_PLANS = 200


@dataclass(frozen=True, slots=True)
class Nested:
    """A step's nested plan."""

    exact: str
    """``name@version``."""
    call: CheckedCall
    """The step's checked parameters for it, with their faults."""
    reading: Reading | None = None
    """The plan with the parameters that are known already; None if it cannot be read."""
    key: str = ""
    """Identifies the plan and its parameters."""


class Nesting:
    """Checks the nested plans of a run. ``groups``: groups whose stored plans may be read, None: all; ``root``: the
    stored plan that is to run, if it is one; ``depth``: its own level of nesting.
    """

    def __init__(self, db: Session, groups: tuple[str | None, ...] | None, root: str | None, depth: int) -> None:
        self._db = db
        self._groups = groups
        self.trail = (root,) if root is not None else ()
        self.depth = depth
        """Its own level of nesting."""
        self._read: dict[str, tuple[StoredPlan, Reading] | None] = {}
        self._fine: set[tuple[str, int]] = set()

    async def check(self, step: PlanStep, hidden: frozenset[str], *, literal_from: int) -> Nested:
        """The step's plan in its current version.

        ``hidden``: names of the run's hidden parameters; ``literal_from``: number of the first kept literal.
        """
        assert step.rules is not None
        assert step.rules.child is not None
        reference, where = step.rules.child.plan, dotted([*step.path, "plan"])
        if not reference:
            return Nested("", CheckedCall(step.parameters, {}))
        found = await self._load(reference)
        if found is None:
            message = f"there is no stored plan {reference}: `proctor plans` lists them"
            return Nested("", _refused(fault("not_found", message, where)))
        stored, reading = found
        exact, plan = f"{stored.name}@{stored.version}", reading.plan
        why = await self._look_down(exact, self.trail, self.depth + 1)
        if why is not None:
            return Nested(exact, _refused(fault(why[1], why[0], where)))
        names = [name for name, parameter in plan.parameters.items() if parameter.hidden]
        template, kept = keep_literals(step.parameters, [(name,) for name in names], literal_from)
        wrong = tuple(_check_given(step, plan, hidden))
        call = CheckedCall(
            template,
            {},
            kept=kept,
            texts=tuple(map(str, kept.values())),
            faults=wrong,
            outputs=tuple(plan.wants.outputs),
        )
        known = _known(step, plan.parameters)
        unknown = frozenset(
            name for name, each in plan.parameters.items() if name not in known and (each.required or name in template)
        )
        read = await asyncio.to_thread(examine, reading.document, known, unknown)
        return Nested(exact, call, read, json.dumps([exact, known, sorted(unknown)], sort_keys=True))

    async def check_circle(self, step: PlanStep) -> list[Fault]:
        """Faults that no later change of other plans can remove: the plan nests itself, or too deeply."""
        assert step.rules is not None
        assert step.rules.child is not None
        reference = step.rules.child.plan
        why = await self._look_down(reference, self.trail, self.depth + 1) if reference else None
        if why is None or why[1] == "not_found":
            return []
        return [fault(why[1], why[0], dotted([*step.path, "plan"]))]

    async def _load(self, reference: str) -> tuple[StoredPlan, Reading] | None:
        if reference not in self._read:
            name, _, version = reference.partition("@")
            stored = await find_plan(self._db, name, int(version) if version else None)
            if stored is None or (self._groups is not None and stored.group not in self._groups):
                self._read[reference] = None
            else:
                self._read[reference] = (stored, await asyncio.to_thread(_read, stored.document))
        return self._read[reference]

    async def _look_down(self, reference: str, trail: tuple[str, ...], depth: int) -> tuple[str, str] | None:
        """The fault of the plans below, and its code."""
        name = reference.partition("@")[0]
        if (reference, depth) in self._fine:
            return None
        if name in trail:
            return f"the plan nests itself: {' -> '.join((*trail, name))}", "cycle"
        if depth > MAX_PLAN_DEPTH:
            return f"plans are nested more than {MAX_PLAN_DEPTH} deep: {' -> '.join((*trail, name))}", "too_deep"
        if len(self._read) > MAX_PLANS:
            return f"more than {MAX_PLANS} plans are nested", "too_large"
        found = await self._load(reference)
        if found is None:
            return f"there is no stored plan {reference}, which is nested below", "not_found"
        for step in found[1].plan.steps:
            if step.kind is StepKind.PLAN and step.rules is not None and step.rules.child is not None:
                below = step.rules.child.plan
                why = await self._look_down(below, (*trail, name), depth + 1) if below else None
                if why is not None:
                    return why
        self._fine.add((reference, depth))
        return None


def _refused(wrong: Fault) -> CheckedCall:
    return CheckedCall({}, {}, faults=(wrong,))


def _read(text: str) -> Reading:
    try:
        return examine(read_text(text))
    except BadText as bad:
        return examine(Document({}, faults=(bad.fault,)))


def _known(step: PlanStep, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The literal parameters that the step gives its plan, without those with faults."""
    return {
        name: fill(value, {})
        for name, value in step.parameters.items()
        if name in parameters and not has_expression(value) and not _check_literal(parameters[name], value, "")
    }


def _check_given(step: PlanStep, plan: Plan, hidden: frozenset[str]) -> list[Fault]:
    """Faults of the parameters that the step gives its plan, as far as they are known now."""
    root = dotted([*step.path, "with"])
    found: list[Fault] = []
    for name, value in step.parameters.items():
        parameter = plan.parameters.get(name)
        if parameter is None:
            near = hint(name, plan.parameters)
            found.append(fault("unknown_member", f"the plan has no parameter {name[:60]!r}{near}", f"{root}.{name}"))
            continue
        if not parameter.hidden:
            for path, what in hidden_leaves(value, hidden):
                message = f"{what} is hidden, and the plan's parameter {name} is not"
                found.append(fault("hidden", message, dotted(path, f"{root}.{name}")))
        if not has_expression(value):
            found += _check_literal(parameter, value, f"{root}.{name}")
    for name, parameter in plan.parameters.items():
        if parameter.required and name not in step.parameters:
            found.append(fault("missing", f"the plan's parameter {name} has no default: give it", root))
    return found


def _check_literal(parameter: Any, value: Any, path: str) -> list[Fault]:
    try:
        convert(parameter, value)
    except BadValue as wrong:
        return [fault("constraint", str(wrong), path)]
    return []
