"""SQL of the engine: load the slice that an event is about, and save a decision, in one statement each."""

# ruff: noqa: S608 - statements are put together from constants of this package; SQL is not wrapped

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from proctor_controller.db.column import Column, Columns, When, records_writer, writer
from proctor_controller.db.hosts.holders import FREED, RESERVING, SLOTS
from proctor_controller.db.runs.columns import (
    ATTEMPTS,
    EDGE_COLUMNS,
    EVENTS,
    NODE_COLUMNS,
    NODES_SAVED,
    RECORDS,
    RUN_COLUMNS,
    RUN_SAVED,
    STEP_COLUMNS,
    STEPS_SAVED,
    attempts_json,
    events_json,
    nodes_json,
    records_json,
    run_values,
    steps_json,
    to_edges,
    to_node,
    to_run,
    to_step,
)
from proctor_controller.db.runs.scopes import load_scope, load_undone, refs_of
from proctor_controller.db.session import Row, Session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import BATCH, Decision, Slice, SlotHeld, SlotReleased
from proctor_controller.domain.runs.reach import Reach, Reached, reach
from proctor_controller.domain.runs.run import CLEANUP
from proctor_controller.domain.runs.step import Node, Phase
from proctor_controller.domain.runs.step_rules import Rules

_OF_STEP = f"""SELECT {RUN_COLUMNS}, {STEP_COLUMNS}, {NODE_COLUMNS},
 (SELECT json_agg(json_build_array({EDGE_COLUMNS}))
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

_EDGES = f"""SELECT {EDGE_COLUMNS}
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


class LoadedSlice(NamedTuple):
    """A slice and the database's time when it was read."""

    part: Slice
    now: datetime


async def load_slice(session: Session, event: events.Event) -> LoadedSlice | None:
    """The input of a decision about ``event``; None if there is no such run or step."""
    if isinstance(event, events.OfRun):
        return await _load_of_run(session, event)
    return await _load_of_step(session, event)


async def _load_of_step(session: Session, event: events.OfStep) -> LoadedSlice | None:
    return (await load_slices(session, event.run, (event,))).get(event.step)


async def load_slices(session: Session, run: str, wanted: Sequence[events.OfStep]) -> dict[str, LoadedSlice]:
    """The inputs of decisions about these events of different steps, by the step's id; all of one moment."""
    rows = await session.fetch(_OF_STEP, [event.step for event in wanted], run)
    found = {str(row["id"]): row for row in rows}
    slices: dict[str, LoadedSlice] = {}
    for event in wanted:
        row = found.get(event.step)
        if row is None:
            continue
        step, edges, node = to_step(row), row["edges"] or [], to_node(row, run, row["node"])
        part = Slice(to_run(row), (step,), (node,), to_edges(run, edges) if edges else {})
        if node.rules is not None and node.rules.is_judging and not isinstance(event, _NO_VERDICT):
            part = await _with_scope(session, part, (node.rules,))
        slices[event.step] = LoadedSlice(part, row["now"])
    return slices


async def _with_scope(session: Session, part: Slice, rules: Iterable[Rules], refs: Sequence[str] = ()) -> Slice:
    """The slice with what the expressions in these rules may read, and with the steps in ``refs``."""
    scope = await load_scope(session, part.run.id, [*refs_of(rules), *refs])
    undone = {step.id: await load_undone(session, step) for step in part.steps if step.phase is Phase.ROLLBACK}
    names = None if scope is None else scope.names
    return replace(part, scope=names, undone={step: found for step, found in undone.items() if found is not None})


async def _reached(session: Session, run: str, wanted: Reach) -> Sequence[Row]:
    """The steps with their nodes, and one more if there are more."""
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


async def _load_of_run(session: Session, event: events.OfRun) -> LoadedSlice | None:
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
        node = nodes[event.node] = to_node(own, run.id, event.node)
    wanted = reach(event, run, node, row["now"])
    rows = await _reached(session, run.id, wanted)
    limit = wanted.limit
    steps = tuple(to_step(found) for found in rows[:limit])
    nodes.update({found["node"]: to_node(found, run.id, found["node"]) for found in rows[:limit]})
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
    return LoadedSlice(part, row["now"])


# -- saving -------------------------------------------------------------------------------------------------------

