"""A test plan after it was read. Pure."""

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
    """One step of a plan, before it is fanned out. Times in seconds."""

    name: str
    path: Path
    """Its location in the document."""
    plugin: str = ""
    method: str = ""
    place: Placement = field(default_factory=Placement)
    phase: Phase = Phase.MAIN
    kind: StepKind = StepKind.METHOD
    node: str = ""
    """Its node; empty: the one of its own name."""
    role: str | None = None
    """The leased hosts that it runs on, ``each`` of them or the one at ``role_index``."""
    role_index: int = 0
    each: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """A template; ``is_literal``: without expressions."""
    is_literal: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[tuple[str, Condition], ...] = ()
    target: str | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = field(default_factory=Retry)
    idempotent: bool = False
    cells: tuple[Mapping[str, Any], ...] | None = None
    """Of its matrix; None: it has none."""
    max_parallel: int | None = None
    fail_fast: bool = False
    rules: Rules | None = None
    rollback: "PlanStep | None" = None
    """The step that undoes it."""
    wheres: tuple[RunsOn, ...] = ()
    """The place of each cell, if they differ; then place and role are those of the first."""

    @property
    def where(self) -> RunsOn:
        """Where it runs; if its cells differ, the first one's place."""
        return RunsOn(self.place, self.role, self.role_index, self.each)

    def spread(self) -> tuple["PlanStep", ...]:
        """The step at each of the places where its cells run; only itself if they do not differ."""
        return tuple(self.at(where) for where in dict.fromkeys(self.wheres)) or (self,)

    def at(self, where: RunsOn) -> "PlanStep":
        """The step at one place."""
        return replace(
            self, place=where.place, role=where.role, role_index=where.role_index, each=where.each, wheres=()
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that may be run."""

    name: str
    steps: tuple[PlanStep, ...]
    description: str = ""
    kind: str = "plan"
    run_timeout_s: float | None = None
    """None: the plan sets none."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """Of its parameters, hidden ones included."""
    cleanup: tuple[PlanStep, ...] = ()
    wants: Requirements = field(default_factory=Requirements)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """References of stored secrets by their names in this plan."""
    webhook_secret: str | None = None
    """A template; None: no secret."""
    secret_texts: tuple[str, ...] = ()
    """Hidden values written in the document itself."""
    asked: tuple[tuple[Path, str, str], ...] = ()
    """Outputs of nested plans that expressions read: location, step, output."""

    @property
    def hidden(self) -> frozenset[str]:
        """Names of the hidden parameters."""
        return frozenset(name for name, parameter in self.parameters.items() if parameter.hidden)

    def calls(self) -> tuple[PlanStep, ...]:
        """Every step that calls a method or a plan or asks a person: main steps, rollbacks, cleanup."""
        rollbacks = tuple(step.rollback for step in self.steps if step.rollback is not None)
        return (*self.steps, *rollbacks, *self.cleanup)
