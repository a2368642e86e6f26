"""Nested plans at submission: they are there, they take what they are given, and none nests itself."""

import asyncio
from typing import Any

from proctor_common.errors import ProctorError, faults
from proctor_controller.db.plans import StoredPlan, find_plan
from proctor_controller.db.session import Session
from proctor_controller.domain.expressions import has_expression
from proctor_controller.domain.plan import BadPlan, Plan, PlanStep, read_plan
from proctor_controller.domain.plan.calls import Call, keep_literals
from proctor_controller.domain.plan.parameters import BadValue, convert
from proctor_controller.domain.plan.reader import hint
from proctor_controller.domain.plan.templates import hidden_leaves
from proctor_controller.domain.schemas import Fault, dotted, fault
from proctor_controller.domain.step import Kind
from proctor_controller.domain.yaml_text import BadText, read_text

MAX_DEPTH = 5
MAX_PLANS = 200


class Nesting:
    """``groups``: whose stored plans may be read, None: all · ``root``: the stored plan that is about to run, if it is
    one · ``depth``: how deep it is nested itself.
    """

    def __init__(self, db: Session, groups: tuple[str | None, ...] | None, root: str | None, depth: int) -> None:
        self._db = db
        self._groups = groups
        self._root = root
        self._depth = depth
        self._read: dict[str, tuple[StoredPlan, Plan] | None] = {}
        self._fine: set[tuple[str, int]] = set()

    async def check(self, step: PlanStep, hidden: frozenset[str], *, literal_from: int) -> tuple[str, Call]:
        """The exact version of a step's plan, ``name@version``, and what it is given, with what is wrong with it.

        ``hidden``: names of the run's hidden parameters; ``literal_from``: number of the first kept literal.
        """
        assert step.rules is not None
        assert step.rules.child is not None
        reference, where = step.rules.child.plan, dotted([*step.path, "plan"])
        if not reference:
            return "", Call(step.parameters, {})
        try:
            found = await self._load(reference)
        except ProctorError as bad:
            return "", _refused(fault(f"the plan {reference} has faults: {bad.message}", where))
        if found is None:
            return "", _refused(fault(f"there is no stored plan {reference}", where, "not_found"))
        stored, plan = found
        exact = f"{stored.name}@{stored.version}"
        trail = (self._root,) if self._root is not None else ()
        why = await self._look_down(exact, trail, self._depth + 1)
        if why is not None:
            return exact, _refused(fault(why[0], where, why[1]))
        names = [name for name, parameter in plan.parameters.items() if parameter.hidden]
        template, kept = keep_literals(step.parameters, [(name,) for name in names], literal_from)
        wrong = tuple(_check_given(step, plan, hidden))
        return exact, Call(template, {}, kept=kept, texts=tuple(map(str, kept.values())), faults=wrong)

    async def check_circle(self, step: PlanStep) -> list[Fault]:
        """What is wrong with a step's plan whatever others are stored later: that it nests itself, or too deep."""
        assert step.rules is not None
        assert step.rules.child is not None
        reference = step.rules.child.plan
        trail = (self._root,) if self._root is not None else ()
        why = await self._look_down(reference, trail, self._depth + 1) if reference else None
        if why is None or why[1] == "not_found":
            return []
        return [fault(why[0], dotted([*step.path, "plan"]), why[1])]

    async def _load(self, reference: str) -> tuple[StoredPlan, Plan] | None:
        if reference not in self._read:
            name, _, version = reference.partition("@")
            stored = await find_plan(self._db, name, int(version) if version else None)
            if stored is None or (self._groups is not None and stored.group not in self._groups):
                self._read[reference] = None
            else:
                self._read[reference] = (stored, await asyncio.to_thread(_read, stored.document))
        return self._read[reference]

    async def _look_down(self, reference: str, trail: tuple[str, ...], depth: int) -> tuple[str, str] | None:
        """What is wrong with the plans below, and the fault's code."""
        name = reference.partition("@")[0]
        if (reference, depth) in self._fine:
            return None
        if name in trail:
            return f"the plan nests itself: {' -> '.join((*trail, name))}", "cycle"
        if depth > MAX_DEPTH:
            return f"plans are nested more than {MAX_DEPTH} deep: {' -> '.join((*trail, name))}", "too_deep"
        if len(self._read) > MAX_PLANS:
            return f"more than {MAX_PLANS} plans are nested", "too_large"
        found = await self._load(reference)
        if found is None:
            return f"there is no stored plan {reference}, which is nested below", "not_found"
        for step in found[1].steps:
            if step.kind is Kind.PLAN and step.rules is not None and step.rules.child is not None:
                below = step.rules.child.plan
                why = await self._look_down(below, (*trail, name), depth + 1) if below else None
                if why is not None:
                    return why
        self._fine.add((reference, depth))
        return None


def _refused(wrong: Fault) -> Call:
    return Call({}, {}, faults=(wrong,))


def _read(text: str) -> Plan:
    try:
        return read_plan(read_text(text))
    except BadPlan as bad:
        raise faults(bad.faults) from None
    except BadText as bad:
        raise faults([bad.fault]) from None


def _check_given(step: PlanStep, plan: Plan, hidden: frozenset[str]) -> list[Fault]:
    """The parameters that the step gives its plan, as far as they are known now."""
    root = dotted([*step.path, "with"])
    found: list[Fault] = []
    for name, value in step.parameters.items():
        parameter = plan.parameters.get(name)
        if parameter is None:
            near = hint(name, plan.parameters)
            found.append(fault(f"the plan has no parameter {name[:60]!r}{near}", f"{root}.{name}", "unknown_member"))
            continue
        if not parameter.hidden:
            for path, what in hidden_leaves(value, hidden):
                message = f"{what} is hidden, and the plan's parameter {name} is not"
                found.append(fault(message, dotted(path, f"{root}.{name}"), "hidden"))
        if not has_expression(value):
            found += _check_literal(parameter, value, f"{root}.{name}")
    for name, parameter in plan.parameters.items():
        if parameter.required and name not in step.parameters:
            found.append(fault(f"the plan's parameter {name} has no default: give it", root, "missing"))
    return found


def _check_literal(parameter: Any, value: Any, path: str) -> list[Fault]:
    try:
        convert(parameter, value)
    except BadValue as wrong:
        return [fault(str(wrong), path, "constraint")]
    return []