_UNHELD = (
    "(NOT EXISTS (SELECT 1 "
    + RESERVING.format(run="$1::uuid", ready="(SELECT t.ready_at FROM control.steps t WHERE t.id = {step})")
    + """) AND NOT a.draining
      OR EXISTS (SELECT 1 FROM control.allocations o
        WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[])))"""
)
"""The agent is neither drained nor kept free for another run, or $1, the run, or the one it is nested in, holds it."""
_MINE = "({slot}.held_for IS NULL OR {slot}.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[]))"
"""No other run holds the agent exclusively. Checked on the slot itself, so that a claim that waited for the row checks
again."""
_slot_values = writer(SLOTS)
_CLAIM = (
    """claim AS (
  UPDATE control.leases l SET """
    + ", ".join(f"{each.name} = {{{each.name}}}::{each.type}" for each in SLOTS.at(When.UPDATE))
    + """, taken_at = now()
  WHERE {guard} (l.agent_id, l.slot) = (
    SELECT f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id
    WHERE f.agent_id = {agent_id}::uuid AND f.step_id IS NULL AND f.slot < a.slots AND a.state = 'online'
      AND NOT a.leftovers AND {unheld} AND """
    + _MINE.format(slot="f")
    + """
    ORDER BY f.slot LIMIT 1 FOR UPDATE OF f SKIP LOCKED)
  RETURNING 1)"""
)


class _Heir(NamedTuple):
    """A slot that an attempt takes over from another one. ``old``: the other one's token."""

    held: SlotHeld
    old: str


_HEIRS = Columns((*SLOTS.under("held"), Column("old", "text", When.KEY)))
_heirs_json = records_writer(_HEIRS)
_HAND_OVER = (
    (
        """claim AS (
  UPDATE control.leases l SET {sets}, taken_at = now()
  FROM json_to_recordset({rows}::json) AS x({heirs})
  JOIN control.agents a ON a.id = x.agent_id
  WHERE {guard} l.token = x.old AND l.agent_id = x.agent_id AND l.slot < a.slots
    AND a.state = 'online' AND NOT a.leftovers AND {unheld} AND """
        + _MINE.format(slot="l")
        + """
  RETURNING 1),"""
    )
    .replace("{heirs}", _HEIRS.record)
    .replace("{sets}", _HEIRS.set_record)
)
"""Slots that the same decision releases go to the next attempts without ever being free; not on a host that another
run holds alone, or that is kept free for another run.
"""
ATTEMPTS_SAVED = f"""INSERT INTO control.attempts AS a (run_id, {ATTEMPTS.names})
  SELECT {{run}}, {ATTEMPTS.insert_record} FROM json_to_recordset({{rows}}::json) AS x({ATTEMPTS.record})
  {{where}}"""
EVENTS_SAVED = f"""INSERT INTO control.run_events (run_id, {EVENTS.names})
  SELECT {{run}}, {EVENTS.insert_record} FROM json_to_recordset({{rows}}::json) AS x({EVENTS.record})
  {{where}} ORDER BY x.seq RETURNING id, seq"""
_QUEUE = """(EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting')
  OR EXISTS (SELECT 1 FROM control.reservations)) AS queue"""
_SAVED = "(SELECT count(*) FROM run)"
_IF_SAVED = "WHERE EXISTS (SELECT 1 FROM run)"

# $1 is the run, $2 its version, and what is to be stored of it follows.
_SAVE = f"""WITH {{claim}} run AS (
  UPDATE control.runs SET version = version + 1, {RUN_SAVED.set_arguments(3)}
  WHERE id = $1 AND version = $2 {{claimed}} RETURNING 1),
steps AS (
  UPDATE control.steps s SET {STEPS_SAVED.set_record}
  FROM json_to_recordset({{steps}}::json) AS x({STEPS_SAVED.record})
  WHERE s.id = ANY({{step_ids}}::uuid[]) AND s.id = x.id AND EXISTS (SELECT 1 FROM run) RETURNING 1),
ev AS ({EVENTS_SAVED.format(run="$1", rows="{events}", where=_IF_SAVED)})
{{nodes}}{{attempts}}{{released}}{{records}}
SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, {{queue}},
 1 / (CASE WHEN (SELECT count(*) FROM run) * {{each}} = {{claims}}
        AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length({{steps}}::json)
      THEN 1 ELSE 0 END) AS whole"""
_NODES = f""", nodes AS (
  UPDATE control.nodes n SET {NODES_SAVED.set_record}
  FROM json_to_recordset({{rows}}::json) AS x({NODES_SAVED.record})
  WHERE n.run_id = $1 AND n.name = ANY({{names}}::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run))"""
_ON_CONFLICT = f""" ON CONFLICT (step_id, attempt) DO UPDATE
  SET {ATTEMPTS.set_excluded}"""
