"""Rows of runs, steps, nodes and attempts as the domain's dataclasses, and back. No I/O."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.db.session import Row, clean, rows_json, to_json
from proctor_controller.domain.hosts.requirements import Requirements, requirements_of
from proctor_controller.domain.runs.decision import AttemptRow, EventRow, RecordRow
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.step import Cause, Condition, Edge, Node, Phase, Retry, RetryOn, Step, StepKind
from proctor_controller.domain.runs.step_rules import rules_of

RUN_COLUMNS = """r.id AS run_id, r.state AS run_state, r.result AS run_result, r.reason AS run_reason, r.group_name,
 r.version, r.event_seq, r.attempt_seq, r.undecided, r.tally, r.cause AS run_cause, r.cancel_by,
 r.timeout_s AS run_timeout_s, r.deadline AS run_deadline, r.due_at AS run_due_at,
 r.started_at AS run_started_at, r.finished_at AS run_finished_at, r.phase AS run_phase, r.cleanup, r.live, r.wants,
 r.waiting_for AS run_waiting_for, r.pause_by, r.hold_until, r.parent, r.parent_step, clock_timestamp() AS now"""
STEP_COLUMNS = """s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries,
 s.token, s.agent_id, s.host, s.sends, s.refusals, s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline,
 s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix, s.role, s.role_index,
 s.outputs, s.reuse"""
NODE_COLUMNS = """n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at,
 n.phase AS node_phase, n.max_parallel, n.untold, n.fail_fast, n.rules"""
TARGET_COLUMNS = "t.name, t.unfinished, t.failed, t.undecided, t.dead, t.due_at, t.untold"
"""Of the node that an edge leads to: what a decision may change."""


NO_WANTS = Requirements()


def to_run(row: Row) -> Run:
    """The run in a row of RUN_COLUMNS."""
    return Run(
        id=str(row["run_id"]),
        state=RunState(row["run_state"]),
        result=RunResult(row["run_result"]) if row["run_result"] else None,
        reason=row["run_reason"],
        group=row["group_name"],
        version=row["version"],
        event_seq=row["event_seq"],
        attempt_seq=row["attempt_seq"],
        undecided=row["undecided"],
        tally={StepResult(name): count for name, count in row["tally"].items()},
        cause=RunResult(row["run_cause"]) if row["run_cause"] else None,
        cancel_by=row["cancel_by"],
        timeout_s=row["run_timeout_s"],
        deadline=row["run_deadline"],
        due_at=row["run_due_at"],
        started_at=row["run_started_at"],
        finished_at=row["run_finished_at"],
        phase=Phase(row["run_phase"]),
        cleanup={Phase(name): count for name, count in row["cleanup"].items()},
        live=row["live"],
        wants=requirements_of(row["wants"]) if row["wants"] else NO_WANTS,
        waiting_for=row["run_waiting_for"],
        pause_by=row["pause_by"],
        hold_until=row["hold_until"],
        parent=str(row["parent"]) if row["parent"] else None,
        parent_step=str(row["parent_step"]) if row["parent_step"] else None,
    )


def to_step(row: Row) -> Step:
    """The step in a row of STEP_COLUMNS."""
    return Step(
        id=str(row["id"]),
        run=str(row["run"]),
        node=row["node"],
        name=row["name"],
        state=StepState(row["state"]),
        result=StepResult(row["result"]) if row["result"] else None,
        reason=row["reason"],
        waiting_for=row["waiting_for"],
        attempt=row["attempt"],
        tries=row["tries"],
        token=row["token"],
        agent=str(row["agent_id"]) if row["agent_id"] else None,
        host=row["host"],
        sends=row["sends"],
        refusals=row["refusals"],
        cause=Cause(row["cause"]) if row["cause"] else None,
        timeout_s=row["timeout_s"],
        grace_s=row["grace_s"],
        retry=to_retry(row["retry"]),
        idempotent=row["idempotent"],
        deadline=row["deadline"],
        due_at=row["due_at"],
        ready_at=row["ready_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        phase=Phase(row["phase"]),
        kind=StepKind(row["kind"]),
        instance=row["instance"],
        matrix=row["matrix"],
        role=row["role"],
        role_index=row["role_index"],
        outputs=row["outputs"],
        reuse=str(row["reuse"]) if row["reuse"] else None,
    )


def to_retry(fields: dict[str, Any] | None) -> Retry:
    """The retry policy in its column; null is the default one."""
    if fields is None:
        return Retry()
    return Retry(**{**fields, "on": frozenset(RetryOn(word) for word in fields["on"])})


def retry_fields(retry: Retry) -> dict[str, Any] | None:
    """The column of a retry policy; the default one is null."""
    if retry == Retry():
        return None
    return {
        "attempts": retry.attempts,
        "delay_s": retry.delay_s,
        "backoff": retry.backoff,
        "max_delay_s": retry.max_delay_s,
        "on": sorted(retry.on),
    }


def to_node(row: Row, run: str) -> Node:
    """The node in a row of NODE_COLUMNS and ``node``."""
    return Node(
        run=run,
        name=row["node"],
        unfinished=row["unfinished"],
        failed=row["failed"],
        undecided=row["node_undecided"],
        dead=row["dead"],
        due_at=row["node_due_at"],
        phase=Phase(row["node_phase"]),
        max_parallel=row["max_parallel"],
        untold=row["untold"],
        fail_fast=row["fail_fast"],
        rules=rules_of(row["rules"]),
    )


def to_edges(run: str, rows: Iterable[Any]) -> dict[str, tuple[Edge, ...]]:
    """Edges by their source, from rows (source, condition, TARGET_COLUMNS)."""
    edges: dict[str, tuple[Edge, ...]] = {}
    for row in rows:
        source, condition, name, unfinished, failed, undecided, dead, due, untold = tuple(row)
        due_at = datetime.fromisoformat(due) if isinstance(due, str) else due
        target = Node(run, name, unfinished, failed, undecided, dead, due_at, untold=untold)
        edges[source] = (*edges.get(source, ()), Edge(Condition(condition), target))
    return edges


def run_values(run: Run) -> tuple[Any, ...]:
    """The run's columns that change, in the order of the statements."""
    return (
        run.state.value,
        run.result.value if run.result else None,
        clean(run.reason),
        run.event_seq,
        run.attempt_seq,
        run.undecided,
        to_json({name.value: count for name, count in run.tally.items()}),
        run.cause.value if run.cause else None,
        run.cancel_by,
        run.deadline,
        run.due_at,
        run.started_at,
        run.finished_at,
    )


