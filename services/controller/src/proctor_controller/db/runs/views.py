"""SQL of views on runs: runs, steps, events, the index of their logs. The caller's groups filter them (None: all)."""

# ruff: noqa: S608 - statements are put together from constants of this module

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from proctor_common.ids import is_id
from proctor_common.messages.views import AttemptLog, EventView, RunLogIndex, RunView, StepView, WebhookCall
from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.db.runs.columns import EVENT_COLUMNS
from proctor_controller.db.session import Row, Session, clean
from proctor_controller.domain.documents.spelled import unpack
from proctor_controller.domain.hosts.holders import NAME
from proctor_controller.domain.runs.decision import EventRow
from proctor_controller.domain.runs.run import UNSTARTED
from proctor_controller.domain.runs.step import Phase

MAX_NUMBER = 2**63 - 1
HOLE_SECONDS = 5.0
SHOWN_EDGES = 5
_PAUSED = "the run is paused"
MAX_INDEXED = 1500
"""Attempts in one answer, which holds a mebibyte; an attempt with a long step name takes half a kibibyte."""

_RUN = """SELECT r.id, r.number, r.name, r.kind, r.state, r.result, r.reason, r.created_at, r.started_at, r.finished_at,
 r.plan, r.parameters, r.group_name, r.created_by, r.rerun_of, r.parent, r.outputs, r.tally, r.phase, r.waiting_for,
 CASE WHEN r.hold_until > now() THEN r.hold_until END AS hold_until,
 (SELECT json_build_object('state', w.state, 'tries', w.tries, 'status', w.status, 'reason', w.reason,
   'next_at', CASE WHEN w.state = 'waiting' THEN w.next_at END)
  FROM control.webhooks w WHERE w.run_id = r.id) AS webhook,
 (SELECT json_object_agg(c.state, c.n) FROM (SELECT s.state, count(*) AS n FROM control.steps s
  WHERE s.run_id = r.id AND s.state <> 'finished' AND s.phase = 'main' GROUP BY s.state) c) AS unfinished
FROM control.runs r"""
_SEEN = "({groups}::text[] IS NULL OR r.group_name = ANY({groups}::text[]))"


class RunKey(NamedTuple):
    """A run's id or number."""

    id: str | None
    number: int | None


def parse_key(text: str) -> RunKey | None:
    """The key in an id or a number as text; None if it is neither."""
    if is_id(text):
        return RunKey(text, None)
    if text.isascii() and text.isdecimal() and len(text) <= 19 and 0 < int(text) <= MAX_NUMBER:
        return RunKey(None, int(text))
    return None