_RECORDS = f""", records AS (
  INSERT INTO control.records (run_id, {RECORDS.names}) SELECT $1, {RECORDS.insert_record}
  FROM json_to_recordset({{rows}}::json) AS x({RECORDS.record}) WHERE EXISTS (SELECT 1 FROM run)
  ON CONFLICT DO NOTHING)"""
_RELEASED = f""", released AS (
  UPDATE control.leases SET {FREED}
  WHERE token = ANY({{tokens}}::text[]) AND EXISTS (SELECT 1 FROM run))"""


class Saved(NamedTuple):
    """A committed decision: the ids of its events, in order, and their time. ``queue``: a slot was released while a
    step waited for one, or a run for a host.
    """

    ids: list[int]
    at: datetime
    queue: bool = False


def _hand_over(decision: Decision) -> tuple[list[_Heir], list[SlotReleased]]:
    """Which released slot each held one takes over, and the remaining ones; none if there are too few."""
    left, heirs = list(decision.released), list[_Heir]()
    for held in decision.held:
        old = next((lease for lease in left if lease.agent == held.agent), None)
        if old is None:
            return [], list(decision.released)
        left.remove(old)
        heirs.append(_Heir(held, old.token))
    return heirs, left


def add_argument(args: list[Any], value: object) -> str:
    """Add an argument; returns its name in the statement."""
    args.append(value)
    return f"${len(args)}"


def claim(args: list[Any], held: SlotHeld, guard: str, *, is_new: bool = False) -> str:
    """The part of a statement that claims the slot; ``is_new``: its step is stored by the same statement."""
    named = zip(SLOTS, _slot_values(held), strict=True)
    fields = {column.name: add_argument(args, value) for column, value in named}
    unheld = _UNHELD.format(step="NULL" if is_new else f"{fields['step_id']}::uuid")
    return _CLAIM.format(guard=guard, unheld=unheld, **fields) + ","


async def save_decision(session: Session, decision: Decision, *, if_nobody_waits: bool = False) -> Saved | None:
    """Write the decision in one statement, which is one transaction.

    None, and nothing is written: the run has changed since the slice was loaded, a slot that it needs is gone, or
    (``if_nobody_waits``) a step waits for a slot.
    """
    args: list[Any] = [decision.run.id, decision.before, *run_values(decision.run)]
    parts = {
        "steps": add_argument(args, steps_json(decision.steps)),
        "events": add_argument(args, events_json(decision.events)),
    }
    # The planner assumes a hundred rows for a list in JSON and scans a small table; with the ids as well, it looks up
    # each.
    parts["step_ids"] = add_argument(args, [step.id for step in decision.steps])
    parts |= dict.fromkeys(("claim", "claimed", "nodes", "attempts", "released", "records"), "")
    parts["claims"], parts["each"] = _SAVED, "1"
    released = list(decision.released)
    if decision.held:
        guard = "EXISTS (SELECT 1 FROM control.runs WHERE id = $1 AND version = $2) AND"
        if if_nobody_waits:
            guard += " NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND"
        heirs, released = _hand_over(decision)
        if heirs:
            rows = add_argument(args, _heirs_json(heirs))
            parts["claim"] = _HAND_OVER.format(guard=guard, unheld=_UNHELD.format(step="x.step_id"), rows=rows)
        else:
            (held,) = decision.held
            parts["claim"] = claim(args, held, guard)
        parts["claimed"] = f"AND (SELECT count(*) FROM claim) = {len(decision.held)}"
        # All of the slots or none: anything between divides by zero.
        parts["claims"], parts["each"] = "(SELECT count(*) FROM claim)", str(len(decision.held))
    if decision.nodes:
        names = add_argument(args, [node.name for node in decision.nodes])
        parts["nodes"] = _NODES.format(rows=add_argument(args, nodes_json(decision.nodes)), names=names)
    if decision.attempts:
        rows = add_argument(args, attempts_json(decision.attempts))
        saved = ATTEMPTS_SAVED.format(run="$1::uuid", rows=rows, where=_IF_SAVED)
        parts["attempts"] = f", attempts AS ({saved}{_ON_CONFLICT})"
    parts["queue"] = _QUEUE if released else "false AS queue"
    if released:
        parts["released"] = _RELEASED.format(tokens=add_argument(args, [lease.token for lease in released]))
    if decision.records:
        parts["records"] = _RECORDS.format(rows=add_argument(args, records_json(decision.records)))
    try:
        row = await session.fetchrow(_SAVE.format(**parts), *args)
    except asyncpg.DivisionByZeroError:
        # The statement's own check: a slot was claimed for a run that has changed meanwhile; everything is rolled back.
        return None
    return Saved(row["ids"] or [], row["at"], row["queue"]) if row["saved"] else None
