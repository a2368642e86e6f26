"""A submitted run: what is stored of it and of its steps before the first decision. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Requirements
from proctor_controller.domain.runs.decision import BATCH, Slice
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.scope import run_scope
from proctor_controller.domain.runs.step import Condition, Edge, Node, Phase, Retry, Step, StepKind
from proctor_controller.domain.runs.step_rules import Rules


@dataclass(frozen=True, slots=True)
class Reused:
    """A step of a former run that passed, with what other steps may read of it."""

    step: str
    outputs: Mapping[str, Any] | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A step instance to be stored. A gate and a nested plan have no plugin, method and place."""

    id: str
    node: str
    name: str
    plugin: str
    method: str
    place: Placement
    instance: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[tuple[str | int, ...], ...] = ()
    """Paths of the hidden values in ``parameters``."""
    env: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = field(default_factory=Retry)
    idempotent: bool = False
    phase: Phase = Phase.MAIN
    kind: StepKind = StepKind.METHOD
    matrix: Mapping[str, Any] | None = None
    role: str | None = None
    role_index: int | None = None
    of: str | None = None
    """Of a rollback: the id of the main step that it undoes."""
    reused: Reused | None = None
    """Set where it passed in a former run already."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A step of the document. ``rules`` None: its instances are plain calls with literal parameters."""

    name: str
    phase: Phase = Phase.MAIN
    rules: Rules | None = None
    max_parallel: int | None = None
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """An edge between two nodes, by name."""

    source: str
    target: str
    condition: Condition = Condition.SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run to be stored. ``steps`` are in document order, cleanup after the main ones."""

    id: str
    name: str
    kind: str
    steps: tuple[StepSpec, ...]
    edges: tuple[EdgeSpec, ...] = ()
    plan: str | None = None
    group: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """As they may be shown: hidden values are masked."""
    created_by: str = ""
    timeout_s: float = 86_400.0
    node_specs: tuple[NodeSpec, ...] = ()
    """Of the nodes that have more than a name."""
    wants: Requirements = field(default_factory=Requirements)
    document: str | None = None
    """The exact text that it was made from."""
    plan_version: int | None = None
    hidden: Mapping[str, Any] = field(default_factory=dict)
    """The masked values, and ``webhook_secret``; sealed when stored."""
    parent: str | None = None
    """The run that started it, by its step ``parent_step``."""
    parent_step: str | None = None
    depth: int = 0
    """How many runs it is nested in."""
    rerun_of: str | None = None

    @property
    def main_steps(self) -> int:
        """How many steps count for the result."""
        return sum(step.phase is Phase.MAIN for step in self.steps)

    def run(self) -> Run:
        """The run before anything has happened."""
        return Run(
            id=self.id,
            group=self.group,
            undecided=self.main_steps,
            timeout_s=self.timeout_s,
            cleanup=dict(Counter(step.phase for step in self.steps if step.phase is not Phase.MAIN)),
            wants=self.wants,
            parent=self.parent,
            parent_step=self.parent_step,
        )

    def nodes(self) -> dict[str, Node]:
        """The nodes before anything has happened."""
        unfinished = Counter(step.node for step in self.steps)
        undecided = Counter(edge.target for edge in self.edges)
        phases = {step.node: step.phase for step in self.steps}
        specs = {spec.name: spec for spec in self.node_specs}
        plain = NodeSpec("")
        return {
            name: Node(
                self.id,
                name,
                unfinished=count,
                undecided=undecided[name],
                phase=phases[name],
                max_parallel=specs.get(name, plain).max_parallel,
                untold=count if specs.get(name, plain).max_parallel is not None else 0,
                fail_fast=specs.get(name, plain).fail_fast,
                rules=specs.get(name, plain).rules,
            )
            for name, count in unfinished.items()
        }

    def rows(self) -> tuple[Step, ...]:
        """The steps before anything has happened, in document order."""
        return tuple(
            Step(
                id=spec.id,
                run=self.id,
                node=spec.node,
                name=spec.name,
                attempt=1,
                tries=1,
                timeout_s=spec.timeout_s,
                grace_s=spec.grace_s,
                retry=spec.retry,
                idempotent=spec.idempotent,
                phase=spec.phase,
                kind=spec.kind,
                instance=spec.instance,
                matrix=spec.matrix,
                role=spec.role,
                role_index=spec.role_index,
                host=spec.reused.host if spec.reused else None,
                outputs=spec.reused.outputs if spec.reused else None,
                reuse=spec.reused.step if spec.reused else None,
            )
            for spec in self.steps
        )

    def first_slice(self) -> Slice:
        """The slice of the first decision: the run and the main steps of nodes without edges, up to BATCH of them.

        The nodes of the others are marked as due when the run is stored.
        """
        nodes = self.nodes()
        roots = [row for row in self.rows() if row.phase is Phase.MAIN and nodes[row.node].undecided == 0]
        steps = tuple(roots[:BATCH])
        names = {step.node for step in steps}
        edges: dict[str, tuple[Edge, ...]] = {}
        for edge in self.edges:
            if edge.source in names:
                edges[edge.source] = (*edges.get(edge.source, ()), Edge(edge.condition, nodes[edge.target]))
        return Slice(
            run=self.run(),
            steps=steps,
            nodes=tuple(nodes[name] for name in sorted(names)),
            edges=edges,
            more=len(roots) > BATCH,
            scope=first_scope(self) if self.node_specs else None,
        )


def first_scope(spec: RunSpec) -> dict[str, Any]:
    """What expressions may read before anything has happened; hidden parameters are masked in it."""
    return {
        "params": dict(spec.parameters),
        "steps": {},
        "hosts": {},
        "volumes": {},
        "run": run_scope(spec.id, spec.name, spec.parent),
    }
