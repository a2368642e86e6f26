"""A run as it is asked for: what is stored of it and of its steps before anything is decided. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_controller.domain.decision import BATCH, Slice
from proctor_controller.domain.placement import Place
from proctor_controller.domain.run import Run
from proctor_controller.domain.step import Condition, Edge, Node, Retry, Step


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step instance. ``parameters``: as given; ``secrets``: paths into them of values that are hidden."""

    id: str
    node: str
    name: str
    plugin: str
    method: str
    place: Place
    instance: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[tuple[str | int, ...], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    timeout_s: float = 1800.0
    grace_s: float = 10.0
    retry: Retry = field(default_factory=Retry)
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """An edge between two nodes, by name."""

    source: str
    target: str
    condition: Condition = Condition.SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run with its steps in document order."""

    id: str
    name: str
    kind: str
    steps: tuple[StepSpec, ...]
    edges: tuple[EdgeSpec, ...] = ()
    plan: str | None = None
    group: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    created_by: str = ""
    timeout_s: float = 86_400.0

    def nodes(self) -> dict[str, Node]:
        """The nodes as they stand before anything has happened."""
        nodes: dict[str, Node] = {}
        for step in self.steps:
            known = nodes.get(step.node)
            nodes[step.node] = Node(self.id, step.node, unfinished=known.unfinished + 1 if known else 1)
        for edge in self.edges:
            node = nodes[edge.target]
            nodes[edge.target] = Node(self.id, node.name, node.unfinished, undecided=node.undecided + 1)
        return nodes

    def rows(self) -> tuple[Step, ...]:
        """The steps as they stand before anything has happened, in document order."""
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
            )
            for spec in self.steps
        )

    def first_slice(self) -> Slice:
        """What the first decision is about: the run and the steps of nodes without edges, up to BATCH of them.

        The nodes of further ones are marked as due when the run is stored.
        """
        nodes = self.nodes()
        roots = [row for row in self.rows() if nodes[row.node].undecided == 0]
        steps = tuple(roots[:BATCH])
        names = {step.node for step in steps}
        edges: dict[str, tuple[Edge, ...]] = {}
        for edge in self.edges:
            if edge.source in names:
                edges[edge.source] = (*edges.get(edge.source, ()), Edge(edge.condition, nodes[edge.target]))
        return Slice(
            run=Run(id=self.id, group=self.group, undecided=len(self.steps), timeout_s=self.timeout_s),
            steps=steps,
            nodes=tuple(nodes[name] for name in sorted(names)),
            edges=edges,
            more=len(roots) > BATCH,
        )
