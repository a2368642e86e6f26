"""The methods that agents publish, as a plan's steps need them: their schemas, or what is wrong with a step."""

import difflib
from collections.abc import Mapping
from typing import Any

from proctor_controller.db.placing import Found, find_candidates, known_methods
from proctor_controller.db.session import Session
from proctor_controller.domain.placement import Place
from proctor_controller.domain.plan.model import Plan, PlanStep
from proctor_controller.domain.schemas import Fault, dotted, fault
from proctor_controller.domain.wants import Role


class Methods:
    """Looks each method up once for a place. ``group``: of the run."""

    def __init__(self, db: Session, plan: Plan, group: str | None) -> None:
        self._db = db
        self._roles = {role.name: role for role in plan.wants.roles}
        self._group = group
        self._known: dict[tuple[Any, ...], Mapping[str, Any] | tuple[str, str]] = {}
        self._names: list[str] | None = None

    async def find(self, step: PlanStep) -> Mapping[str, Any] | list[Fault]:
        """The JSON Schema of the step's method, or the fault of the step that it has none."""
        key = (step.place, step.role, step.plugin, step.method, step.target)
        if key not in self._known:
            self._known[key] = await self._look(step)
        found = self._known[key]
        if isinstance(found, Mapping):
            return found
        member, message = found
        return [fault(message, dotted([*step.path, member]), "not_found")]

    async def _look(self, step: PlanStep) -> Mapping[str, Any] | tuple[str, str]:
        role = self._roles.get(step.role or "")
        found = await self._candidates(step, role)
        where = str(step.place) if role is None else f"host for the role {role.name}"
        if not found:
            return "runs_on", f"there is no {where}"
        able = [each for each in found if each.candidate.has_method]
        if able and not any(each.has_target for each in able):
            return "target", f"{where} has no target {step.target}"
        for each in found:
            if each.spec is not None:
                return each.spec.parameters
        if not any(each.candidate.registered for each in found):
            return "runs_on", f"{where} has not connected yet: its methods are not known"
        if not any(each.candidate.has_plugin for each in found):
            return "uses", f"{where} has no plugin {step.plugin}{await self._near(step)}"
        return "uses", f"plugin {step.plugin} has no method {step.method}{await self._near(step)}"

    async def _candidates(self, step: PlanStep, role: Role | None) -> list[Found]:
        group = self._group
        if role is None:
            return await find_candidates(
                self._db, step.place, step.plugin, step.method, group=group, target=step.target, with_spec=True
            )
        labels = tuple(sorted((role.labels or {}).items()))
        place = Place(host=role.host) if role.host is not None else Place(labels=labels)
        found = await find_candidates(
            self._db, place, step.plugin, step.method, group=group, target=step.target, with_spec=True
        )
        return [each for each in found if role.group is None or role.group in each.groups]

    async def _near(self, step: PlanStep) -> str:
        """``; did you mean …?`` where an agent has a method of a similar name."""
        if self._names is None:
            self._names = await known_methods(self._db, self._group)
        near = difflib.get_close_matches(f"{step.plugin}.{step.method}", self._names, 1)
        return f"; did you mean {near[0]}?" if near else ""
