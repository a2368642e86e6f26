"""The columns of runs, steps, nodes, edges, attempts, events and records; every list of them is made of these.

To add one: a line here, the attribute of the dataclass, and a migration.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.db.column import (
    CHANGING,
    FIXED,
    Column,
    Columns,
    When,
    counts_of,
    maybe_clean,
    maybe_json,
    maybe_member_of,
    maybe_text,
    member_of,
    reader,
    records_writer,
    writer,
)
from proctor_controller.db.session import Row, clean, to_json
from proctor_controller.domain.documents.spelled import unpack
from proctor_controller.domain.hosts.requirements import Requirements, requirements_of
from proctor_controller.domain.runs.decision import AttemptRow, EventRow, RecordRow
from proctor_controller.domain.runs.run import Run
from proctor_controller.domain.runs.step import Cause, Condition, Edge, Node, Phase, Retry, RetryOn, Step, StepKind
from proctor_controller.domain.runs.step_rules import rules_of
from proctor_controller.domain.runs.submission import EdgeSpec, RunSpec, StepSpec

READ, INSERT, UPDATE, KEY, PLAN = When


def _to_retry(policy: Mapping[str, Any] | None) -> Retry:
    """The retry policy in its column; null is the default one."""
    if policy is None:
        return Retry()
    return Retry(**{**policy, "on": frozenset(RetryOn(word) for word in policy["on"])})


def _retry_fields(retry: Retry) -> dict[str, Any] | None:
    if retry == Retry():
        return None
    return {
        "attempts": retry.attempts,
        "delay_s": retry.delay_s,
        "backoff": retry.backoff,
        "max_delay_s": retry.max_delay_s,
        "on": sorted(retry.on),
    }


NO_WANTS = Requirements()


def _to_wants(stored: Mapping[str, Any]) -> Requirements:
    return requirements_of(stored) if stored else NO_WANTS


RUNS = Columns(
    (
        Column("id", "uuid", READ, alias="run_id", read=str),
        Column("version", "int", FIXED),
        Column("group_name", "text", FIXED, "group"),
        Column("timeout_s", "double precision", FIXED, alias="run_timeout_s"),
        Column("wants", "json", READ | PLAN, read=_to_wants, write=lambda wants: to_json(wants.to_json())),
        Column("parent", "uuid", READ | PLAN, read=maybe_text),
        Column("parent_step", "uuid", READ | PLAN, read=maybe_text),
        Column("state", "text", CHANGING, alias="run_state", read=member_of(RunState)),
        Column("result", "text", CHANGING, alias="run_result", read=maybe_member_of(RunResult)),
        Column("reason", "text", CHANGING, alias="run_reason", write=clean),
        Column("event_seq", "int", CHANGING),
        Column("attempt_seq", "int", CHANGING),
        Column("undecided", "int", CHANGING),
        Column("tally", "jsonb", CHANGING, read=counts_of(StepResult), write=to_json),
        Column("cause", "text", CHANGING, alias="run_cause", read=maybe_member_of(RunResult)),
        Column("cancel_by", "text", CHANGING),
        Column("deadline", "timestamptz", CHANGING, alias="run_deadline"),
        Column("due_at", "timestamptz", CHANGING, alias="run_due_at"),
        Column("started_at", "timestamptz", CHANGING, alias="run_started_at"),
        Column("finished_at", "timestamptz", CHANGING, alias="run_finished_at"),
        Column("phase", "text", CHANGING, alias="run_phase", read=member_of(Phase)),
        Column("cleanup", "json", CHANGING, read=counts_of(Phase), write=to_json),
        Column("live", "int", CHANGING),
        Column("waiting_for", "text", CHANGING, alias="run_waiting_for", write=maybe_clean),
        Column("pause_by", "text", CHANGING),
        Column("hold_until", "timestamptz", CHANGING),
        Column("outputs", "json", UPDATE, write=maybe_json, update="coalesce({}, outputs)"),
    )
)
"""Of a :class:`Run`."""


class NewRun(NamedTuple):
    """A run as it is first stored. ``sealed``: its hidden values; ``at``: the time of the first decision."""

    run: Run
    spec: RunSpec
    sealed: str | None
    at: datetime


def _concurrency_key(wants: Requirements) -> str | None:
    return None if wants.concurrency is None else clean(wants.concurrency.key)


NEW_RUNS = Columns(
    (
        Column("name", "text", INSERT, "spec.name", write=clean),
        Column("kind", "text", INSERT, "spec.kind"),
        Column("plan", "text", INSERT, "spec.plan"),
        Column("parameters", "json", INSERT, "spec.parameters", write=maybe_json),
        Column("created_by", "text", INSERT, "spec.created_by", write=clean),
        Column("created_at", "timestamptz", INSERT, "at"),
        Column("plan_version", "int", PLAN, "spec.plan_version"),
        Column("document", "text", PLAN, "spec.document", write=lambda text: text and clean(text, len(text))),
        Column("sealed", "text", PLAN, "sealed"),
        Column("concurrency_key", "text", PLAN, "spec.wants", write=_concurrency_key),
        Column("depth", "int", PLAN, "spec.depth"),
        Column("rerun_of", "uuid", PLAN, "spec.rerun_of"),
    )
)
"""What else is stored of a run: it decides nothing."""

STEPS = Columns(
    (
        Column("id", "uuid", FIXED | KEY, read=str),
        Column("run_id", "uuid", READ, "run", alias="run", read=str),
        Column("node", "text", FIXED),
        Column("name", "text", FIXED),
        Column("instance", "text", FIXED),
        Column("phase", "text", FIXED, read=member_of(Phase)),
        Column("kind", "text", FIXED, read=member_of(StepKind)),
        Column("timeout_s", "double precision", FIXED),
        Column("grace_s", "double precision", FIXED),
        Column("retry", "jsonb", FIXED, read=_to_retry, write=_retry_fields),
        Column("idempotent", "bool", FIXED),
        Column("matrix", "json", FIXED, read=unpack, write=maybe_json),
        Column("role", "text", FIXED),
        Column("role_index", "int", FIXED),
        Column("reuse", "uuid", FIXED, read=maybe_text),
        Column("state", "text", CHANGING, read=member_of(StepState)),
        Column("result", "text", CHANGING, read=maybe_member_of(StepResult)),
        Column("reason", "text", CHANGING, write=clean),
        Column("waiting_for", "text", CHANGING, write=maybe_clean),
        Column("attempt", "int", CHANGING),
        Column("tries", "int", CHANGING),
        Column("token", "text", CHANGING),
        Column("agent_id", "uuid", CHANGING, "agent", read=maybe_text),
        Column("host", "text", CHANGING),
        Column("sends", "int", CHANGING),
        Column("refusals", "int", CHANGING),
        Column("cause", "text", CHANGING, read=maybe_member_of(Cause)),
        Column("deadline", "timestamptz", CHANGING),
        Column("due_at", "timestamptz", CHANGING),
        Column("ready_at", "timestamptz", CHANGING),
        Column("started_at", "timestamptz", CHANGING),
        Column("finished_at", "timestamptz", CHANGING),
        Column("outputs", "json", CHANGING, read=unpack, write=maybe_json, update="coalesce({}, s.outputs)"),
    )
)
"""Of a :class:`Step`."""


class Hidden(NamedTuple):
    """A step's parameters as they are stored: hidden values masked, and all of them sealed if there are any."""

    parameters: Mapping[str, Any]
    sealed: str | None


