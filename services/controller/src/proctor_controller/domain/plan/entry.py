"""A plan as far as it can be read, for checks that need more than its text. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proctor_common.errors import Fault
from proctor_controller.domain.documents.tree import Document
from proctor_controller.domain.plan.calls import OPEN
from proctor_controller.domain.plan.document import examine_plan
from proctor_controller.domain.plan.legacy import KIND as LEGACY
from proctor_controller.domain.plan.legacy import examine_legacy, is_legacy
from proctor_controller.domain.plan.model import Path, Plan, PlanStep
from proctor_controller.domain.plan.reader import Faults, heads, in_order


@dataclass(frozen=True, slots=True)
class Reading:
    """A plan that was read. ``plan``: its parts without faults; ``faults``: of the document."""

    document: Document
    plan: Plan
    faults: Faults

    def is_sound(self, *path: str | int, but: Iterable[str] = ()) -> bool:
        """Whether the part at the path has no fault; ``but``: members of it to ignore."""
        return not self.faults.touch(path, but)

    def checkable(self, step: PlanStep) -> PlanStep:
        """The step without those of its parameters that have faults."""
        where = (*step.path, "parameters" if self.plan.kind == LEGACY else "with")
        if self.is_sound(*where):
            return step
        parameters = {name: self._without_faults(part, (*where, name)) for name, part in step.parameters.items()}
        return replace(step, parameters=parameters, is_literal=False)

    def _without_faults(self, value: Any, path: Path) -> Any:
        if self.is_sound(*path):
            return value
        if isinstance(value, Mapping):
            return {name: self._without_faults(part, (*path, name)) for name, part in value.items()}
        if isinstance(value, list):
            return [self._without_faults(part, (*path, index)) for index, part in enumerate(value)]
        return OPEN

    def new(self, found: Iterable[Fault], part: Path = ()) -> list[Fault]:
        """The faults of a part that do not follow from faults of the document itself."""
        legacy = self.plan.kind == LEGACY
        own = [_in_legacy_words(fault) if legacy else fault for fault in found]
        return [fault for fault in own if not self.faults.explain(fault, part)]

    def all(self, more: Iterable[Fault] = ()) -> list[Fault]:
        """Its faults and ``more``, ordered by their positions in the text."""
        return in_order([*self.faults.all(), *(self._placed(fault) for fault in more)])

    def _placed(self, fault: Fault) -> Fault:
        """The fault with its position in the text: that of the nearest part that has one."""
        places = self.document.places
        near = next((head for head in heads(str(fault["path"])) if head in places), "")
        line, column = places.get(near, (None, None))
        return {**fault, "line": line, "column": column}


def examine(
    document: Document, given: Mapping[str, Any] | None = None, unknown: frozenset[str] = frozenset()
) -> Reading:
    """The plan in a document of either form; ``given``, ``unknown``: as for ``examine_plan``."""
    if is_legacy(document.value):
        plan, faults = examine_legacy(document, given)
    else:
        plan, faults = examine_plan(document, given, unknown)
    return Reading(document, plan, faults)


def _in_legacy_words(fault: Fault) -> Fault:
    """The fault with the members' names in legacy plans."""
    path = str(fault["path"])
    for ours, theirs in ((".with", ".parameters"), (".runs_on", ".host"), (".uses", ".method")):
        head, found, tail = path.rpartition(ours)
        if found and (not tail or tail[0] in ".["):
            return {**fault, "path": f"{head}{theirs}{tail}"}
    return fault
