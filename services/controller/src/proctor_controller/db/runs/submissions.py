"""SQL that stores a new run with what has been decided about it, in one statement."""

# ruff: noqa: E501 - SQL is not wrapped

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from proctor_controller.db.runs.columns import (
    RUN_STATE,
    attempts_json,
    events_json,
    retry_fields,
    run_state,
    run_values,
    step_fields,
)
from proctor_controller.db.runs.decisions import ATTEMPTS_SAVED, CLAIM, EVENTS_SAVED, UNHELD
from proctor_controller.db.session import Session, clean, rows_json, to_json
from proctor_controller.domain.runs.decision import Decision
from proctor_controller.domain.runs.step import Phase
from proctor_controller.domain.runs.submission import RunSpec, StepSpec

_EDGES = """, edges AS (
  INSERT INTO control.edges (run_id, source, target, condition)
  SELECT $1::uuid, x.source, x.target, x.condition
  FROM json_to_recordset({rows}::json) AS x(source text, target text, condition text) WHERE EXISTS (SELECT 1 FROM run))"""
_INSERT = """WITH {claim} run AS (
  INSERT INTO control.runs (id, version, state, result, reason, event_seq, attempt_seq, undecided, tally, cause, cancel_by,
   deadline, due_at, started_at, finished_at, name, kind, group_name, timeout_s, plan, parameters, created_by, created_at{run_columns})
  SELECT $1::uuid, $2::int, $3::text, $4::text, $5::text, $6::int, $7::int, $8::int, $9::jsonb, $10::text, $11::text,
   $12::timestamptz, $13::timestamptz, $14::timestamptz, $15::timestamptz, $16::text, $17::text, $18::text,
   $19::double precision, $20::text, $21::json, $22::text, $23::timestamptz{run_values}
  WHERE {claimed} RETURNING number, created_at),
steps AS (
  INSERT INTO control.steps (id, run_id, idx, node, name, instance, plugin, method, parameters, sealed, env, target,
   place_host, place_group, place_labels, timeout_s, grace_s, retry, idempotent, state, result, reason, waiting_for,
   attempt, tries, token, agent_id, host, sends, refusals, cause, deadline, due_at, ready_at, started_at, finished_at,
   phase, kind, matrix, role, role_index, outputs, reuse)
  SELECT x.id, $1::uuid, x.idx, x.node, x.name, x.instance, x.plugin, x.method, x.parameters::json, x.sealed, x.env::json, x.target,
   x.place_host, x.place_group, x.place_labels, x.timeout_s, x.grace_s, x.retry, x.idempotent, x.state, x.result,
   x.reason, x.waiting_for, x.attempt, x.tries, x.token, x.agent_id, x.host, x.sends, x.refusals, x.cause, x.deadline,
   x.due_at, x.ready_at, x.started_at, x.finished_at, x.phase, x.kind, x.matrix::json, x.role, x.role_index, x.outputs::json, x.reuse
  FROM json_to_recordset($24::json) AS x(id uuid, idx int, node text, name text, instance text, plugin text, method text,
   parameters text, sealed text, env text, target text, place_host text, place_group text, place_labels jsonb,
   timeout_s double precision, grace_s double precision, retry jsonb, idempotent bool, state text, result text,
   reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int,
   cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz,
   finished_at timestamptz, phase text, kind text, matrix text, role text, role_index int, outputs text, reuse uuid)
  WHERE EXISTS (SELECT 1 FROM run)),
nodes AS (
  INSERT INTO control.nodes (run_id, name, unfinished, failed, undecided, dead, due_at, untold, phase, rules, max_parallel,
   fail_fast)
  SELECT $1::uuid, x.name, x.unfinished, x.failed, x.undecided, x.dead, x.due_at, x.untold, x.phase, x.rules::json,
   x.max_parallel, x.fail_fast
  FROM json_to_recordset($25::json) AS x(name text, unfinished int, failed int, undecided int, dead bool,
   due_at timestamptz, untold int, phase text, rules text, max_parallel int, fail_fast bool)
  WHERE EXISTS (SELECT 1 FROM run)),
ev AS ({events})
{edges}{attempts}
SELECT (SELECT number FROM run) AS number, now() AS at, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids"""
_OF_PLAN = (
    ("plan_version", "int"),
    ("document", "text"),
    ("sealed", "text"),
    ("wants", "json"),
    ("concurrency_key", "text"),
    ("parent", "uuid"),
    ("parent_step", "uuid"),
    ("depth", "int"),
    ("rerun_of", "uuid"),
)
"""Columns of a run that a test case leaves as they are."""
_PARENT = "parent AS (SELECT 1 FROM control.steps WHERE id = {step}::uuid AND state = 'running' FOR SHARE),"
_IF_SAVED = "WHERE EXISTS (SELECT 1 FROM run)"


class DuplicateRun(Exception):
    """There is a run with this id already: the same request came twice."""


class Inserted(NamedTuple):
    """A stored run: its number, when it was created, and the ids of its first events."""

    number: int
    at: datetime
    ids: list[int]