class NewStep(NamedTuple):
    """A step as it is first stored; ``idx``: its number in the document."""

    step: Step
    spec: StepSpec
    hidden: Hidden
    idx: int


def _to_dict(labels: tuple[tuple[str, str], ...] | None) -> dict[str, str] | None:
    return None if labels is None else dict(labels)


NEW_STEPS = Columns(
    (
        Column("idx", "int", INSERT),
        Column("plugin", "text", INSERT, "spec.plugin"),
        Column("method", "text", INSERT, "spec.method"),
        Column("parameters", "json", INSERT, "hidden.parameters", write=to_json),
        Column("sealed", "text", INSERT, "hidden.sealed"),
        Column("env", "json", INSERT, "spec.env", write=maybe_json),
        Column("target", "text", INSERT, "spec.target"),
        Column("place_host", "text", INSERT, "spec.place.host"),
        Column("place_group", "text", INSERT, "spec.place.group"),
        Column("place_labels", "jsonb", INSERT, "spec.place.labels", write=_to_dict),
    )
)
"""What else is stored of a step: it decides nothing."""

NODES = Columns(
    (
        Column("name", "text", INSERT | KEY),
        Column("phase", "text", FIXED, alias="node_phase", read=member_of(Phase)),
        Column("max_parallel", "int", FIXED),
        Column("fail_fast", "bool", FIXED),
        Column("rules", "json", FIXED, read=rules_of, write=lambda rules: rules and to_json(rules.to_json())),
        Column("unfinished", "int", CHANGING),
        Column("failed", "int", CHANGING),
        Column("undecided", "int", CHANGING, alias="node_undecided"),
        Column("dead", "bool", CHANGING),
        Column("due_at", "timestamptz", CHANGING, alias="node_due_at"),
        Column("untold", "int", CHANGING),
    )
)
"""Of a :class:`Node`."""

EDGES = Columns(
    (Column("source", "text", INSERT), Column("target", "text", INSERT), Column("condition", "text", INSERT))
)
"""Of an edge as it is asked for."""


SAVED = INSERT | UPDATE