def run_view(row: Row) -> RunView:
    """The view of a run, from any query's row."""
    steps = {**(row["unfinished"] or {}), **row["tally"]}
    return RunView(
        id=str(row["id"]),
        number=row["number"],
        name=row["name"],
        kind=row["kind"],
        state=RunState(row["state"]),
        result=RunResult(row["result"]) if row["result"] else None,
        reason=row["reason"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        plan=row["plan"],
        parameters=unpack(row["parameters"]),
        group=row["group_name"],
        created_by=row["created_by"],
        rerun_of=str(row["rerun_of"]) if row["rerun_of"] else None,
        parent=str(row["parent"]) if row["parent"] else None,
        outputs=unpack(row["outputs"]),
        steps=steps,
        phase=row["phase"],
        waiting_for=row["waiting_for"] or ("its turn" if row["state"] in UNSTARTED else None),
        hold_until=row["hold_until"],
        webhook=WebhookCall.model_validate(row["webhook"]) if row["webhook"] else None,
    )


async def find_run(session: Session, key: RunKey, groups: Sequence[str] | None) -> RunView | None:
    """The run, if it exists and may be seen."""
    where = "r.id = $1::uuid" if key.id is not None else "r.number = $1::bigint"
    seen = _SEEN.format(groups="$2")
    row = await session.fetchrow(
        f"{_RUN} WHERE {where} AND {seen}", key.id if key.id is not None else key.number, _array(groups)
    )
    return None if row is None else run_view(row)


def _array(groups: Sequence[str] | None) -> list[str] | None:
    return None if groups is None else list(groups)


class RunFilter(NamedTuple):
    """Which runs to list; None: any. ``before``: only runs with a smaller number."""

    state: str | None = None
    result: str | None = None
    plan: str | None = None
    host: str | None = None
    group: str | None = None
    since: datetime | None = None
    before: int | None = None


async def list_runs(session: Session, wanted: RunFilter, groups: Sequence[str] | None, limit: int) -> list[RunView]:
    """Runs, newest first."""
    rows = await session.fetch(
        f"""{_RUN} WHERE {_SEEN.format(groups="$1")}
          AND ($2::text IS NULL OR r.state = $2) AND ($3::text IS NULL OR r.result = $3)
          AND ($4::text IS NULL OR r.plan = $4) AND ($5::text IS NULL OR r.group_name = $5)
          AND ($6::text IS NULL OR EXISTS (SELECT 1 FROM control.steps s
               WHERE s.run_id = r.id AND (s.host = $6 OR s.place_host = $6)))
          AND ($7::timestamptz IS NULL OR r.created_at >= $7) AND ($8::bigint IS NULL OR r.number < $8)
        ORDER BY r.number DESC LIMIT $9""",
        _array(groups),
        wanted.state,
        wanted.result,
        wanted.plan,
        wanted.group,
        wanted.host,
        wanted.since,
        wanted.before,
        limit,
    )
    return [run_view(row) for row in rows]


# -- steps --------------------------------------------------------------------------------------------------------

_STEP = """SELECT r.state AS run_state, n.max_parallel,
 CASE WHEN s.state = 'pending' THEN
  (SELECT array_agg(m.name ORDER BY m.name) FROM control.edges e
   JOIN control.nodes m ON m.run_id = e.run_id AND m.name = e.source AND m.unfinished > 0
   WHERE e.run_id = s.run_id AND e.target = s.node) END AS awaited,
 s.id, s.idx, s.name, s.instance, s.kind, s.phase, s.outputs, s.deadline,
 CASE WHEN s.kind = 'gate' THEN n.rules -> 'gate' END AS gate,
 CASE WHEN s.kind = 'plan' THEN
  (SELECT json_build_array(c.id, c.number, c.name, c.state, c.waiting_for) FROM control.runs c
   WHERE c.parent_step = s.id ORDER BY c.number DESC LIMIT 1) END AS child,
 s.plugin, s.method, s.parameters, s.state, s.result, s.reason,
 s.waiting_for, s.attempt, s.place_host, s.host, s.agent_id, s.started_at, s.finished_at,
 a.attempt AS a_attempt, a.state AS a_state, a.result AS a_result, a.reason AS a_reason, a.agent_id AS a_agent,
 g.host AS a_host, a.exit_code, a.output, a.error, a.lines, a.bytes, a.tree_gone,
 a.started_at AS a_started_at, a.finished_at AS a_finished_at
FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node
JOIN control.runs r ON r.id = s.run_id"""


class StepAfter(NamedTuple):
    """Start of a page of steps: after this step's number in the document, and this attempt of it."""

    idx: int = -1
    attempt: int = 0


async def list_steps(
    session: Session, run: str, *, attempts: bool, after: StepAfter, limit: int
) -> list[tuple[StepAfter, StepView]]:
    """The steps in document order with their last attempt, or with each of their attempts."""
    join = "LEFT JOIN control.attempts a ON a.step_id = s.id"
    if not attempts:
        join += " AND a.attempt = (SELECT max(b.attempt) FROM control.attempts b WHERE b.step_id = s.id)"
    rows = await session.fetch(
        f"""{_STEP} {join} LEFT JOIN control.agents g ON g.id = a.agent_id
        WHERE s.run_id = $1 AND (s.idx, coalesce(a.attempt, 0)) > ($2::int, $3::int)
        ORDER BY s.idx, a.attempt LIMIT $4""",
        run,
        after.idx,
        after.attempt if attempts else 2**31 - 1,
        limit,
    )
    return [(StepAfter(row["idx"], row["a_attempt"] or 0), _step_view(row, attempts)) for row in rows]


def _step_view(row: Row, attempts: bool) -> StepView:
    of_attempt = attempts and row["a_attempt"] is not None
    current = row["a_attempt"] == row["attempt"]
    agent = row["a_agent"] if of_attempt or current else row["agent_id"]
    fields: dict[str, Any] = {
        "state": StepState(row["a_state"] if of_attempt else row["state"]),
        "attempt": row["a_attempt"] if of_attempt else row["attempt"],
        "reason": row["a_reason"] if of_attempt else row["reason"],
        "host": (row["a_host"] if of_attempt else row["host"]) or row["place_host"],
        "started_at": row["a_started_at"] if of_attempt else row["started_at"],
        "finished_at": row["a_finished_at"] if of_attempt else row["finished_at"],
    }
    result = row["a_result"] if of_attempt else row["result"]
    return StepView(
        id=str(row["id"]),
        step=row["name"],
        instance=row["instance"],
        kind=row["kind"],
        phase=row["phase"],
        outputs=unpack(row["outputs"]) or {},
        gate=_gate(row),
        child=row["child"][0] if row["child"] else None,
        agent=str(agent) if agent else None,
        plugin=row["plugin"],
        method=row["method"],
        parameters=row["parameters"],
        result=StepResult(result) if result else None,
        waiting_for=None if of_attempt and not current else _waits_for(row),
        output=row["output"] or {},
        error=row["error"],
        exit_code=row["exit_code"],
        log_lines=row["lines"],
        log_bytes=row["bytes"],
        tree_gone=row["tree_gone"],
        **fields,
    )


def _waits_for(row: Row) -> str | None:
    """What a step waits for that neither runs nor has ended."""
    paused = row["run_state"] in {RunState.PAUSING, RunState.PAUSED}
    if paused and row["state"] == StepState.WAITING:
        # A free slot alone is not enough.
        return _PAUSED
    if row["waiting_for"]:
        return str(row["waiting_for"])
    until = row["deadline"].strftime("%H:%M:%S UTC") if row["deadline"] is not None else "a while"
    match StepState(row["state"]):
        case StepState.RUNNING if row["child"] is not None:
            return _child_awaited(*row["child"])
        case StepState.PENDING:
            return _edges_awaited(row)
        case StepState.READY:
            return _PAUSED if paused else "an agent is being looked for"
        case StepState.DISPATCHED:
            return f"the answer of host {row['host']}"
        case StepState.RETRY_WAIT:
            return f"its next attempt, at {until}"
        case StepState.LOST:
            return f"the agent of host {row['host']} to come back, until {until}"
        case StepState.CANCELLING:
            return "the end of what it started"
    return None


def _child_awaited(_: str, number: int, name: str, state: str, waiting_for: str | None) -> str | None:
    """What a nested plan's run waits for that has not begun."""
    if RunState(state) not in UNSTARTED:
        return None
    return f"run {number} ({name[:NAME]}), which waits for {waiting_for or 'its turn'}"


def _edges_awaited(row: Row) -> str:
    awaited = list(row["awaited"] or ())
    if awaited:
        more = f" and {len(awaited) - SHOWN_EDGES} more" if len(awaited) > SHOWN_EDGES else ""
        return f"the end of {', '.join(awaited[:SHOWN_EDGES])}{more}"
    if row["phase"] != Phase.MAIN:
        return f"the run to come to its {row['phase']} steps"
    if row["run_state"] in UNSTARTED:
        return "the run to begin"
    if row["max_parallel"] is not None:
        return f"another instance to end: max_parallel is {row['max_parallel']}"
    return "its turn"


def _gate(row: Row) -> dict[str, Any] | None:
    """Who may decide the gate, and until when; None for any other step."""
    if row["kind"] != "gate":
        return None
    is_open = row["state"] == "running" and row["deadline"] is not None
    roles = list((row["gate"] or {}).get("roles") or ["admin"])
    return {"roles": roles, "deadline": row["deadline"].isoformat() if is_open else None}


# -- events -------------------------------------------------------------------------------------------------------

_EVENT = f"SELECT e.id, e.run_id, {EVENT_COLUMNS}, e.at FROM control.run_events e"


def event_view(run: str, event: EventRow, cursor: int, at: datetime) -> EventView:
    """The view of a state change, from any source."""
    return EventView(
        seq=event.seq,
        cursor=cursor,
        run=run,
        kind=event.kind,
        step=event.step_name,
        step_id=event.step,
        attempt=event.attempt,
        host=event.host,
        old=event.old,
        new=event.new,
        result=event.result,
        reason=clean(event.reason),
        at=at,
    )


def _event(row: Row) -> EventView:
    event = EventRow(
        row["seq"],
        row["kind"],
        row["old"],
        row["new"],
        str(row["step_id"]) if row["step_id"] else None,
        row["step"],
        row["attempt"],
        row["host"],
        row["result"],
        row["reason"],
    )
    return event_view(str(row["run_id"]), event, row["id"], row["at"])


async def events_of_run(session: Session, run: str, after: int, limit: int) -> list[EventView]:
    """Events of a run after its ``seq`` ``after``."""
    rows = await session.fetch(
        f"{_EVENT} WHERE e.run_id = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3", run, after, limit
    )
    return [_event(row) for row in rows]


class EventPage(NamedTuple):
    """Visible events of all runs; ``next``: start of the next page, None if there is none yet."""

    events: list[EventView]
    next: str | None


async def events_of_all(session: Session, after: int, groups: Sequence[str] | None, limit: int) -> EventPage:
    """Events of all runs after the cursor.

    Numbers are drawn before a commit, so a smaller one can appear after a greater one: the page ends before a hole that
    is younger than HOLE_SECONDS. Older holes were rolled back.
    """
    rows = await session.fetch(
        f"""SELECT e.*, r.group_name, extract(epoch FROM clock_timestamp() - e.at)::float8 AS age
        FROM ({_EVENT} WHERE e.id > $1 ORDER BY e.id LIMIT $2) e JOIN control.runs r ON r.id = e.run_id
        ORDER BY e.id""",
        after,
        limit,
    )
    found: list[EventView] = []
    cursor = after
    for row in rows:
        if row["id"] != cursor + 1 and row["age"] < HOLE_SECONDS and cursor > 0:
            return EventPage(found, None)
        cursor = row["id"]
        if groups is None or row["group_name"] in groups:
            found.append(_event(row))
    return EventPage(found, str(cursor) if len(rows) == limit else None)


# -- logs ---------------------------------------------------------------------------------------------------------


async def load_log_index(
    session: Session, key: RunKey, groups: Sequence[str] | None, after: int = 0
) -> RunLogIndex | None:
    """What a tail works from: a page of attempts, after the one with index ``after``."""
    where = "r.id = $1::uuid" if key.id is not None else "r.number = $1::bigint"
    rows = await session.fetch(
        f"""SELECT r.id AS run_id, r.number, r.group_name, r.state AS run_state, r.result AS run_result, r.created_at,
         a.idx, a.step_id, s.name, s.instance, a.attempt, a.agent_id, a.state, a.result, a.chunks, a.lines, a.bytes
        FROM control.runs r LEFT JOIN control.attempts a ON a.run_id = r.id AND a.idx > $3
        LEFT JOIN control.steps s ON s.id = a.step_id
        WHERE {where} AND {_SEEN.format(groups="$2")} ORDER BY a.idx LIMIT {MAX_INDEXED + 1}""",
        key.id if key.id is not None else key.number,
        _array(groups),
        after,
    )
    if not rows:
        return None
    first = rows[0]
    return RunLogIndex(
        run=str(first["run_id"]),
        number=first["number"],
        group=first["group_name"],
        state=RunState(first["run_state"]),
        result=RunResult(first["run_result"]) if first["run_result"] else None,
        created_at=first["created_at"],
        attempts=[_attempt_log(row) for row in rows[:MAX_INDEXED] if row["idx"] is not None],
        next=rows[MAX_INDEXED - 1]["idx"] if len(rows) > MAX_INDEXED else None,
    )


def _attempt_log(row: Row) -> AttemptLog:
    name = f"{row['name']}[{row['instance']}]" if row["instance"] else row["name"]
    return AttemptLog(
        index=row["idx"],
        step_id=str(row["step_id"]),
        step=name,
        attempt=row["attempt"],
        agent=str(row["agent_id"]),
        state=StepState(row["state"]),
        result=StepResult(row["result"]) if row["result"] else None,
        chunks=row["chunks"],
        lines=row["lines"],
        bytes=row["bytes"],
    )
