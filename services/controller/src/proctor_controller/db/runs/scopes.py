"""SQL of what expressions may read: a run's parameters, its hosts, the results of the steps that they name."""

from collections.abc import Iterable, Sequence
from typing import Any

from proctor_common.states import StepResult
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.spelled import unpack
from proctor_controller.domain.runs.scope import InstanceFacts, Scope, returned, run_scope, steps_scope
from proctor_controller.domain.runs.step import Phase, Step
from proctor_controller.domain.runs.step_rules import Rules

# Only the steps that are referred to, and their methods' output only if it is read, as it may be big.
_SHARED = """SELECT r.id, r.name, r.parent, r.group_name, r.parameters, r.sealed,
 (SELECT json_agg(json_build_array(a.role, a.host, g.labels, g.targets, g.default_target) ORDER BY a.role, a.idx)
  FROM control.allocations a LEFT JOIN control.agents g ON g.id = a.agent_id WHERE a.run_id = r.id) AS hosts,
 (SELECT json_agg(json_build_array(s.node, s.instance, s.result, s.outputs, s.host, t.output, t.error, t.exit_code)
   ORDER BY s.idx)
  FROM control.steps s LEFT JOIN control.steps o ON o.id = s.reuse
  LEFT JOIN control.attempts t ON $3 AND t.step_id = coalesce(o.id, s.id) AND t.attempt = coalesce(o.attempt, s.attempt)
  WHERE s.run_id = r.id AND s.node = ANY($2::text[])) AS steps,
 (SELECT json_agg(json_build_array(v.key, v.id, v.name, v.type, v.size_gb, v.path) ORDER BY v.key, v.created_at)
  FROM control.volumes v WHERE v.run = r.id AND v.state IN ('claimed', 'in_use')) AS volumes
FROM control.runs r WHERE r.id = $1"""
_UNDONE = """SELECT s.result, s.outputs, s.host, t.output, t.error, t.exit_code
FROM control.steps s LEFT JOIN control.attempts t ON t.step_id = s.id AND t.attempt = s.attempt
WHERE s.run_id = $1 AND s.node = $2 AND s.instance = $3"""


class SharedScope:
    """The part of the scope that all steps of a run share. ``names``: what expressions may read; ``sealed``: the hidden
    parameters, as stored; ``group``: of the run.
    """

    def __init__(self, names: Scope, sealed: str | None, group: str | None) -> None:
        self.names, self.sealed, self.group = names, sealed, group


async def load_scope(session: Session, run: str, refs: Sequence[str], *, results: bool = True) -> SharedScope | None:
    """The part of the scope that all steps share, with the steps in ``refs``; ``results``: including what their methods
    returned. None if there is no such run.
    """
    row = await session.fetchrow(_SHARED, run, list(refs), results)
    if row is None:
        return None
    hosts: dict[str, list[dict[str, Any]]] = {}
    for role, host, labels, targets, default in row["hosts"] or ():
        address = (targets or {}).get(default or "", {}).get("host")
        hosts.setdefault(role, []).append({"host": host, "labels": labels or {}, "address": address or host})
    volumes: dict[str, list[dict[str, Any]]] = {}
    for key, number, name, kind, size, path in sorted(row["volumes"] or (), key=lambda each: _place(each[0])):
        found = {"id": number, "name": name, "type": kind, "size_gb": size, "path": path}
        volumes.setdefault(_place(key)[0], []).append(found)
    names = {
        "params": unpack(row["parameters"]),
        "steps": steps_scope(_instance(each) for each in row["steps"] or ()),
        "hosts": hosts,
        "volumes": volumes,
        "run": run_scope(run, row["name"], str(row["parent"]) if row["parent"] else None),
    }
    return SharedScope(names, row["sealed"], row["group_name"])


def _place(key: str) -> tuple[str, int]:
    """The name and number in a volume's key: ``data[1]``."""
    name, _, number = key.partition("[")
    return name, int(number[:-1]) if number[:-1].isdecimal() else 0


def _instance(columns: Sequence[Any]) -> InstanceFacts:
    node, instance, result, *rest = columns
    outputs, *others = rest
    return InstanceFacts(node, instance, StepResult(result) if result else None, unpack(outputs), *others)


async def load_undone(session: Session, step: Step) -> dict[str, Any] | None:
    """``self`` of a rollback: the result and outputs of the step that it undoes; None for any other step."""
    if step.phase is not Phase.ROLLBACK:
        return None
    row = await session.fetchrow(_UNDONE, step.run, step.node.partition(".")[2], step.instance)
    if row is None:
        return None
    result = returned(row["result"], row["output"], row["error"], row["exit_code"])
    # A rollback undoes what the method made, whether or not the plan declares it as an output.
    outputs = {**(row["output"] or {}), **(unpack(row["outputs"]) or {})}
    return {"result": result, "outputs": outputs, "host": row["host"]}


def refs_of(rules: Iterable[Rules]) -> list[str]:
    """The nodes that any of these rules read."""
    return sorted({name for each in rules for name in each.refs})