ATTEMPTS = Columns(
    (
        Column("step_id", "uuid", INSERT, "step"),
        Column("attempt", "int", INSERT),
        Column("idx", "int", INSERT, "index", insert="coalesce({}, -1)"),
        Column("agent_id", "uuid", SAVED, "agent"),
        Column("token", "text", SAVED),
        Column("state", "text", SAVED),
        Column("result", "text", SAVED),
        Column("reason", "text", SAVED, write=clean),
        Column("exit_code", "int", SAVED, within="end"),
        Column("output", "json", SAVED, within="end", write=lambda value: to_json(dict(value))),
        Column("error", "json", SAVED, within="end", write=lambda it: None if it is None else to_json(dict(it))),
        Column("chunks", "int", SAVED, within="end"),
        Column("lines", "bigint", SAVED, within="end"),
        Column("bytes", "bigint", SAVED, within="end"),
        Column("tree_gone", "bool", SAVED, within="end"),
        Column("reported", "bool", SAVED),
        Column("started_at", "timestamptz", SAVED),
        Column("finished_at", "timestamptz", SAVED),
    )
)
"""Of an :class:`AttemptRow`. Agents send JSON: no number in it has a spelling of its own."""

EVENTS = Columns(
    (
        Column("seq", "int", FIXED),
        Column("kind", "text", FIXED),
        Column("step_id", "uuid", FIXED, "step"),
        Column("step", "text", FIXED, "step_name"),
        Column("attempt", "int", FIXED),
        Column("host", "text", FIXED),
        Column("old", "text", FIXED),
        Column("new", "text", FIXED),
        Column("result", "text", FIXED),
        Column("reason", "text", FIXED, write=clean),
    )
)
"""Of an :class:`EventRow`."""

RECORDS = Columns(
    (
        Column("step_id", "uuid", INSERT, "step"),
        Column("attempt", "int", INSERT),
        Column("body", "json", INSERT, write=maybe_json),
    )
)
"""Of a :class:`RecordRow`."""

# -- what is made of them -------------------------------------------------------------------------------------------

RUN_COLUMNS = RUNS.at(READ).select("r") + ", clock_timestamp() AS now"
STEP_COLUMNS = STEPS.at(READ).select("s")
NODE_COLUMNS = NODES.at(READ).select("n")
EVENT_COLUMNS = EVENTS.select("e")

RUN_SAVED = RUNS.at(UPDATE)
STEPS_SAVED = STEPS.at(KEY | UPDATE)
NODES_SAVED = NODES.at(KEY | UPDATE)
EDGE_COLUMNS = "e.source, e.condition, " + NODES_SAVED.of("t")
"""Of an edge and the node that it leads to: what a decision may change."""
CALL_COLUMNS = NEW_STEPS.only("plugin", "method", "parameters", "sealed", "env", "target").select("s") + ", r.number"
PLACE_COLUMNS = NEW_STEPS.only("place_host", "place_group", "place_labels").select("s")

CASE_MADE = Columns((*RUNS.at(INSERT).under("run"), *NEW_RUNS.at(INSERT)))
PLAN_MADE = Columns((*RUNS.at(INSERT | PLAN).under("run"), *NEW_RUNS))
STEPS_MADE = Columns((*STEPS.at(INSERT).under("step"), *NEW_STEPS))
NODES_MADE = NODES.at(INSERT)

to_run: Callable[[Row], Run] = reader(Run, RUNS.at(READ))
"""The run in a row of RUN_COLUMNS."""
to_step: Callable[[Row], Step] = reader(Step, STEPS.at(READ))
"""The step in a row of STEP_COLUMNS."""
to_node: Callable[[Row, str, str], Node] = reader(Node, NODES.at(READ), "run", "name")
"""The node in a row of NODE_COLUMNS; the caller gives run and name."""
_to_condition = member_of(Condition)
_to_target: Callable[[Any, str], Node] = reader(Node, NODES_SAVED, "run", start=2)


def to_edges(run: str, rows: Iterable[Any]) -> dict[str, tuple[Edge, ...]]:
    """Edges by their source, from rows of EDGE_COLUMNS."""
    edges: dict[str, tuple[Edge, ...]] = {}
    for row in rows:
        edge = Edge(_to_condition(row[1]), _to_target(row, run))
        edges[row[0]] = (*edges.get(row[0], ()), edge)
    return edges


run_values: Callable[[Run], tuple[Any, ...]] = writer(RUN_SAVED)
steps_json: Callable[[Iterable[Step]], str] = records_writer(STEPS_SAVED)
nodes_json: Callable[[Iterable[Node]], str] = records_writer(NODES_SAVED)
attempts_json: Callable[[Iterable[AttemptRow]], str] = records_writer(ATTEMPTS)
events_json: Callable[[Iterable[EventRow]], str] = records_writer(EVENTS)
records_json: Callable[[Iterable[RecordRow]], str] = records_writer(RECORDS)

case_values: Callable[[NewRun], tuple[Any, ...]] = writer(CASE_MADE)
plan_values: Callable[[NewRun], tuple[Any, ...]] = writer(PLAN_MADE)
new_steps_json: Callable[[Iterable[NewStep]], str] = records_writer(STEPS_MADE)
new_nodes_json: Callable[[Iterable[Node]], str] = records_writer(NODES_MADE)
edges_json: Callable[[Iterable[EdgeSpec]], str] = records_writer(EDGES)
