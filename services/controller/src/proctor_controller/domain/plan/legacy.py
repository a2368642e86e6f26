"""Legacy test plans, ``{name, environment, testplan}``, compiled to the same graph. Pure.

Blocks run in the order of their numbers, the groups of a block in the order of the document. A group whose name starts
with ``Parallel`` is one node with an instance for each child: they start together. The children of any other group run
one after another. A failure stops nothing that comes after it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.ids import HOST_NAME, PLUGIN_NAME
from proctor_common.json_walk import parts_of
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.documents.tree import MAX_FOLLOWED, MAX_NODES, Document, text_size
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.plan.document import MAX_STEPS
from proctor_controller.domain.plan.model import BadPlan, Path, Plan, PlanStep
from proctor_controller.domain.plan.reader import Faults, Reader, in_order
from proctor_controller.domain.runs.step import Condition

MAX_NAME = 200
KIND = "seed"
DESCRIPTION = "DESCRIPTION"
_MEMBERS = ("name", "environment", "testplan")
_CHILD = ("plugin", "host", "method", "parameters")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True, slots=True)
class _Child:
    path: Path
    value: Mapping[str, Any]
    parallel: bool
    group: int


def is_legacy(value: Any) -> bool:
    """Whether a document has the legacy form."""
    return isinstance(value, Mapping) and "testplan" in value and not value.keys() & {"testplan_version", "steps"}


def step_name(block: int, child: int) -> str:
    """The name of a block's child: ``TestCase : block``, ``TestStep : child`` in legacy answers."""
    return f"case-{block}-step-{child}"


def read_legacy(document: Document, given: Mapping[str, Any] | None = None) -> Plan:
    """The plan in a document of the legacy form; it has no parameters. Raises BadPlan."""
    plan, faults = examine_legacy(document, given)
    if faults:
        raise BadPlan(in_order(faults.all()))
    return plan


def examine_legacy(document: Document, given: Mapping[str, Any] | None = None) -> tuple[Plan, Faults]:
    """The plan, as far as it can be read, and its faults."""
    faults = Faults(document)
    return _LegacyReader(faults).read(document.value, given or {}), faults


class _LegacyReader(Reader):
    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self._environment: Mapping[str, Any] = {}
        self._looked = 0
        self._looked_text = 0

    def read(self, root: Mapping[str, Any], given: Mapping[str, Any]) -> Plan:
        self.members(root, (), _MEMBERS)
        for name in given:
            self.fault(("parameters", name[:100]), "a plan of this form has no parameters", "unknown_member")
        name = self.text(root.get("name", "testplan"), ("name",), most=MAX_NAME)
        self._environment = self._mapping_or_none(root.get("environment"), ("environment",))
        blocks = self.mapping(root["testplan"], ("testplan",))
        numbers: dict[int, str] = {}
        for key in blocks:
            if not _NUMBER.match(key):
                self.fault(("testplan", key), "a block's name is a number")
            elif int(key) in numbers:
                self.fault(("testplan", key), f"the block {int(key)} stands here twice")
            else:
                numbers[int(key)] = key
        steps: list[PlanStep] = []
        before: list[str] = []
        for number in sorted(numbers):
            before = self._block(number, blocks[numbers[number]], ("testplan", numbers[number]), steps, before)
        if not steps and not self.faults:
            self.fault(("testplan",), "holds no step")
        if len(steps) > MAX_STEPS:
            message = f"is one step too many: the plan has {len(steps)}, and {MAX_STEPS} are allowed"
            self.fault(steps[MAX_STEPS].path, message, "too_large")
        return Plan(name=name, steps=tuple(steps), kind=KIND)

    def _block(self, number: int, value: Any, path: Path, steps: list[PlanStep], before: list[str]) -> list[str]:
        """Add the steps of a block after the nodes in ``before``; returns the nodes that the next block waits for."""
        group = -1
        for count, child in enumerate(self._children(value, path), 1):
            name = step_name(number, count)
            follows = not child.parallel or child.group != group
            if follows and steps:
                before = [steps[-1].node]
            group = child.group
            node = f"case-{number}-group-{child.group}" if child.parallel else name
            depends = tuple((source, Condition.COMPLETED) for source in before if source != node)
            steps.append(self._step(name, node, child, depends))
        return [steps[-1].node] if steps else before

    def _children(self, value: Any, path: Path) -> Iterator[_Child]:
        """The children of all groups of a block, in document order: all mappings but descriptions."""
        groups = self.mapping(value, path)
        for index, (name, group) in enumerate(groups.items(), 1):
            if not isinstance(group, Mapping):
                if isinstance(group, list) and any(isinstance(part, Mapping) for part in group):
                    # Steps in an unknown form are a fault: nobody wants them ignored.
                    self.fault((*path, name), "must be a mapping of numbered steps, not a list")
                continue
            parallel = name.lower().startswith("parallel")
            for key, child in group.items():
                if isinstance(child, Mapping) and key.upper() != DESCRIPTION:
                    yield _Child((*path, name, key), child, parallel, index)

    def _step(self, name: str, node: str, child: _Child, depends: tuple[tuple[str, Condition], ...]) -> PlanStep:
        path = child.path
        given = {key: self._looked_up(part, (*path, key)) for key, part in child.value.items() if key in _CHILD}
        for key, part in child.value.items():
            if key not in _CHILD and key.upper() != DESCRIPTION:
                self.members({key: part}, path, _CHILD)
        for key in ("plugin", "host", "method"):
            self.missing(child.value, key, path, _CHILD)
        return PlanStep(
            name=name,
            path=path,
            node=node,
            plugin=self._word(given, "plugin", path, PLUGIN_NAME),
            method=self._word(given, "method", path, PLUGIN_NAME),
            place=Placement(host=self._word(given, "host", path, HOST_NAME) or None),
            parameters=self._mapping_or_none(given.get("parameters"), (*path, "parameters")),
            depends_on=depends,
        )

    def _mapping_or_none(self, value: Any, path: Path) -> Mapping[str, Any]:
        return {} if value is None else self.mapping(value, path)

    def _word(self, given: Mapping[str, Any], name: str, path: Path, pattern: re.Pattern[str]) -> str:
        """One of a child's texts; empty if it has a fault."""
        if name not in given or self.faults.touch((*path, name)):
            return ""
        return self.text(given[name], (*path, name), pattern)

    def _looked_up(self, value: Any, path: Path) -> Any:
        """The value with each ``get_param`` in it looked up in ``environment``."""
        if isinstance(value, Mapping):
            if value.keys() == {"get_param"}:
                return self._environment_value(value["get_param"], (*path, "get_param"))
            return {key: self._looked_up(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._looked_up(part, (*path, index)) for index, part in enumerate(value)]
        return value

    def _environment_value(self, name: Any, path: Path) -> Any:
        value: Any = self._environment
        for part in name.split(":") if isinstance(name, str) else [None]:
            if not isinstance(value, Mapping) or part not in value:
                near = hint(str(part), value) if isinstance(value, Mapping) else ""
                self.fault(path, f"environment has no {str(name)[:60]!r}{near}", "unknown_name")
                return "unknown"
            value = value[part]
        self._looked += sum(1 for _ in parts_of(value))
        if self._looked > MAX_NODES:
            self.fault(path, f"what is looked up comes to more than {MAX_NODES} parts", "too_large")
            return "unknown"
        self._looked_text += text_size(value)
        if self._looked_text > MAX_FOLLOWED:
            self.fault(path, f"what is looked up comes to more than {MAX_FOLLOWED} characters", "too_large")
            return "unknown"
        return value
