"""What a test plan says, once it is read. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proctor_common.errors import Fault
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Requirements
from proctor_controller.domain.runs.step import Condition, Phase, Retry, StepKind
from proctor_controller.domain.runs.step_rules import Rules

Path = tuple[str | int, ...]


class BadPlan(Exception):
    """The plan has faults: all of them, each with path, line and column."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0]["message"])
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Constraint:
    """A limit on a parameter's value: length, range, modulo, allowed_values or allowed_pattern."""

    kind: str
    of: Any
    description: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as the plan declares it. ``type``: string, number, boolean, list or json."""

    name: str
    type: str
    required: bool = True
    default: Any = None
    hidden: bool = False
    label: str = ""
    description: str = ""
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class RunsOn:
    """Where instances of a step run: at a place, or on hosts of a role, ``each`` of them or the one at its index."""

    place: Placement = field(default_factory=Placement)
    role: str | None = None
    role_index: int = 0
    each: bool = False


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of a plan, before it is fanned out. Times in seconds; ``path``: where it stands in the document.

    ``node``: the node it belongs to, where that is not its own · ``role``: the leased hosts it runs on, ``each`` of
    them or the one at ``role_index`` · ``parameters``: a template; ``is_literal``: it holds no expression · ``cells``:
    of its matrix · ``rollback``: what undoes it · ``wheres``: of each cell, where that differs: then place and role
    stand for the first.
    """

    name: str
    path: Path
    plugin: str = ""
    method: str = ""
    place: Placement = field(default_factory=Placement)
    phase: Phase = Phase.MAIN
    kind: StepKind = StepKind.METHOD
    node: str = ""
    role: str | None = None
    role_index: int = 0
    each: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_literal: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[tuple[str, Condition], ...] = ()
    target: str | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = field(default_factory=Retry)
    idempotent: bool = False
    cells: tuple[Mapping[str, Any], ...] | None = None
    max_parallel: int | None = None
    fail_fast: bool = False
    rules: Rules | None = None
    rollback: "PlanStep | None" = None
    wheres: tuple[RunsOn, ...] = ()

    @property
    def where(self) -> RunsOn:
        """Where it runs, or its first cell."""
        return RunsOn(self.place, self.role, self.role_index, self.each)

    def spread(self) -> tuple["PlanStep", ...]:
        """The step at each of the places where its cells run; itself where that is one."""
        return tuple(self.at(where) for where in dict.fromkeys(self.wheres)) or (self,)

    def at(self, where: RunsOn) -> "PlanStep":
        """The step there and nowhere else."""
        return replace(
            self, place=where.place, role=where.role, role_index=where.role_index, each=where.each, wheres=()
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that may be run. ``run_timeout_s``: None where it sets none.

    ``values``: of its parameters, hidden ones among them · ``secrets``: references of stored secrets by the name they
    have here · ``webhook_secret``: template · ``secret_texts``: hidden values that stand in the document itself ·
    ``asked``: outputs that are read of nested plans: where, of which step, which.
    """

    name: str
    steps: tuple[PlanStep, ...]
    description: str = ""
    kind: str = "plan"
    run_timeout_s: float | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    cleanup: tuple[PlanStep, ...] = ()
    wants: Requirements = field(default_factory=Requirements)
    secrets: Mapping[str, str] = field(default_factory=dict)
    webhook_secret: str | None = None
    secret_texts: tuple[str, ...] = ()
    asked: tuple[tuple[Path, str, str], ...] = ()

    @property
    def hidden(self) -> frozenset[str]:
        """Names of the hidden parameters."""
        return frozenset(name for name, parameter in self.parameters.items() if parameter.hidden)

    def calls(self) -> tuple[PlanStep, ...]:
        """Every step that calls a method or a plan or asks a person: main ones, their rollbacks, cleanup."""
        rollbacks = tuple(step.rollback for step in self.steps if step.rollback is not None)
        return (*self.steps, *rollbacks, *self.cleanup)