def run_state(run: Run) -> tuple[Any, ...]:
    """Further columns of the run that change, in the order of RUN_STATE."""
    return (
        run.phase.value,
        to_json({name.value: count for name, count in run.cleanup.items()}),
        run.live,
        clean(run.waiting_for) if run.waiting_for else None,
        run.pause_by,
        run.hold_until,
        None if run.outputs is None else to_json(dict(run.outputs)),
    )


RUN_STATE = (
    ("phase", "text"),
    ("cleanup", "json"),
    ("live", "int"),
    ("waiting_for", "text"),
    ("pause_by", "text"),
    ("hold_until", "timestamptz"),
    ("outputs", "json"),
)


def step_fields(step: Step) -> dict[str, Any]:
    """The step's columns that change."""
    return {
        "id": step.id,
        "state": step.state,
        "result": step.result,
        "reason": clean(step.reason),
        "waiting_for": clean(step.waiting_for) if step.waiting_for else None,
        "attempt": step.attempt,
        "tries": step.tries,
        "token": step.token,
        "agent_id": step.agent,
        "host": step.host,
        "sends": step.sends,
        "refusals": step.refusals,
        "cause": step.cause,
        "deadline": step.deadline,
        "due_at": step.due_at,
        "ready_at": step.ready_at,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "outputs": None if step.outputs is None else to_json(dict(step.outputs)),
    }


def steps_json(steps: Iterable[Step]) -> str:
    """Steps for json_to_recordset."""
    return rows_json([step_fields(step) for step in steps])


def nodes_json(nodes: Iterable[Node]) -> str:
    """Nodes for json_to_recordset."""
    return rows_json(
        [
            {
                "name": node.name,
                "unfinished": node.unfinished,
                "failed": node.failed,
                "undecided": node.undecided,
                "dead": node.dead,
                "due_at": node.due_at,
                "untold": node.untold,
            }
            for node in nodes
        ]
    )


def attempts_json(attempts: Iterable[AttemptRow]) -> str:
    """Attempts for json_to_recordset."""
    rows: list[dict[str, Any]] = []
    for row in attempts:
        end = row.end
        rows.append(
            {
                "step_id": row.step,
                "attempt": row.attempt,
                "idx": row.index,
                "agent_id": row.agent,
                "token": row.token,
                "state": row.state,
                "result": row.result,
                "reason": clean(row.reason),
                "exit_code": end.exit_code if end else None,
                # JSON as text within the JSON: PostgreSQL would refuse a NUL in it otherwise.
                "output": to_json(dict(end.output)) if end else None,
                "error": to_json(dict(end.error)) if end and end.error is not None else None,
                "chunks": end.chunks if end else None,
                "lines": end.lines if end else None,
                "bytes": end.bytes if end else None,
                "tree_gone": end.tree_gone if end else None,
                "reported": row.reported,
                "started_at": row.started_at,
                "finished_at": row.finished_at,
            }
        )
    return rows_json(rows)


def records_json(rows: Iterable[RecordRow]) -> str:
    """What is to be recorded for json_to_recordset."""
    return rows_json([{"step_id": row.step, "attempt": row.attempt, "body": to_json(dict(row.body))} for row in rows])


def events_json(rows: Iterable[EventRow]) -> str:
    """Events for json_to_recordset."""
    return rows_json(
        [
            {
                "seq": row.seq,
                "kind": row.kind,
                "step_id": row.step,
                "step": row.step_name,
                "attempt": row.attempt,
                "host": row.host,
                "old": row.old,
                "new": row.new,
                "result": row.result,
                "reason": clean(row.reason),
            }
            for row in rows
        ]
    )