class Hidden(NamedTuple):
    """A step's parameters as they are stored: hidden values masked, and the whole sealed where there are any."""

    parameters: Mapping[str, Any]
    sealed: str | None


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
    """Store the run as the decision leaves it. ``hidden`` by the step's id; ``now``: of the decision; ``sealed``: the
    run's own hidden values.

    None, and nothing is stored: the slot it needs is gone (or, if asked so, some step waits for a slot), or the step
    that it was to stand for runs no longer. Raises DuplicateRun.
    """
    run = decision.run
    args: list[Any] = [
        spec.id,
        run.version,
        *run_values(run),
        clean(spec.name),
        spec.kind,
        spec.group,
        spec.timeout_s,
        spec.plan,
        to_json(spec.parameters),
        clean(spec.created_by),
        now,
        _steps(spec, hidden, decision),
        _nodes(spec, decision, now),
        events_json(decision.events),
    ]
    parts = {"claim": "", "claimed": "true", "edges": "", "attempts": "", "run_columns": "", "run_values": ""}
    parts["events"] = EVENTS_SAVED.format(run="$1::uuid", rows="$26", where=_IF_SAVED)
    if decision.held:
        (held,) = decision.held
        guard = "NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND" if if_nobody_waits else ""
        args += [held.agent, held.token, held.step, held.attempt]
        fields = {"agent": "$27", "token": "$28", "step": "$29", "attempt": "$30"}
        parts["claim"] = CLAIM.format(guard=guard, unheld=UNHELD.format(step="NULL"), **fields) + ","
        parts["claimed"] = "EXISTS (SELECT 1 FROM claim)"
    if spec.parent_step is not None:
        # A nested plan's run is stored only while its step runs: one that was stopped meanwhile never gets it.
        args.append(spec.parent_step)
        parts["claim"] += _PARENT.format(step=f"${len(args)}")
        parts["claimed"] += " AND EXISTS (SELECT 1 FROM parent)"
    columns = [*RUN_STATE[:-1]]
    values = [*run_state(run)[:-1]]
    if spec.document is not None or spec.rerun_of is not None:
        columns += _OF_PLAN
        values += _plan_values(spec, sealed)
    parts["run_columns"] = "".join(f", {name}" for name, _ in columns)
    parts["run_values"] = "".join(f", ${len(args) + at}::{kind}" for at, (_, kind) in enumerate(columns, 1))
    args += values
    if spec.edges:
        args.append(rows_json([{"source": e.source, "target": e.target, "condition": e.condition} for e in spec.edges]))
        parts["edges"] = _EDGES.format(rows=f"${len(args)}")
    if decision.attempts:
        args.append(attempts_json(decision.attempts))
        saved = ATTEMPTS_SAVED.format(run="$1::uuid", rows=f"${len(args)}", where=_IF_SAVED)
        parts["attempts"] = f", attempts AS ({saved})"
    try:
        row = await session.fetchrow(_INSERT.format(**parts), *args)
    except asyncpg.UniqueViolationError as fault:
        if fault.constraint_name == "runs_pkey":
            raise DuplicateRun(spec.id) from fault
        raise
    return None if row["number"] is None else Inserted(row["number"], row["at"], row["ids"] or [])


def _plan_values(spec: RunSpec, sealed: str | None) -> tuple[Any, ...]:
    """The values of _OF_PLAN."""
    concurrency = spec.wants.concurrency
    return (
        spec.plan_version,
        None if spec.document is None else clean(spec.document, len(spec.document)),
        sealed,
        to_json(spec.wants.to_json()),
        None if concurrency is None else clean(concurrency.key),
        spec.parent,
        spec.parent_step,
        spec.depth,
        spec.rerun_of,
    )


def _steps(spec: RunSpec, hidden: Mapping[str, Hidden], decision: Decision) -> str:
    decided = {step.id: step for step in decision.steps}
    rows: list[Mapping[str, Any]] = []
    for index, (step, row) in enumerate(zip(spec.steps, spec.rows(), strict=True)):
        rows.append({**_spec_fields(step, hidden[step.id], index), **step_fields(decided.get(step.id, row))})
    return rows_json(rows)


def _spec_fields(step: StepSpec, hidden: Hidden, index: int) -> dict[str, Any]:
    return {
        "idx": index,
        "node": step.node,
        "name": step.name,
        "instance": step.instance,
        "plugin": step.plugin,
        "method": step.method,
        "parameters": to_json(hidden.parameters),
        "sealed": hidden.sealed,
        "env": to_json(dict(step.env)),
        "target": step.target,
        "place_host": step.place.host,
        "place_group": step.place.group,
        "place_labels": None if step.place.labels is None else dict(step.place.labels),
        "timeout_s": step.timeout_s,
        "grace_s": step.grace_s,
        "retry": retry_fields(step.retry),
        "idempotent": step.idempotent,
        "phase": step.phase,
        "kind": step.kind,
        "matrix": None if step.matrix is None else to_json(dict(step.matrix)),
        "role": step.role,
        "role_index": step.role_index,
        "reuse": step.reused.step if step.reused else None,
    }


def _nodes(spec: RunSpec, decision: Decision, now: datetime) -> str:
    nodes = {**spec.nodes(), **{node.name: node for node in decision.nodes}}
    told = {step.id for step in decision.steps}
    late = {step.node for step in spec.steps if step.id not in told and step.phase is Phase.MAIN}
    rules = {node.name: node.rules for node in spec.node_specs if node.rules is not None}
    return rows_json(
        [
            {
                "name": node.name,
                "unfinished": node.unfinished,
                "failed": node.failed,
                "undecided": node.undecided,
                "dead": node.dead,
                "due_at": now if node.due_at is None and node.undecided == 0 and node.name in late else node.due_at,
                "untold": node.untold,
                "phase": node.phase,
                "rules": to_json(rules[node.name].to_json()) if node.name in rules else None,
                "max_parallel": node.max_parallel,
                "fail_fast": node.fail_fast,
            }
            for node in nodes.values()
        ]
    )
