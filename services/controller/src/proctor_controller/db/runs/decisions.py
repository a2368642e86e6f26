"""SQL of the engine: load the slice that an event is about, and save a decision, in one statement each."""

# ruff: noqa: S608, E501 - statements are put together from constants of this package; SQL is not wrapped

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from proctor_controller.db.hosts.holders import RESERVING
from proctor_controller.db.runs.columns import (
    NODE_COLUMNS,
    RUN_COLUMNS,
    RUN_STATE,
    STEP_COLUMNS,
    TARGET_COLUMNS,
    attempts_json,
    events_json,
    nodes_json,
    records_json,
    run_state,
    run_values,
    steps_json,
    to_edges,
    to_node,
    to_run,
    to_step,
)
from proctor_controller.db.runs.scopes import load_scope, load_undone, refs_of
from proctor_controller.db.session import Row, Session, rows_json
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import BATCH, Decision, Slice, SlotReleased
from proctor_controller.domain.runs.reach import Reach, Reached, reach
from proctor_controller.domain.runs.run import CLEANUP
from proctor_controller.domain.runs.step import Node, Phase
from proctor_controller.domain.runs.step_rules import Rules

_OF_STEP = f"""SELECT {RUN_COLUMNS}, {STEP_COLUMNS}, {NODE_COLUMNS},
 (SELECT json_agg(json_build_array(e.source, e.condition, {TARGET_COLUMNS}))
  FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target
  WHERE e.run_id = s.run_id AND e.source = s.node) AS edges
FROM control.steps s JOIN control.runs r ON r.id = s.run_id
JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node
WHERE s.id = ANY($1::uuid[]) AND r.id = $2"""

_OF_RUN = f"SELECT {RUN_COLUMNS} FROM control.runs r WHERE r.id = $1"

_SEVERAL = f"""SELECT {STEP_COLUMNS}, {NODE_COLUMNS}
FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node
WHERE s.run_id = $1 AND """
_UNFINISHED = f"{_SEVERAL} s.state NOT IN ('finished', 'cancelling') AND s.phase = $2 ORDER BY s.idx LIMIT {BATCH + 1}"
_TO_TELL = f"""{_SEVERAL} s.state = 'pending' AND s.phase = $2 AND (n.due_at IS NOT NULL
  OR n.undecided = 0 AND (n.max_parallel IS NULL OR n.untold = n.unfinished)) ORDER BY s.idx LIMIT {BATCH + 1}"""
_OF_NODE = f"{_SEVERAL} s.state = 'pending' AND s.node = $2 ORDER BY s.idx LIMIT $3"
_TO_STOP = f"{_SEVERAL} s.state NOT IN ('finished', 'cancelling') AND s.node = $2 ORDER BY s.idx LIMIT $3"

_EDGES = f"""SELECT e.source, e.condition, {TARGET_COLUMNS}
FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target
WHERE e.run_id = $1 AND e.source = ANY($2)"""
_NODE = f"SELECT n.name AS node, {NODE_COLUMNS} FROM control.nodes n WHERE n.run_id = $1 AND n.name = $2"


_NO_VERDICT = (
    events.LeasesHeld,
    events.NoSlot,
    events.OrderUndelivered,
    events.OrderUnknown,
    events.StillRunning,
    events.AgentReturned,
    events.ChildRests,
)
"""Events that end no attempt: no expression is evaluated for them."""


class Loaded(NamedTuple):
    """A slice and the database's time when it was read."""

    part: Slice
    now: datetime


async def load_slice(session: Session, event: events.Event) -> Loaded | None:
    """What the decision about ``event`` needs; None where there is no such run or step."""
    match event:
        case (
            events.RunCreated()
            | events.CancelAsked()
            | events.PauseAsked()
            | events.ResumeAsked()
            | events.HostsHeld()
            | events.MustWait()
            | events.CannotBegin()
            | events.RunDue()
            | events.NodeDecided()
        ):
            return await _load_of_run(session, event)
        case _:
            return await _load_of_step(session, event)


async def _load_of_step(session: Session, event: events.OfStep) -> Loaded | None:
    return (await load_slices(session, event.run, (event,))).get(event.step)


