"""What a plan says of a step besides literal parameters: expressions, verdict rules, gate, nested plan. Pure.

A *template* is JSON whose strings may contain ``${{ expression }}`` (``$${{`` is a literal ``${{``); a *source* is a
bare CEL expression. ``domain.expressions`` evaluates both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_controller.domain.documents.spelled import pack, unpack

Template = Any
NO_CELL = "no cell"
"""The instance of a step whose matrix has no cell: it is skipped."""
SKIP_NO_CELL = "false // the matrix has no cell"
MAX_ARTEFACTS = 50
MAX_PATTERN = 500
"""Characters of a pattern of artefacts."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A step that a person decides. ``roles``: token roles that may; ``timeout_s`` None: the step's own timeout."""

    roles: tuple[str, ...] = ("admin",)
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class NestedPlan:
    """A step that runs a stored plan. ``plan``: ``name@version``; ``parameters``: template of a mapping; ``outputs``:
    names of the outputs that the plan declares.
    """

    plan: str
    parameters: Mapping[str, Template] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a step's plan says besides literal parameters. None or empty: not given."""

    condition: str | None = None
    """``if``: a source, as ``failed_when`` and ``until``."""
    parameters: Mapping[str, Template] | None = None
    """Template of the method's parameters, ``x-argv`` fields split into words; None: the step's literal ones."""
    env: Mapping[str, Template] | None = None
    """Templates by name, as ``outputs`` and ``record``."""
    outputs: Mapping[str, Template] = field(default_factory=dict)
    failed_when: str | None = None
    until: str | None = None
    expect: Mapping[str, Any] | None = None
    """The ``error`` that the step must end with: ``{kind, contains, …}``."""
    record: Mapping[str, Template] | None = None
    gate: Gate | None = None
    child: NestedPlan | None = None
    refs: tuple[str, ...] = ()
    """Nodes whose result, outputs or hosts the expressions read."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the filled parameters."""
    artefacts: tuple[str, ...] = ()
    """Templates of the patterns of files to keep."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Names of stored secrets, by the name that the expressions use."""

    @property
    def is_judging(self) -> bool:
        """Whether expressions are evaluated at the end of a step."""
        return bool(self.failed_when or self.until or self.outputs or self.record)

    @property
    def is_reading(self) -> bool:
        """Whether expressions are evaluated when a step's edges are decided, or when it ends."""
        return bool(self.condition or self.record)

    @property
    def is_filling(self) -> bool:
        """Whether an order has templates to fill in."""
        return self.parameters is not None or self.env is not None or any("${{" in each for each in self.artefacts)

    def to_json(self) -> dict[str, Any]:
        """The stored form, without empty members."""
        plain: dict[str, Any] = {
            "condition": self.condition,
            "parameters": self.parameters,
            "env": self.env,
            "outputs": pack(self.outputs) or None,
            "failed_when": self.failed_when,
            "until": self.until,
            "expect": self.expect,
            "record": self.record,
            "gate": None if self.gate is None else {"roles": list(self.gate.roles), "timeout_s": self.gate.timeout_s},
            "child": None if self.child is None else _child_json(self.child),
            "refs": list(self.refs) or None,
            "schema": self.schema,
            "artefacts": list(self.artefacts) or None,
            "secrets": self.secrets or None,
        }
        return {name: value for name, value in plain.items() if value is not None}


def _child_json(child: NestedPlan) -> dict[str, Any]:
    return {"plan": child.plan, "with": pack(child.parameters), "outputs": list(child.outputs)}


def _child_of(stored: Mapping[str, Any]) -> NestedPlan:
    return NestedPlan(stored["plan"], unpack(stored["with"]), tuple(stored.get("outputs", ())))


def rules_of(stored: Mapping[str, Any] | None) -> Rules | None:
    """The rules in the output of ``Rules.to_json``; None if nothing is stored."""
    if stored is None:
        return None
    gate, child = stored.get("gate"), stored.get("child")
    return Rules(
        condition=stored.get("condition"),
        parameters=stored.get("parameters"),
        env=stored.get("env"),
        outputs=unpack(stored.get("outputs", {})),
        failed_when=stored.get("failed_when"),
        until=stored.get("until"),
        expect=stored.get("expect"),
        record=stored.get("record"),
        gate=None if gate is None else Gate(tuple(gate["roles"]), gate["timeout_s"]),
        child=None if child is None else _child_of(child),
        refs=tuple(stored.get("refs", ())),
        schema=stored.get("schema"),
        artefacts=tuple(stored.get("artefacts", ())),
        secrets=stored.get("secrets", {}),
    )
