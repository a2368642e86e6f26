"""SQL that loads what follows at once from the end of a step: the nodes it decides, with the steps they are about."""

# ruff: noqa: S608 - statements are put together from constants of this package

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from proctor_common.messages.orders import StartOrder
from proctor_controller.db.hosts.candidates import place_in
from proctor_controller.db.runs.columns import NODE_COLUMNS, STEP_COLUMNS, TARGET_COLUMNS, to_edges, to_node, to_step
from proctor_controller.db.session import Row, Session
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step import Edge, Node, Step

MOST = 8
"""Steps of one node that are told in the breath of another's end; where there are more, the node is told by itself."""

_ONWARD = f"""SELECT n.name AS of_node, {NODE_COLUMNS}, {STEP_COLUMNS}, s.plugin, s.method, s.parameters, s.sealed,
 s.env, s.target, s.place_host, s.place_group, s.place_labels, r.number, l.host AS leased,
 (SELECT json_agg(json_build_array(e.source, e.condition, {TARGET_COLUMNS}))
  FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target
  WHERE e.run_id = n.run_id AND e.source = n.name) AS edges
FROM control.runs r JOIN control.nodes n ON n.run_id = r.id LEFT JOIN LATERAL (
  SELECT * FROM control.steps p WHERE p.run_id = n.run_id AND p.node = n.name AND p.state = 'pending'
  ORDER BY p.idx LIMIT {MOST + 1}) s ON true
LEFT JOIN control.allocations l ON l.run_id = r.id AND l.role = s.role AND l.idx = coalesce(s.role_index, 0)
WHERE r.id = $1 AND n.name = ANY($2::text[]) ORDER BY s.idx"""


class Ready(NamedTuple):
    """A pending step. ``order``: its start order, but for what belongs to one attempt; None where it has hidden values
    or templates.
    """

    step: Step
    place: Placement
    plugin: str
    method: str
    order: StartOrder | None


class Onward(NamedTuple):
    """A node with its first pending steps, MOST + 1 at most."""

    node: Node
    edges: Mapping[str, tuple[Edge, ...]]
    steps: tuple[Ready, ...]


async def load_onward(session: Session, run: str, names: Sequence[str]) -> dict[str, Onward]:
    """Nodes of a run by name."""
    nodes: dict[str, Onward] = {}
    for row in await session.fetch(_ONWARD, run, list(names)):
        name = row["of_node"]
        known = nodes.get(name)
        if known is None:
            node = to_node(row, run, name)
            known = nodes[name] = Onward(node, to_edges(run, row["edges"] or ()), ())
        if row["id"] is not None:
            nodes[name] = known._replace(steps=(*known.steps, _ready(row, known.node)))
    return nodes


def _ready(row: Row, node: Node) -> Ready:
    step = to_step(row)
    order = None
    if row["sealed"] is None and (node.rules is None or not node.rules.is_filling):
        order = StartOrder(
            run=step.run,
            run_number=row["number"],
            step=step.id,
            step_name=step.name,
            attempt=1,
            token="",
            not_after=datetime.now(UTC),
            plugin=row["plugin"],
            method=row["method"],
            parameters=row["parameters"],
            env=row["env"],
            target=row["target"],
            artefacts=list(node.rules.artefacts) if node.rules is not None else [],
            timeout_s=step.timeout_s,
            grace_s=step.grace_s,
        )
    place = place_in(row) if step.role is None else Placement(host=row["leased"])
    return Ready(step, place, row["plugin"], row["method"], order)