async def load_slices(session: Session, run: str, wanted: Sequence[events.OfStep]) -> dict[str, Loaded]:
    """What the decisions about these events of different steps need, by the step's id; all of one moment."""
    rows = await session.fetch(_OF_STEP, [event.step for event in wanted], run)
    found = {str(row["id"]): row for row in rows}
    slices: dict[str, Loaded] = {}
    for event in wanted:
        row = found.get(event.step)
        if row is None:
            continue
        step, edges, node = to_step(row), row["edges"] or [], to_node(row, run)
        part = Slice(to_run(row), (step,), (node,), to_edges(run, edges) if edges else {})
        if node.rules is not None and node.rules.is_judging and not isinstance(event, _NO_VERDICT):
            part = await _with_scope(session, part, (node.rules,))
        slices[event.step] = Loaded(part, row["now"])
    return slices


async def _with_scope(session: Session, part: Slice, rules: Iterable[Rules], refs: Sequence[str] = ()) -> Slice:
    """The slice with what the expressions in these rules may read, and the steps in ``refs``."""
    scope = await load_scope(session, part.run.id, [*refs_of(rules), *refs])
    undone = {step.id: await load_undone(session, step) for step in part.steps if step.phase is Phase.ROLLBACK}
    names = None if scope is None else scope.names
    return replace(part, scope=names, undone={step: found for step, found in undone.items() if found is not None})


async def _reached(session: Session, run: str, wanted: Reach) -> Sequence[Row]:
    """The steps with their nodes, and one more where there are more."""
    match wanted.steps:
        case Reached.NONE:
            return []
        case Reached.NOTIFIABLE:
            return await session.fetch(_TO_TELL, run, wanted.of)
        case Reached.UNFINISHED:
            return await session.fetch(_UNFINISHED, run, wanted.of)
        case Reached.PENDING_OF_NODE:
            return await session.fetch(_OF_NODE, run, wanted.of, wanted.limit + 1)
        case Reached.UNFINISHED_OF_NODE:
            return await session.fetch(_TO_STOP, run, wanted.of, wanted.limit + 1)


async def _load_of_run(session: Session, event: events.OfRun) -> Loaded | None:
    row = await session.fetchrow(_OF_RUN, event.run)
    if row is None:
        return None
    run = to_run(row)
    nodes: dict[str, Node] = {}
    node: Node | None = None
    if isinstance(event, events.NodeDecided):
        own = await session.fetchrow(_NODE, event.run, event.node)
        if own is None:
            return None
        node = nodes[event.node] = to_node(own, run.id)
    wanted = reach(event, run, node, row["now"])
    rows = await _reached(session, run.id, wanted)
    limit = wanted.limit
    steps = tuple(to_step(found) for found in rows[:limit])
    nodes.update({found["node"]: to_node(found, run.id) for found in rows[:limit]})
    edges = await session.fetch(_EDGES, event.run, list(nodes)) if nodes else []
    part = Slice(
        run=run,
        steps=steps,
        nodes=tuple(nodes.values()),
        edges=to_edges(run.id, edges),
        more=len(rows) > limit,
    )
    reading = [node.rules for node in nodes.values() if node.rules is not None and node.rules.is_reading]
    ending = run.state in CLEANUP and bool(run.wants.outputs)
    if reading or ending or any(step.phase is Phase.ROLLBACK for step in steps):
        part = await _with_scope(session, part, reading, run.wants.outputs_refs if ending else ())
        part = replace(part, ending=ending)
    return Loaded(part, row["now"])


# -- saving -------------------------------------------------------------------------------------------------------

STEP_SET = """state = x.state, result = x.result, reason = x.reason, waiting_for = x.waiting_for,
 attempt = x.attempt, tries = x.tries, token = x.token, agent_id = x.agent_id, host = x.host, sends = x.sends,
 refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at = x.ready_at,
 started_at = x.started_at, finished_at = x.finished_at, outputs = coalesce(x.outputs::json, s.outputs)"""
_STEP_TYPES = """id uuid, state text, result text, reason text, waiting_for text, attempt int, tries int, token text,
 agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz,
 ready_at timestamptz, started_at timestamptz, finished_at timestamptz, outputs text"""

