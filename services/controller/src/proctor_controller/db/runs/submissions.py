"""SQL that stores a new run together with its first decision, in one statement."""

# ruff: noqa: S608 - statements are put together from constants of this package; SQL is not wrapped

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from proctor_common.states import StepState
from proctor_controller.db.column import Columns
from proctor_controller.db.runs.columns import (
    CASE_MADE,
    EDGES,
    NODES_MADE,
    PLAN_MADE,
    STEPS_MADE,
    Hidden,
    NewRun,
    NewStep,
    attempts_json,
    case_values,
    edges_json,
    events_json,
    new_nodes_json,
    new_steps_json,
    plan_values,
)
from proctor_controller.db.runs.decisions import ATTEMPTS_SAVED, EVENTS_SAVED, add_argument, claim
from proctor_controller.db.session import Session, clean
from proctor_controller.domain.runs.decision import Decision
from proctor_controller.domain.runs.step import Node, Phase
from proctor_controller.domain.runs.submission import RunSpec

__all__ = ["DuplicateRun", "Hidden", "Inserted", "insert_run"]

_IF_MADE = "WHERE EXISTS (SELECT 1 FROM run)"
_EDGES = f""", edges AS (
  INSERT INTO control.edges (run_id, {EDGES.names}) SELECT $1::uuid, {EDGES.insert_record}
  FROM json_to_recordset({{rows}}::json) AS x({EDGES.record}) {_IF_MADE})"""


def _insert(run: Columns) -> str:
    """The statement; $1 is the run, followed by its columns."""
    return f"""WITH {{claim}} run AS (
  INSERT INTO control.runs (id, {run.names}) SELECT $1::uuid, {run.insert_arguments(2)}
  WHERE {{claimed}} RETURNING number, created_at),
steps AS (
  INSERT INTO control.steps (run_id, {STEPS_MADE.names}) SELECT $1::uuid, {STEPS_MADE.insert_record}
  FROM json_to_recordset({{steps}}::json) AS x({STEPS_MADE.record}) {_IF_MADE}),
nodes AS (
  INSERT INTO control.nodes (run_id, {NODES_MADE.names}) SELECT $1::uuid, {NODES_MADE.insert_record}
  FROM json_to_recordset({{nodes}}::json) AS x({NODES_MADE.record}) {_IF_MADE}),
ev AS ({EVENTS_SAVED.format(run="$1::uuid", rows="{events}", where=_IF_MADE)})
{{edges}}{{attempts}}
SELECT (SELECT number FROM run) AS number, now() AS at, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids"""


_CASE, _PLAN = _insert(CASE_MADE), _insert(PLAN_MADE)
_PARENT = "parent AS (SELECT 1 FROM control.steps WHERE id = {step}::uuid AND state = 'running' FOR SHARE),"


class DuplicateRun(Exception):
    """There is a run with this id already: the same request came twice."""


class Inserted(NamedTuple):
    """A stored run: its number, when it was created, and the ids of its first events."""

    number: int
    at: datetime
    ids: list[int]


async def insert_run(
    session: Session,
    spec: RunSpec,
    hidden: Mapping[str, Hidden],
    decision: Decision,
    now: datetime,
    *,
    sealed: str | None = None,
    if_nobody_waits: bool = False,
) -> Inserted | None:
    """Store the run as the decision leaves it. ``hidden``: by the step's id; ``now``: of the decision; ``sealed``: the
    run's own hidden values.

    None, and nothing is stored: the slot that it needs is gone, or (if asked so) a step waits for a slot, or the
    parent's step has ended. Raises DuplicateRun.
    """
    new = NewRun(decision.run, spec, sealed, now)
    is_plan = spec.document is not None or spec.rerun_of is not None
    args: list[Any] = [spec.id, *(plan_values(new) if is_plan else case_values(new))]
    parts = {
        "steps": add_argument(args, new_steps_json(_steps(spec, hidden, decision))),
        "nodes": add_argument(args, new_nodes_json(_nodes(spec, decision, now))),
        "events": add_argument(args, events_json(decision.events)),
    }
    parts |= {"claim": "", "claimed": "true", "edges": "", "attempts": ""}
    if decision.held:
        (held,) = decision.held
        guard = "NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND" if if_nobody_waits else ""
        parts["claim"] = claim(args, held, guard, is_new=True)
        parts["claimed"] = "EXISTS (SELECT 1 FROM claim)"
    if spec.parent_step is not None:
        # A nested plan's run is stored only while its step runs, so a step that was stopped never gets one.
        parts["claim"] += _PARENT.format(step=add_argument(args, spec.parent_step))
        parts["claimed"] += " AND EXISTS (SELECT 1 FROM parent)"
    if spec.edges:
        parts["edges"] = _EDGES.format(rows=add_argument(args, edges_json(spec.edges)))
    if decision.attempts:
        rows = add_argument(args, attempts_json(decision.attempts))
        saved = ATTEMPTS_SAVED.format(run="$1::uuid", rows=rows, where=_IF_MADE)
        parts["attempts"] = f", attempts AS ({saved})"
    try:
        row = await session.fetchrow((_PLAN if is_plan else _CASE).format(**parts), *args)
    except asyncpg.UniqueViolationError as fault:
        if fault.constraint_name == "runs_pkey":
            raise DuplicateRun(spec.id) from fault
        raise
    return None if row["number"] is None else Inserted(row["number"], row["at"], row["ids"] or [])


def new_run_row(spec: RunSpec, decision: Decision, inserted: Inserted, now: datetime) -> dict[str, Any]:
    """A run that has just been stored, in the form of the rows for views (db/runs/views.py)."""
    run, decided = decision.run, {step.id: step for step in decision.steps}
    main = [decided.get(row.id, row) for row in spec.rows() if row.phase is Phase.MAIN]
    return {
        "id": spec.id,
        "number": inserted.number,
        "name": clean(spec.name),
        "kind": spec.kind,
        "state": run.state,
        "result": run.result,
        "reason": clean(run.reason),
        "created_at": now,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "plan": spec.plan,
        "parameters": dict(spec.parameters),
        "group_name": spec.group,
        "created_by": clean(spec.created_by),
        "rerun_of": spec.rerun_of,
        "parent": spec.parent,
        "outputs": dict(run.outputs or {}),
        "tally": {name.value: count for name, count in run.tally.items()},
        "unfinished": Counter(step.state.value for step in main if step.state is not StepState.FINISHED),
        "phase": run.phase.value,
        "waiting_for": clean(run.waiting_for) if run.waiting_for else None,
        "hold_until": run.hold_until,
        "webhook": None,
    }


def _steps(spec: RunSpec, hidden: Mapping[str, Hidden], decision: Decision) -> list[NewStep]:
    decided = {step.id: step for step in decision.steps}
    return [
        NewStep(decided.get(step.id, row), step, hidden[step.id], index)
        for index, (step, row) in enumerate(zip(spec.steps, spec.rows(), strict=True))
    ]


def _nodes(spec: RunSpec, decision: Decision, now: datetime) -> list[Node]:
    nodes = {**spec.nodes(), **{node.name: node for node in decision.nodes}}
    notified = {step.id for step in decision.steps}
    late = {step.node for step in spec.steps if step.id not in notified and step.phase is Phase.MAIN}
    return [
        replace(node, due_at=now) if node.due_at is None and node.undecided == 0 and node.name in late else node
        for node in nodes.values()
    ]
