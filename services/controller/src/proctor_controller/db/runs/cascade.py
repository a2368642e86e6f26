"""SQL that loads what follows at once from the end of a step: the nodes that it decides, with their first steps."""

# ruff: noqa: S608 - statements are put together from constants of this package

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from proctor_controller.db.hosts.candidates import place_in
from proctor_controller.db.runs.attempts import MethodCall, to_call
from proctor_controller.db.runs.columns import (
    CALL_COLUMNS,
    EDGE_COLUMNS,
    NODE_COLUMNS,
    PLACE_COLUMNS,
    STEP_COLUMNS,
    to_edges,
    to_node,
    to_step,
)
from proctor_controller.db.session import Row, Session
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step import Edge, Node, Step

MAX_STEPS = 8
"""So many steps of a node are decided together with the end of another; with more, the node is decided by itself."""

_NEXT = f"""SELECT n.name AS of_node, {NODE_COLUMNS}, {STEP_COLUMNS}, {CALL_COLUMNS}, {PLACE_COLUMNS}, l.host AS leased,
 (SELECT json_agg(json_build_array({EDGE_COLUMNS}))
  FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target
  WHERE e.run_id = n.run_id AND e.source = n.name) AS edges
FROM control.runs r JOIN control.nodes n ON n.run_id = r.id LEFT JOIN LATERAL (
  SELECT * FROM control.steps p WHERE p.run_id = n.run_id AND p.node = n.name AND p.state = 'pending'
  ORDER BY p.idx LIMIT {MAX_STEPS + 1}) s ON true
LEFT JOIN control.allocations l ON l.run_id = r.id AND l.role = s.role AND l.idx = coalesce(s.role_index, 0)
WHERE r.id = $1 AND n.name = ANY($2::text[]) ORDER BY s.idx"""


class NextStep(NamedTuple):
    """A pending step, its place and its call."""

    step: Step
    place: Placement
    call: MethodCall


class NextNode(NamedTuple):
    """A node that an end decides, with at most MAX_STEPS + 1 of its pending steps."""

    node: Node
    edges: Mapping[str, tuple[Edge, ...]]
    steps: tuple[NextStep, ...]


async def load_next_nodes(session: Session, run: str, names: Sequence[str]) -> dict[str, NextNode]:
    """Nodes of a run by name."""
    nodes: dict[str, NextNode] = {}
    for row in await session.fetch(_NEXT, run, list(names)):
        name = row["of_node"]
        known = nodes.get(name)
        if known is None:
            node = to_node(row, run, name)
            known = nodes[name] = NextNode(node, to_edges(run, row["edges"] or ()), ())
        if row["id"] is not None:
            nodes[name] = known._replace(steps=(*known.steps, _next_step(row, known.node)))
    return nodes


def _next_step(row: Row, node: Node) -> NextStep:
    step = to_step(row)
    place = place_in(row) if step.role is None else Placement(host=row["leased"])
    return NextStep(step, place, to_call(row, node.rules))