UNHELD = (
    "(NOT EXISTS (SELECT 1 "
    + RESERVING.format(run="$1::uuid", ready="(SELECT t.ready_at FROM control.steps t WHERE t.id = {step})")
    + """) AND NOT a.draining
      OR EXISTS (SELECT 1 FROM control.allocations o
        WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[])))"""
)
"""The agent is neither drained nor kept free for another run, or $1, the run, or the one it is nested in, holds it."""
_MINE = "({slot}.held_for IS NULL OR {slot}.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[]))"
"""No other run has the agent for itself: said of the slot itself, so that a claim that waited for its row asks again."""
CLAIM = (
    """claim AS (
  UPDATE control.leases l SET step_id = {step}::uuid, attempt = {attempt}::int, token = {token}::text, taken_at = now()
  WHERE {guard} (l.agent_id, l.slot) = (
    SELECT f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id
    WHERE f.agent_id = {agent}::uuid AND f.step_id IS NULL AND f.slot < a.slots AND a.state = 'online'
      AND NOT a.leftovers AND {unheld} AND """
    + _MINE.format(slot="f")
    + """
    ORDER BY f.slot LIMIT 1 FOR UPDATE OF f SKIP LOCKED)
  RETURNING 1)"""
)
_HAND_OVER = (
    """claim AS (
  UPDATE control.leases l SET step_id = x.step_id, attempt = x.attempt, token = x.token, taken_at = now()
  FROM json_to_recordset({rows}::json) AS x(agent_id uuid, step_id uuid, attempt int, token text, old text)
  JOIN control.agents a ON a.id = x.agent_id
  WHERE {guard} l.token = x.old AND l.agent_id = x.agent_id AND l.slot < a.slots
    AND a.state = 'online' AND NOT a.leftovers AND {unheld} AND """
    + _MINE.format(slot="l")
    + """
  RETURNING 1),"""
)
"""Slots that the same decision releases go to the next attempts without ever being free: not where another run holds
the host alone, or is kept it free for.
"""
ATTEMPTS_SAVED = """INSERT INTO control.attempts AS a (step_id, attempt, run_id, idx, agent_id, token, state, result, reason,
   exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at)
  SELECT x.step_id, x.attempt, {run}, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code,
   x.output::json, x.error::json, x.chunks, x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at
  FROM json_to_recordset({rows}::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token text, state text,
   result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint,
   tree_gone bool, reported bool, started_at timestamptz, finished_at timestamptz)
  {where}"""
EVENTS_SAVED = """INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason)
  SELECT {run}, x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason
  FROM json_to_recordset({rows}::json) AS x(seq int, kind text, step_id uuid, step text, attempt int, host text, old text,
   new text, result text, reason text)
  {where} ORDER BY x.seq RETURNING id, seq"""
_QUEUE = """(EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting')
  OR EXISTS (SELECT 1 FROM control.reservations)) AS queue"""
_SAVED = "(SELECT count(*) FROM run)"
_IF_SAVED = "WHERE EXISTS (SELECT 1 FROM run)"

_STATE_FROM = 18
_STATE_SET = ", ".join(
    f"{name} = coalesce(${at}::{kind}, outputs)" if name == "outputs" else f"{name} = ${at}::{kind}"
    for at, (name, kind) in enumerate(RUN_STATE, _STATE_FROM)
)
_SAVE = f"""WITH {{claim}} run AS (
  UPDATE control.runs SET version = version + 1, state = $3, result = $4, reason = $5, event_seq = $6, attempt_seq = $7,
   undecided = $8, tally = $9::jsonb, cause = $10, cancel_by = $11, deadline = $12, due_at = $13, started_at = $14,
   finished_at = $15, {_STATE_SET}
  WHERE id = $1 AND version = $2 {{claimed}} RETURNING 1),
steps AS (
  UPDATE control.steps s SET {STEP_SET} FROM json_to_recordset($16::json) AS x({_STEP_TYPES})
  WHERE s.id = ANY({{step_ids}}::uuid[]) AND s.id = x.id AND EXISTS (SELECT 1 FROM run) RETURNING 1),
ev AS ({EVENTS_SAVED.format(run="$1", rows="$17", where=_IF_SAVED)})
{{nodes}}{{attempts}}{{released}}{{records}}
SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, {{queue}},
 1 / (CASE WHEN (SELECT count(*) FROM run) * {{each}} = {{claims}}
        AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length($16::json)
      THEN 1 ELSE 0 END) AS whole"""
_NODES = """, nodes AS (
  UPDATE control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided = x.undecided, dead = x.dead,
   due_at = x.due_at, untold = x.untold
  FROM json_to_recordset({rows}::json) AS x(name text, unfinished int, failed int, undecided int, dead bool,
   due_at timestamptz, untold int)
  WHERE n.run_id = $1 AND n.name = ANY({names}::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run))"""
_ON_CONFLICT = """ ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id,
   token = excluded.token, state = excluded.state, result = excluded.result, reason = excluded.reason,
   exit_code = excluded.exit_code, output = excluded.output, error = excluded.error, chunks = excluded.chunks,
   lines = excluded.lines, bytes = excluded.bytes, tree_gone = excluded.tree_gone, reported = excluded.reported,
   started_at = excluded.started_at, finished_at = excluded.finished_at"""
