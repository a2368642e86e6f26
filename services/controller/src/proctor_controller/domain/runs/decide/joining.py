"""Joins decisions that are made one after another, to be saved in one commit. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from proctor_controller.domain.runs.decision import Decision, Slice
from proctor_controller.domain.runs.step import Edge, Node


def apply(part: Slice, decision: Decision) -> Slice:
    """The slice after the decision, to decide about another event before anything is saved."""
    steps = {step.id: step for step in decision.steps}
    nodes = {node.name: node for node in decision.nodes}
    return replace(
        part,
        run=decision.run,
        steps=tuple(steps.get(step.id, step) for step in part.steps),
        nodes=tuple(nodes.get(node.name, node) for node in part.nodes),
        edges={
            name: tuple(replace(edge, target=nodes.get(edge.target.name, edge.target)) for edge in edges)
            for name, edges in part.edges.items()
        },
    )


def join(first: Decision, second: Decision, *, done: tuple[type, ...] = ()) -> Decision:
    """Two decisions, made one after another, as one; without the first one's effects of the kinds ``done``."""
    steps = {step.id: step for step in (*first.steps, *second.steps)}
    nodes = {node.name: node for node in (*first.nodes, *second.nodes)}
    attempts = {(row.step, row.attempt): row for row in (*first.attempts, *second.attempts)}
    return Decision(
        before=first.before,
        run=replace(second.run, version=first.before + 1),
        steps=tuple(steps.values()),
        nodes=tuple(nodes.values()),
        attempts=tuple(attempts.values()),
        events=(*first.events, *second.events),
        held=(*first.held, *second.held),
        released=(*first.released, *second.released),
        records=(*first.records, *second.records),
        effects=(*(effect for effect in first.effects if not isinstance(effect, done)), *second.effects),
    )


def after(part: Slice, decision: Decision) -> Slice:
    """Another step's slice of the same moment, after the decision."""
    changed = {node.name: node for node in decision.nodes}
    return replace(
        part,
        run=decision.run,
        nodes=tuple(as_changed(node, changed) for node in part.nodes),
        edges={name: edges_as_changed(edges, changed) for name, edges in part.edges.items()},
    )


def as_changed(node: Node, changed: Mapping[str, Node]) -> Node:
    """The node after the decision, which may have seen only a part of its columns."""
    known = changed.get(node.name)
    if known is None:
        return node
    return replace(
        node,
        unfinished=known.unfinished,
        failed=known.failed,
        undecided=known.undecided,
        dead=known.dead,
        due_at=known.due_at,
        untold=known.untold,
    )


def edges_as_changed(edges: Iterable[Edge], changed: Mapping[str, Node]) -> tuple[Edge, ...]:
    """The edges with their targets after the decision."""
    return tuple(replace(edge, target=as_changed(edge.target, changed)) for edge in edges)
