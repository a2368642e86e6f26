"""The statements that are made of the tables of columns are the ones that were written by hand.

White space is folded; lists are compared as sets, with each placeholder replaced by the value that is bound to it.
The one difference: in the SET list of a run, each placeholder has its column's type behind it, where some had none.
"""

# ruff: noqa: E501 - statements as they were, in long lines

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.db.runs import attempts, cascade, children, decisions, views
from proctor_controller.db.runs.submissions import Hidden, insert_run
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements
from proctor_controller.domain.runs.decision import (
    AttemptRow,
    Decision,
    EventRow,
    RecordRow,
    SlotHeld,
    SlotReleased,
)
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.step import AttemptEnd, Cause, Node, Phase, Retry, Step, StepKind
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec

START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(day: int) -> datetime:
    return START + timedelta(days=day)


class Listening:
    """A session that keeps what is asked of it, and answers nothing."""

    def __init__(self) -> None:
        self.asked: tuple[str, tuple[Any, ...]] = ("", ())

    async def fetchrow(self, text: str, *args: Any) -> dict[str, Any] | None:
        self.asked = text, args
        return {"saved": 0, "number": None} if "INSERT" in text or "UPDATE" in text else None

    async def fetch(self, text: str, *args: Any) -> list[Any]:
        self.asked = text, args
        return []


RUN = Run(
    id="run",
    state=RunState.FINISHED,
    result=RunResult.PASSED,
    reason="why the run",
    version=11,
    event_seq=12,
    attempt_seq=13,
    undecided=14,
    tally={StepResult.PASSED: 15},
    cause=RunResult.CANCELLED,
    cancel_by="who cancelled",
    deadline=moment(1),
    due_at=moment(2),
    started_at=moment(3),
    finished_at=moment(4),
    phase=Phase.ALWAYS,
    cleanup={Phase.ROLLBACK: 16},
    live=17,
    waiting_for="what the run waits for",
    pause_by="who paused",
    hold_until=moment(5),
    outputs={"of": "the run"},
    group="group",
    timeout_s=18.5,
    wants=Requirements(concurrency=Concurrency("key")),
    parent="parent",
    parent_step="parent step",
)
STEP = Step(
    id="step",
    run="run",
    node="node",
    name="name",
    state=StepState.FINISHED,
    result=StepResult.FAILED,
    reason="why the step",
    waiting_for="what the step waits for",
    attempt=21,
    tries=22,
    token="token",
    agent="agent",
    host="host",
    sends=23,
    refusals=24,
    cause=Cause.TIMED_OUT,
    timeout_s=25.5,
    grace_s=26.5,
    retry=Retry(attempts=27),
    idempotent=True,
    deadline=moment(6),
    due_at=moment(7),
    ready_at=moment(8),
    started_at=moment(9),
    finished_at=moment(10),
    phase=Phase.MAIN,
    kind=StepKind.GATE,
    instance="instance",
    matrix={"cell": 28},
    role="role",
    role_index=29,
    outputs={"of": "the step"},
    reuse="reuse",
)
NODE = Node("run", "node", 31, 32, 33, True, moment(11), Phase.MAIN, 35, 34, True, Rules(condition="true"))
END = AttemptEnd(StepResult.FAILED, "", 41, {"a": 1}, {"b": 2}, 42, 43, 44, True)
ATTEMPT = AttemptRow(
    "step", 45, "agent", "token", StepState.RUNNING, 46, StepResult.PASSED, "why", END, True, moment(12), moment(13)
)
EVENT = EventRow(51, "kind", "old", "new", "step", "step name", 52, "host", "result", "why the event")
HELD = SlotHeld("agent", "held token", "held step", 53)
DECISION = Decision(
    before=10,
    run=RUN,
    steps=(STEP,),
    nodes=(NODE,),
    attempts=(ATTEMPT,),
    events=(EVENT,),
    held=(HELD,),
    released=(SlotReleased("agent", "old token"), SlotReleased("other", "other token")),
    records=(RecordRow("step", 54, {"c": 3}),),
)
SPEC = RunSpec(
    id="run",
    name="name of the run",
    kind="kind of the run",
    steps=(
        StepSpec(
            id="step",
            node="node",
            name="name",
            plugin="plugin",
            method="method",
            place=Placement("place host", "place group", (("label", "value"),)),
            instance="instance",
            env={"ENV": "value"},
            target="target",
            timeout_s=25.5,
            grace_s=26.5,
            retry=Retry(attempts=27),
            idempotent=True,
            kind=StepKind.GATE,
            matrix={"cell": 28},
            role="role",
            role_index=29,
        ),
    ),
    edges=(EdgeSpec("source", "target"),),
    plan="plan",
    group="group",
    parameters={"parameter": 1},
    created_by="who made it",
    timeout_s=18.5,
    node_specs=(NodeSpec("node", Phase.MAIN, Rules(condition="true"), 35, True),),
    wants=Requirements(concurrency=Concurrency("key")),
    plan_version=61,
    document="document",
    parent="parent",
    parent_step="parent step",
    depth=62,
    rerun_of="rerun of",
)
HIDDEN = {"step": Hidden({"shown": 1}, "sealed of the step")}