_RECORDS = """, records AS (
  INSERT INTO control.records (run_id, step_id, attempt, body) SELECT $1, x.step_id, x.attempt, x.body::json
  FROM json_to_recordset({rows}::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run)
  ON CONFLICT DO NOTHING)"""
_RELEASED = """, released AS (
  UPDATE control.leases SET step_id = NULL, attempt = NULL, token = NULL, taken_at = NULL
  WHERE token = ANY({tokens}::text[]) AND EXISTS (SELECT 1 FROM run))"""


class Saved(NamedTuple):
    """A committed decision: the ids of its events, in order, and the time they carry. ``queue``: a slot was given
    back while some step waited for one, or some run for a host.
    """

    ids: list[int]
    at: datetime
    queue: bool = False


def _hand_over(decision: Decision) -> tuple[list[dict[str, Any]], list[SlotReleased]]:
    """Which released slot each held one takes over, and those that are left; none where there are too few of them."""
    left, heirs = list(decision.released), list[dict[str, Any]]()
    for held in decision.held:
        old = next((lease for lease in left if lease.agent == held.agent), None)
        if old is None:
            return [], list(decision.released)
        left.remove(old)
        heirs.append(
            {
                "agent_id": held.agent,
                "step_id": held.step,
                "attempt": held.attempt,
                "token": held.token,
                "old": old.token,
            }
        )
    return heirs, left


def _added(args: list[Any], value: object) -> str:
    """One more argument, as the statement names it."""
    args.append(value)
    return f"${len(args)}"


async def save_decision(session: Session, decision: Decision, *, if_nobody_waits: bool = False) -> Saved | None:
    """Write the decision, in one statement, which is one transaction.

    None, and nothing is written: the run has changed since the slice was loaded, or a slot it needs is gone (or, if
    asked so, some step waits for a slot).
    """
    run = decision.run
    args: list[Any] = [
        run.id,
        decision.before,
        *run_values(run),
        steps_json(decision.steps),
        events_json(decision.events),
        *run_state(run),
    ]
    # The planner takes a list in JSON for a hundred rows and reads a small table whole; with ids beside it, it looks up
    # each.
    parts = {"step_ids": _added(args, [step.id for step in decision.steps])}
    parts |= dict.fromkeys(("claim", "claimed", "nodes", "attempts", "released", "records"), "")
    parts["claims"], parts["each"] = _SAVED, "1"
    released = list(decision.released)
    if decision.held:
        guard = "EXISTS (SELECT 1 FROM control.runs WHERE id = $1 AND version = $2) AND"
        if if_nobody_waits:
            guard += " NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND"
        heirs, released = _hand_over(decision)
        if heirs:
            rows = _added(args, rows_json(heirs))
            parts["claim"] = _HAND_OVER.format(guard=guard, unheld=UNHELD.format(step="x.step_id"), rows=rows)
        else:
            (held,) = decision.held
            fields = {
                "agent": _added(args, held.agent),
                "token": _added(args, held.token),
                "step": _added(args, held.step),
                "attempt": _added(args, held.attempt),
            }
            parts["claim"] = (
                CLAIM.format(guard=guard, unheld=UNHELD.format(step=f"{fields['step']}::uuid"), **fields) + ","
            )
        parts["claimed"] = f"AND (SELECT count(*) FROM claim) = {len(decision.held)}"
        # All of the slots or none: the alarm goes off for anything between.
        parts["claims"], parts["each"] = "(SELECT count(*) FROM claim)", str(len(decision.held))
    if decision.nodes:
        names = _added(args, [node.name for node in decision.nodes])
        parts["nodes"] = _NODES.format(rows=_added(args, nodes_json(decision.nodes)), names=names)
    if decision.attempts:
        rows = _added(args, attempts_json(decision.attempts))
        saved = ATTEMPTS_SAVED.format(run="$1::uuid", rows=rows, where=_IF_SAVED)
        parts["attempts"] = f", attempts AS ({saved}{_ON_CONFLICT})"
    parts["queue"] = _QUEUE if released else "false AS queue"
    if released:
        parts["released"] = _RELEASED.format(tokens=_added(args, [lease.token for lease in released]))
    if decision.records:
        parts["records"] = _RECORDS.format(rows=_added(args, records_json(decision.records)))
    try:
        row = await session.fetchrow(_SAVE.format(**parts), *args)
    except asyncpg.DivisionByZeroError:
        # The statement's own alarm: a slot was claimed for a run that has changed meanwhile; all is rolled back.
        return None
    return Saved(row["ids"] or [], row["at"], row["queue"]) if row["saved"] else None