async def statements() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Every statement that columns stand in, with its arguments."""
    said = {}
    session: Any = Listening()
    await decisions.save_decision(session, DECISION)
    said["handed over"] = session.asked
    await decisions.save_decision(session, replace(DECISION, released=()), if_nobody_waits=True)
    said["claimed"] = session.asked
    first = replace(DECISION, steps=(replace(STEP, reuse=None),))
    await insert_run(session, SPEC, HIDDEN, first, moment(14), sealed="sealed of the run", if_nobody_waits=True)
    said["plan"] = session.asked
    case = replace(SPEC, document=None, rerun_of=None, parent_step=None, edges=())
    await insert_run(session, case, HIDDEN, replace(first, held=(), attempts=()), moment(14))
    said["case"] = session.asked
    await attempts.load_order(session, "step", session)
    said["order"] = session.asked
    await children.load_nest(session, "step")
    said["nest"] = session.asked
    for name in ("_OF_STEP", "_OF_RUN", "_UNFINISHED", "_TO_TELL", "_OF_NODE", "_TO_STOP", "_EDGES", "_NODE"):
        said[name] = getattr(decisions, name), ()
    said["_ONWARD"], said["_EVENT"] = (cascade._ONWARD, ()), (views._EVENT, ())
    return said


# fmt: off
WRITTEN: Mapping[str, tuple[str, list[Any]]] = {
    "handed over": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = x.step_id, attempt = x.attempt, token = x.token, taken_at = now() FROM json_to_recordset($26::json) AS
x(agent_id uuid, step_id uuid, attempt int, token text, old text) JOIN control.agents a ON a.id = x.agent_id WHERE EXISTS (SELECT 1 FROM control.runs WHERE id =
$1 AND version = $2) AND l.token = x.old AND l.agent_id = x.agent_id AND l.slot < a.slots AND a.state = 'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1
FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id
<> ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN
control.reservations asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT
control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps t WHERE t.id = x.step_id) >= q.created_at, true)) AND NOT a.draining
OR EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]))) AND (l.held_for IS NULL
OR l.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) RETURNING 1), run AS ( UPDATE control.runs SET version = version + 1, state = $3, result = $4,
reason = $5, event_seq = $6, attempt_seq = $7, undecided = $8, tally = $9::jsonb, cause = $10, cancel_by = $11, deadline = $12, due_at = $13, started_at = $14,
finished_at = $15, phase = $18::text, cleanup = $19::json, live = $20::int, waiting_for = $21::text, pause_by = $22::text, hold_until = $23::timestamptz,
outputs = coalesce($24::json, outputs) WHERE id = $1 AND version = $2 AND (SELECT count(*) FROM claim) = 1 RETURNING 1), steps AS ( UPDATE control.steps s SET
state = x.state, result = x.result, reason = x.reason, waiting_for = x.waiting_for, attempt = x.attempt, tries = x.tries, token = x.token, agent_id =
x.agent_id, host = x.host, sends = x.sends, refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at = x.ready_at, started_at
= x.started_at, finished_at = x.finished_at, outputs = coalesce(x.outputs::json, s.outputs) FROM json_to_recordset($16::json) AS x(id uuid, state text, result
text, reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz,
due_at timestamptz, ready_at timestamptz, started_at timestamptz, finished_at timestamptz, outputs text) WHERE s.id = ANY($25::uuid[]) AND s.id = x.id AND
EXISTS (SELECT 1 FROM run) RETURNING 1), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason)
SELECT $1, x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($17::json) AS x(seq int, kind text,
step_id uuid, step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id,
seq) , nodes AS ( UPDATE control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided = x.undecided, dead = x.dead, due_at = x.due_at, untold =
x.untold FROM json_to_recordset($28::json) AS x(name text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE n.run_id
= $1 AND n.name = ANY($27::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (step_id, attempt,
run_id, idx, agent_id, token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT
x.step_id, x.attempt, $1::uuid, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code, x.output::json, x.error::json, x.chunks,
x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($29::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid,
token text, state text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool,
started_at timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id,
token = excluded.token, state = excluded.state, result = excluded.result, reason = excluded.reason, exit_code = excluded.exit_code, output = excluded.output,
error = excluded.error, chunks = excluded.chunks, lines = excluded.lines, bytes = excluded.bytes, tree_gone = excluded.tree_gone, reported = excluded.reported,
started_at = excluded.started_at, finished_at = excluded.finished_at), released AS ( UPDATE control.leases SET step_id = NULL, attempt = NULL, token = NULL,
taken_at = NULL WHERE token = ANY($30::text[]) AND EXISTS (SELECT 1 FROM run)), records AS ( INSERT INTO control.records (run_id, step_id, attempt, body) SELECT
$1, x.step_id, x.attempt, x.body::json FROM json_to_recordset($31::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT
DO NOTHING) SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, (EXISTS (SELECT 1 FROM control.steps
WHERE state = 'waiting') OR EXISTS (SELECT 1 FROM control.reservations)) AS queue, 1 / (CASE WHEN (SELECT count(*) FROM run) * 1 = (SELECT count(*) FROM claim)
AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length($16::json) THEN 1 ELSE 0 END) AS whole""",
        ['run', 10, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', '2026-01-02T00:00:00+00:00', '2026-01-03T00:00:00+00:00', '2026-01-04T00:00:00+00:00', '2026-01-05T00:00:00+00:00', '[{"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', '2026-01-06T00:00:00+00:00', '{"of":"the run"}', ['step'], '[{"agent_id":"agent","step_id":"held step","attempt":53,"token":"held token","old":"old token"}]', ['node'], '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]', ['other token'], '[{"step_id":"step","attempt":54,"body":"{\\"c\\":3}"}]'],
    ),
    "claimed": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = $28::uuid, attempt = $29::int, token = $27::text, taken_at = now() WHERE EXISTS (SELECT 1 FROM
control.runs WHERE id = $1 AND version = $2) AND NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND (l.agent_id, l.slot) = ( SELECT
f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id WHERE f.agent_id = $26::uuid AND f.step_id IS NULL AND f.slot < a.slots AND
a.state = 'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1 FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND
q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <> ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT
EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT
control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps
t WHERE t.id = $28::uuid) >= q.created_at, true)) AND NOT a.draining OR EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY
((SELECT control.lineage($1::uuid))::uuid[]))) AND (f.held_for IS NULL OR f.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) ORDER BY f.slot LIMIT 1
FOR UPDATE OF f SKIP LOCKED) RETURNING 1), run AS ( UPDATE control.runs SET version = version + 1, state = $3, result = $4, reason = $5, event_seq = $6,
attempt_seq = $7, undecided = $8, tally = $9::jsonb, cause = $10, cancel_by = $11, deadline = $12, due_at = $13, started_at = $14, finished_at = $15, phase =
$18::text, cleanup = $19::json, live = $20::int, waiting_for = $21::text, pause_by = $22::text, hold_until = $23::timestamptz, outputs = coalesce($24::json,
outputs) WHERE id = $1 AND version = $2 AND (SELECT count(*) FROM claim) = 1 RETURNING 1), steps AS ( UPDATE control.steps s SET state = x.state, result =
x.result, reason = x.reason, waiting_for = x.waiting_for, attempt = x.attempt, tries = x.tries, token = x.token, agent_id = x.agent_id, host = x.host, sends =
x.sends, refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at = x.ready_at, started_at = x.started_at, finished_at =
x.finished_at, outputs = coalesce(x.outputs::json, s.outputs) FROM json_to_recordset($16::json) AS x(id uuid, state text, result text, reason text, waiting_for
text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at
timestamptz, started_at timestamptz, finished_at timestamptz, outputs text) WHERE s.id = ANY($25::uuid[]) AND s.id = x.id AND EXISTS (SELECT 1 FROM run)
RETURNING 1), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1, x.seq, x.kind,
x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($17::json) AS x(seq int, kind text, step_id uuid, step text,
attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , nodes AS ( UPDATE
control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided = x.undecided, dead = x.dead, due_at = x.due_at, untold = x.untold FROM
json_to_recordset($31::json) AS x(name text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE n.run_id = $1 AND
n.name = ANY($30::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (step_id, attempt, run_id, idx,
agent_id, token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT x.step_id,
x.attempt, $1::uuid, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code, x.output::json, x.error::json, x.chunks, x.lines,
x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($32::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token
text, state text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool,
started_at timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id,
token = excluded.token, state = excluded.state, result = excluded.result, reason = excluded.reason, exit_code = excluded.exit_code, output = excluded.output,
error = excluded.error, chunks = excluded.chunks, lines = excluded.lines, bytes = excluded.bytes, tree_gone = excluded.tree_gone, reported = excluded.reported,
started_at = excluded.started_at, finished_at = excluded.finished_at), records AS ( INSERT INTO control.records (run_id, step_id, attempt, body) SELECT $1,
x.step_id, x.attempt, x.body::json FROM json_to_recordset($33::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT DO
NOTHING) SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, false AS queue, 1 / (CASE WHEN (SELECT
count(*) FROM run) * 1 = (SELECT count(*) FROM claim) AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length($16::json) THEN 1 ELSE 0
END) AS whole""",
        ['run', 10, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', '2026-01-02T00:00:00+00:00', '2026-01-03T00:00:00+00:00', '2026-01-04T00:00:00+00:00', '2026-01-05T00:00:00+00:00', '[{"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', '2026-01-06T00:00:00+00:00', '{"of":"the run"}', ['step'], 'agent', 'held token', 'held step', 53, ['node'], '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]', '[{"step_id":"step","attempt":54,"body":"{\\"c\\":3}"}]'],
    ),
    "plan": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = $29::uuid, attempt = $30::int, token = $28::text, taken_at = now() WHERE NOT EXISTS (SELECT 1 FROM
control.steps WHERE state = 'waiting') AND (l.agent_id, l.slot) = ( SELECT f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id
WHERE f.agent_id = $27::uuid AND f.step_id IS NULL AND f.slot < a.slots AND a.state = 'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1 FROM
control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <>
ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations
asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT
control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps t WHERE t.id = NULL) >= q.created_at, true)) AND NOT a.draining OR
EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]))) AND (f.held_for IS NULL OR
f.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) ORDER BY f.slot LIMIT 1 FOR UPDATE OF f SKIP LOCKED) RETURNING 1),parent AS (SELECT 1 FROM
control.steps WHERE id = $31::uuid AND state = 'running' FOR SHARE), run AS ( INSERT INTO control.runs (id, version, state, result, reason, event_seq,
attempt_seq, undecided, tally, cause, cancel_by, deadline, due_at, started_at, finished_at, name, kind, group_name, timeout_s, plan, parameters, created_by,
created_at, phase, cleanup, live, waiting_for, pause_by, hold_until, plan_version, document, sealed, wants, concurrency_key, parent, parent_step, depth,
rerun_of) SELECT $1::uuid, $2::int, $3::text, $4::text, $5::text, $6::int, $7::int, $8::int, $9::jsonb, $10::text, $11::text, $12::timestamptz,
$13::timestamptz, $14::timestamptz, $15::timestamptz, $16::text, $17::text, $18::text, $19::double precision, $20::text, $21::json, $22::text, $23::timestamptz,
$32::text, $33::json, $34::int, $35::text, $36::text, $37::timestamptz, $38::int, $39::text, $40::text, $41::json, $42::text, $43::uuid, $44::uuid, $45::int,
$46::uuid WHERE EXISTS (SELECT 1 FROM claim) AND EXISTS (SELECT 1 FROM parent) RETURNING number, created_at), steps AS ( INSERT INTO control.steps (id, run_id,
idx, node, name, instance, plugin, method, parameters, sealed, env, target, place_host, place_group, place_labels, timeout_s, grace_s, retry, idempotent, state,
result, reason, waiting_for, attempt, tries, token, agent_id, host, sends, refusals, cause, deadline, due_at, ready_at, started_at, finished_at, phase, kind,
matrix, role, role_index, outputs, reuse) SELECT x.id, $1::uuid, x.idx, x.node, x.name, x.instance, x.plugin, x.method, x.parameters::json, x.sealed,
x.env::json, x.target, x.place_host, x.place_group, x.place_labels, x.timeout_s, x.grace_s, x.retry, x.idempotent, x.state, x.result, x.reason, x.waiting_for,
x.attempt, x.tries, x.token, x.agent_id, x.host, x.sends, x.refusals, x.cause, x.deadline, x.due_at, x.ready_at, x.started_at, x.finished_at, x.phase, x.kind,
x.matrix::json, x.role, x.role_index, x.outputs::json, x.reuse FROM json_to_recordset($24::json) AS x(id uuid, idx int, node text, name text, instance text,
plugin text, method text, parameters text, sealed text, env text, target text, place_host text, place_group text, place_labels jsonb, timeout_s double
precision, grace_s double precision, retry jsonb, idempotent bool, state text, result text, reason text, waiting_for text, attempt int, tries int, token text,
agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz,
finished_at timestamptz, phase text, kind text, matrix text, role text, role_index int, outputs text, reuse uuid) WHERE EXISTS (SELECT 1 FROM run)), nodes AS (
INSERT INTO control.nodes (run_id, name, unfinished, failed, undecided, dead, due_at, untold, phase, rules, max_parallel, fail_fast) SELECT $1::uuid, x.name,
x.unfinished, x.failed, x.undecided, x.dead, x.due_at, x.untold, x.phase, x.rules::json, x.max_parallel, x.fail_fast FROM json_to_recordset($25::json) AS x(name
text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int, phase text, rules text, max_parallel int, fail_fast bool) WHERE
EXISTS (SELECT 1 FROM run)), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1::uuid,
x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($26::json) AS x(seq int, kind text, step_id uuid,
step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , edges AS (
INSERT INTO control.edges (run_id, source, target, condition) SELECT $1::uuid, x.source, x.target, x.condition FROM json_to_recordset($47::json) AS x(source
text, target text, condition text) WHERE EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (step_id, attempt, run_id, idx, agent_id,
token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT x.step_id, x.attempt,
$1::uuid, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code, x.output::json, x.error::json, x.chunks, x.lines, x.bytes,
x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($48::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token text, state
text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool, started_at
timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run)) SELECT (SELECT number FROM run) AS number, now() AS at, (SELECT array_agg(id ORDER BY
seq) FROM ev) AS ids""",
        ['run', 11, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', '2026-01-02T00:00:00+00:00', '2026-01-03T00:00:00+00:00', '2026-01-04T00:00:00+00:00', '2026-01-05T00:00:00+00:00', 'name of the run', 'kind of the run', 'group', 18.5, 'plan', '{"parameter":1}', 'who made it', '2026-01-15T00:00:00+00:00', '[{"idx":0,"node":"node","name":"name","instance":"instance","plugin":"plugin","method":"method","parameters":"{\\"shown\\":1}","sealed":"sealed of the step","env":"{\\"ENV\\":\\"value\\"}","target":"target","place_host":"place host","place_group":"place group","place_labels":{"label":"value"},"timeout_s":25.5,"grace_s":26.5,"retry":{"attempts":27,"delay_s":0.0,"backoff":1.0,"max_delay_s":3600.0,"on":["error","failed","timed_out"]},"idempotent":true,"phase":"main","kind":"gate","matrix":"{\\"cell\\":28}","role":"role","role_index":29,"reuse":null,"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34,"phase":"main","rules":"{\\"condition\\":\\"true\\"}","max_parallel":35,"fail_fast":true}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', 'agent', 'held token', 'held step', 53, 'parent step', 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', '2026-01-06T00:00:00+00:00', 61, 'document', 'sealed of the run', '{"concurrency":{"key":"key","max":1,"when_full":"queue"}}', 'key', 'parent', 'parent step', 62, 'rerun of', '[{"source":"source","target":"target","condition":"succeeded"}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]'],
    ),
    "case": (
        """WITH run AS ( INSERT INTO control.runs (id, version, state, result, reason, event_seq, attempt_seq, undecided, tally, cause, cancel_by, deadline, due_at,
started_at, finished_at, name, kind, group_name, timeout_s, plan, parameters, created_by, created_at, phase, cleanup, live, waiting_for, pause_by, hold_until)
SELECT $1::uuid, $2::int, $3::text, $4::text, $5::text, $6::int, $7::int, $8::int, $9::jsonb, $10::text, $11::text, $12::timestamptz, $13::timestamptz,
$14::timestamptz, $15::timestamptz, $16::text, $17::text, $18::text, $19::double precision, $20::text, $21::json, $22::text, $23::timestamptz, $27::text,
$28::json, $29::int, $30::text, $31::text, $32::timestamptz WHERE true RETURNING number, created_at), steps AS ( INSERT INTO control.steps (id, run_id, idx,
node, name, instance, plugin, method, parameters, sealed, env, target, place_host, place_group, place_labels, timeout_s, grace_s, retry, idempotent, state,
result, reason, waiting_for, attempt, tries, token, agent_id, host, sends, refusals, cause, deadline, due_at, ready_at, started_at, finished_at, phase, kind,
matrix, role, role_index, outputs, reuse) SELECT x.id, $1::uuid, x.idx, x.node, x.name, x.instance, x.plugin, x.method, x.parameters::json, x.sealed,
x.env::json, x.target, x.place_host, x.place_group, x.place_labels, x.timeout_s, x.grace_s, x.retry, x.idempotent, x.state, x.result, x.reason, x.waiting_for,
x.attempt, x.tries, x.token, x.agent_id, x.host, x.sends, x.refusals, x.cause, x.deadline, x.due_at, x.ready_at, x.started_at, x.finished_at, x.phase, x.kind,
x.matrix::json, x.role, x.role_index, x.outputs::json, x.reuse FROM json_to_recordset($24::json) AS x(id uuid, idx int, node text, name text, instance text,
plugin text, method text, parameters text, sealed text, env text, target text, place_host text, place_group text, place_labels jsonb, timeout_s double
precision, grace_s double precision, retry jsonb, idempotent bool, state text, result text, reason text, waiting_for text, attempt int, tries int, token text,
agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz,
finished_at timestamptz, phase text, kind text, matrix text, role text, role_index int, outputs text, reuse uuid) WHERE EXISTS (SELECT 1 FROM run)), nodes AS (
INSERT INTO control.nodes (run_id, name, unfinished, failed, undecided, dead, due_at, untold, phase, rules, max_parallel, fail_fast) SELECT $1::uuid, x.name,
x.unfinished, x.failed, x.undecided, x.dead, x.due_at, x.untold, x.phase, x.rules::json, x.max_parallel, x.fail_fast FROM json_to_recordset($25::json) AS x(name
text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int, phase text, rules text, max_parallel int, fail_fast bool) WHERE
EXISTS (SELECT 1 FROM run)), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1::uuid,
x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($26::json) AS x(seq int, kind text, step_id uuid,
step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) SELECT
(SELECT number FROM run) AS number, now() AS at, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids""",
        ['run', 11, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', '2026-01-02T00:00:00+00:00', '2026-01-03T00:00:00+00:00', '2026-01-04T00:00:00+00:00', '2026-01-05T00:00:00+00:00', 'name of the run', 'kind of the run', 'group', 18.5, 'plan', '{"parameter":1}', 'who made it', '2026-01-15T00:00:00+00:00', '[{"idx":0,"node":"node","name":"name","instance":"instance","plugin":"plugin","method":"method","parameters":"{\\"shown\\":1}","sealed":"sealed of the step","env":"{\\"ENV\\":\\"value\\"}","target":"target","place_host":"place host","place_group":"place group","place_labels":{"label":"value"},"timeout_s":25.5,"grace_s":26.5,"retry":{"attempts":27,"delay_s":0.0,"backoff":1.0,"max_delay_s":3600.0,"on":["error","failed","timed_out"]},"idempotent":true,"phase":"main","kind":"gate","matrix":"{\\"cell\\":28}","role":"role","role_index":29,"reuse":null,"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34,"phase":"main","rules":"{\\"condition\\":\\"true\\"}","max_parallel":35,"fail_fast":true}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', '2026-01-06T00:00:00+00:00'],
    ),
    "order": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, r.number, s.plugin, s.method, s.parameters, s.sealed, s.env, s.target, n.rules FROM control.steps s JOIN control.runs
r ON r.id = s.run_id JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",
        ['step'],
    ),
    "nest": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, n.rules, r.state AS run_state, r.group_name, r.depth, r.created_by FROM control.steps s JOIN control.runs r ON r.id =
s.run_id JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",
        ['step'],
    ),
    "_OF_STEP": (
        """SELECT r.id AS run_id, r.state AS run_state, r.result AS run_result, r.reason AS run_reason, r.group_name, r.version, r.event_seq, r.attempt_seq, r.undecided,
r.tally, r.cause AS run_cause, r.cancel_by, r.timeout_s AS run_timeout_s, r.deadline AS run_deadline, r.due_at AS run_due_at, r.started_at AS run_started_at,
r.finished_at AS run_finished_at, r.phase AS run_phase, r.cleanup, r.live, r.wants, r.waiting_for AS run_waiting_for, r.pause_by, r.hold_until, r.parent,
r.parent_step, clock_timestamp() AS now, s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token,
s.agent_id, s.host, s.sends, s.refusals, s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at,
s.phase, s.kind, s.instance, s.matrix, s.role, s.role_index, s.outputs, s.reuse, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS
node_due_at, n.phase AS node_phase, n.max_parallel, n.untold, n.fail_fast, n.rules, (SELECT json_agg(json_build_array(e.source, e.condition, t.name,
t.unfinished, t.failed, t.undecided, t.dead, t.due_at, t.untold)) FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target WHERE
e.run_id = s.run_id AND e.source = s.node) AS edges FROM control.steps s JOIN control.runs r ON r.id = s.run_id JOIN control.nodes n ON n.run_id = s.run_id AND
n.name = s.node WHERE s.id = ANY($1::uuid[]) AND r.id = $2""",
        [],
    ),
    "_OF_RUN": (
        """SELECT r.id AS run_id, r.state AS run_state, r.result AS run_result, r.reason AS run_reason, r.group_name, r.version, r.event_seq, r.attempt_seq, r.undecided,
r.tally, r.cause AS run_cause, r.cancel_by, r.timeout_s AS run_timeout_s, r.deadline AS run_deadline, r.due_at AS run_due_at, r.started_at AS run_started_at,
r.finished_at AS run_finished_at, r.phase AS run_phase, r.cleanup, r.live, r.wants, r.waiting_for AS run_waiting_for, r.pause_by, r.hold_until, r.parent,
r.parent_step, clock_timestamp() AS now FROM control.runs r WHERE r.id = $1""",
        [],
    ),
    "_UNFINISHED": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase,
n.max_parallel, n.untold, n.fail_fast, n.rules FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.run_id = $1 AND
s.state NOT IN ('finished', 'cancelling') AND s.phase = $2 ORDER BY s.idx LIMIT 101""",
        [],
    ),
    "_TO_TELL": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase,
n.max_parallel, n.untold, n.fail_fast, n.rules FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.run_id = $1 AND
s.state = 'pending' AND s.phase = $2 AND (n.due_at IS NOT NULL OR n.undecided = 0 AND (n.max_parallel IS NULL OR n.untold = n.unfinished)) ORDER BY s.idx LIMIT
101""",
        [],
    ),
    "_OF_NODE": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase,
n.max_parallel, n.untold, n.fail_fast, n.rules FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.run_id = $1 AND
s.state = 'pending' AND s.node = $2 ORDER BY s.idx LIMIT $3""",
        [],
    ),
    "_TO_STOP": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals,
s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase, s.kind, s.instance, s.matrix,
s.role, s.role_index, s.outputs, s.reuse, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase,
n.max_parallel, n.untold, n.fail_fast, n.rules FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.run_id = $1 AND
s.state NOT IN ('finished', 'cancelling') AND s.node = $2 ORDER BY s.idx LIMIT $3""",
        [],
    ),
    "_EDGES": (
        """SELECT e.source, e.condition, t.name, t.unfinished, t.failed, t.undecided, t.dead, t.due_at, t.untold FROM control.edges e JOIN control.nodes t ON t.run_id =
e.run_id AND t.name = e.target WHERE e.run_id = $1 AND e.source = ANY($2)""",
        [],
    ),
    "_NODE": (
        """SELECT n.name AS node, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase, n.max_parallel, n.untold,
n.fail_fast, n.rules FROM control.nodes n WHERE n.run_id = $1 AND n.name = $2""",
        [],
    ),
    "_ONWARD": (
        """SELECT n.name AS of_node, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.phase AS node_phase, n.max_parallel,
n.untold, n.fail_fast, n.rules, s.id, s.run_id AS run, s.node, s.name, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id,
s.host, s.sends, s.refusals, s.cause, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.phase,
s.kind, s.instance, s.matrix, s.role, s.role_index, s.outputs, s.reuse, s.plugin, s.method, s.parameters, s.sealed, s.env, s.target, s.place_host,
s.place_group, s.place_labels, r.number, l.host AS leased, (SELECT json_agg(json_build_array(e.source, e.condition, t.name, t.unfinished, t.failed, t.undecided,
t.dead, t.due_at, t.untold)) FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target WHERE e.run_id = n.run_id AND e.source =
n.name) AS edges FROM control.runs r JOIN control.nodes n ON n.run_id = r.id LEFT JOIN LATERAL ( SELECT * FROM control.steps p WHERE p.run_id = n.run_id AND
p.node = n.name AND p.state = 'pending' ORDER BY p.idx LIMIT 9) s ON true LEFT JOIN control.allocations l ON l.run_id = r.id AND l.role = s.role AND l.idx =
coalesce(s.role_index, 0) WHERE r.id = $1 AND n.name = ANY($2::text[]) ORDER BY s.idx""",
        [],
    ),
    "_EVENT": (
        """SELECT e.id, e.run_id, e.seq, e.kind, e.step_id, e.step, e.attempt, e.host, e.old, e.new, e.result, e.reason, e.at FROM control.run_events e""",
        [],
    ),
}
# fmt: on


def bound(text: str, args: Sequence[Any]) -> str:
    """The statement with values in place of placeholders; JSON with its keys in order."""

    def value(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"<{plain(args[number - 1])}>" if args else match[0]

    return re.sub(r"\$(\d+)", value, " ".join(text.split()))


def plain(value: Any) -> str:
    """A value without what would look like SQL."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str) and value.startswith(("[", "{")):
        value = json.dumps(json.loads(value), sort_keys=True)
    return re.sub(r"[(),]", "_", str(value))


def items(text: str) -> list[str]:
    """The items of a list: what stands between the commas that are in no parentheses."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]


def body(text: str, ends: str) -> int:
    """Where a list ends: at one of these words in no parentheses, or at the parenthesis that it stands in."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth < 0 or (depth == 0 and re.match(rf" ({ends})\b", text[at:])):
            return at
    return len(text)


def folded(text: str) -> str:
    """The statement with each of its lists in one order; an INSERT as pairs of column and value."""
    text = re.sub(r" AS x\(([^)]*)\)", lambda match: f" AS x[{'; '.join(sorted(items(match[1])))}]", text)
    done = ""
    while match := re.search(r"INSERT INTO \S+( AS a)? \(([^)]*)\) SELECT |\bSET (?!step_id = NULL)|\bSELECT ", text):
        done, rest = done + text[: match.start()], text[match.end() :]
        end = body(rest, "FROM|WHERE")
        listed = items(rest[:end])
        if match[2]:
            pairs = zip(items(match[2]), listed, strict=True)
            listed = [f"{column} <- {value}" for column, value in pairs]
        elif match[0] == "SET ":
            listed = [re.sub(r"^(\w+) = (<[^>]*>)::[\w ]+$", r"\1 = \2", each) for each in listed]
        done += match[0].split("(")[0] + "; ".join(sorted(folded(each) for each in listed))
        text = rest[end:]
    return done + text


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_is_made_of_columns_is_what_was_written_by_hand(name: str) -> None:
    text, args = asyncio.run(statements())[name]
    old, old_args = WRITTEN[name]
    assert folded(bound(text, args)) == folded(bound(old, old_args))
    assert sorted(map(plain, args)) == sorted(map(plain, old_args))


def test_the_comparison_sees_what_differs() -> None:
    text = "UPDATE t SET a = <1>, b = <2> FROM x WHERE c"
    assert folded(text) == folded("UPDATE t SET b = <2>::double precision, a = <1> FROM x WHERE c")
    assert folded(text) != folded("UPDATE t SET b = <1>, a = <2> FROM x WHERE c")
    assert folded("INSERT INTO t (a, b) SELECT 1, 2") != folded("INSERT INTO t (b, a) SELECT 1, 2")
