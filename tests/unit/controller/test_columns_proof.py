"""The statements that are made of the tables of columns are the ones that were written by hand.

White space is folded; lists are compared as sets, with each placeholder replaced by the value that is bound to it.
The one difference: a placeholder may have its column's type behind it where it had none.
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

from proctor_common.states import RunResult, RunState, StepResult, StepState, VolumeState
from proctor_controller.db import plans, schedules
from proctor_controller.db.duties import Held
from proctor_controller.db.hosts import candidates, deadlocks, leasing
from proctor_controller.db.pool import claims, jobs, pools, vnfps, volumes
from proctor_controller.db.runs import attempts, cascade, decisions, reruns
from proctor_controller.db.runs.submissions import Hidden, insert_run
from proctor_controller.domain.hosts.leasing import LeasableHost
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
from proctor_controller.domain.schedule import Schedule, TickOutcome
from proctor_controller.domain.volumes.breaker import Breaker
from proctor_controller.domain.volumes.settings import PoolType
from proctor_controller.domain.volumes.volume import Volume

START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(day: int) -> datetime:
    return START + timedelta(days=day)


class Listening:
    """A session that keeps what is asked of it, and answers nothing."""

    def __init__(self) -> None:
        self.asked: tuple[str, Sequence[Any] | Mapping[str, Any]] = ("", ())
        self.first: tuple[str, Sequence[Any] | Mapping[str, Any]] = ("", ())

    async def fetchrow(self, text: str, *args: Any) -> dict[str, Any] | None:
        self.asked = text, args
        return {"saved": 0, "number": None} if "INTO control.run_events" in text else None

    async def fetch(self, text: str, *args: Any) -> list[Any]:
        self.asked = text, args
        return []

    async def fetchval(self, text: str, *args: Any) -> None:
        self.asked = text, args

    async def execute(self, query: Any, values: Any = None, *more: Any) -> Any:
        """Of either kind of session."""
        if isinstance(query, str):
            self.asked = query, (values, *more)
        else:
            self.asked = str(query), values
        self.first = self.first if self.first[0] else self.asked
        return "UPDATE 1" if isinstance(query, str) else Nothing()


class Nothing:
    """A result without rows."""

    rowcount = 1

    def mappings(self) -> "Nothing":
        return self

    def first(self) -> None:
        return None

    def __iter__(self) -> Any:
        return iter(())


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

HOST = LeasableHost("agent of the host", "host")
WAITING = leasing.Waiting("run", 71, RunState.QUEUED, "group", Requirements(), holds=False)
VOLUME = Volume(
    "volume",
    "type",
    72,
    "volume's name",
    VolumeState.CLAIMED,
    moment(15),
    moment(16),
    vnfp="vnfp",
    run="run of the volume",
    key="key of the volume",
    tries=73,
    version=74,
)
CHANGES = {
    "state": "in_use",
    "backend_id": "backend id",
    "path": "path",
    "named": "named",
    "reason": "why the volume",
    "evictions": 75,
    "vnfp": None,
    "retain": True,
}
SCHEDULE = Schedule(
    "schedule",
    "schedule's name",
    "cron",
    "timezone",
    "plan",
    moment(17),
    {"p": 76},
    "sealed",
    "overlap",
    "group",
    True,
    "who made it",
)
TICK = schedules.Tick(moment(18), TickOutcome.STARTED, "run", "why the tick")
HELD_DUTY = Held("pool", 77)


async def statements() -> dict[str, tuple[str, Any]]:
    """Every statement that columns stand in, with its arguments."""
    said: dict[str, tuple[str, Any]] = {}
    db: Any = Listening()

    async def hear(name: str, asking: Any, *, first: bool = False) -> None:
        db.asked = db.first = "", ()
        await asking
        said[name] = db.first if first else db.asked

    await hear("volume", volumes.load_volume(db, "volume"))
    await hear("work", volumes.load_work(db, 81))
    await hear("queue of volumes", volumes.load_queue(db, ["type"], 82))
    await hear("alive", volumes.load_alive(db))
    await hear("made again", volumes.insert_again(db, VOLUME))
    await hear("made for a run", volumes.insert_volume(db, run="run", key="key", name="name", type="type", size_gb=89))
    await hear("changed", volumes.change_volume(db, HELD_DUTY, VOLUME, gone=True, **CHANGES))
    await hear("gone", volumes.change_volume(db, HELD_DUTY, VOLUME, gone=True))
    await hear("posted", volumes.mark_posted(db, HELD_DUTY, VOLUME))
    await hear("of a run", claims.load_of_run(db, "run"))
    await hear("spare", claims.claim_spare_for_run(db, "run", "key", "name", type="type", size_gb=83))
    await hear("vnfps", vnfps.load_vnfps(db, ["vnfp"]))
    await hear("volumes", vnfps.list_volumes(db, groups=["group"], state="s", type="t", after="a", limit=84))
    await hear("view", vnfps.load_volume_row(db, "volume"))
    await hear("breaker", jobs.save_breaker(db, Breaker("scope", 85, moment(19), moment(20), "why the breaker")))
    types = {"t": PoolType("t", 86, 87)}
    await hear("new types", pools.add_types(db, types))
    await hear("schedule", schedules.load_schedule(db, "name", lock=True))
    await hear("schedules", schedules.list_schedules(db, groups=["group"], after="after", limit=91))
    await hear("saved schedule", schedules.save_schedule(db, SCHEDULE))
    await hear("due", schedules.lock_due(db, 92))
    await hear("firing", schedules.load_firing(db, 93))
    await hear("ended tick", schedules.end_tick(db, "schedule", TICK))
    await hear("plan of a run", plans.find_plan(db, "plan", 94))
    await hear("stored plan", plans.load_plan(db, "plan", 95))
    await hear("plans", plans.list_plans(db, groups=["group"], after="after", limit=96))
    await hear("waiter", candidates.load_waiter(db, "step"))
    await hear("waiters", candidates.load_waiting(db, 97))
    await hear("turns", candidates.next_turns(db, "agent", 98))
    await hear("orphans", candidates.free_orphans(db))
    await hear("hosts", leasing.load_hosts(db, WAITING))
    await hear("some hosts", leasing.find_hosts(db, ["agent"]))
    await hear("held", leasing.hold_hosts(db, "run", {"role": [HOST]}, {"role": False}))
    await hear("call", attempts.load_call(db, "step"))
    await hear("next", cascade.load_next_nodes(db, "run", ["node"]))
    await hear("case", reruns.load_case(db, "run"))
    await hear("handed over", decisions.save_decision(db, DECISION))
    await hear("claimed", decisions.save_decision(db, replace(DECISION, released=()), if_nobody_waits=True))
    spare = replace(DECISION, held=(), released=(SlotReleased("agent", "old token"),))
    await hear("released", decisions.save_decision(db, spare))
    first = replace(DECISION, steps=(replace(STEP, reuse=None),))
    await hear("run", insert_run(db, SPEC, HIDDEN, first, moment(14), sealed="sealed of the run", if_nobody_waits=True))
    await hear("types", pools.apply_types(db, types), first=True)
    await hear("added tick", schedules.add_ticks(db, "schedule", [TICK], moment(21)), first=True)
    for name in ("_OF_STEP", "_EDGES"):
        said[name] = getattr(decisions, name), ()
    said["hosts of circles"] = deadlocks._HOSTS, ()
    return said


# fmt: off
WRITTEN: Mapping[str, tuple[str, Any]] = {
    "volume": (
        """SELECT v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now FROM control.volumes v WHERE v.id = $1""",
        ['volume'],
    ),
    "work": (
        """SELECT v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now FROM control.volumes v WHERE (v.state IN ('intent', 'creating', 'claimed', 'deleting') OR (v.state = 'failed' AND v.gone_at IS NULL) OR (v.state = 'in_use' AND v.name <>
v.named)) AND (v.state <> 'intent' OR v.posted_at IS NOT NULL) ORDER BY (v.vnfp IS NULL AND v.run IS NULL), v.created_at, v.id LIMIT $1""",
        [81],
    ),
    "queue of volumes": (
        """SELECT v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now FROM control.volumes v WHERE v.state = 'intent' AND v.posted_at IS NULL AND NOT v.id = ANY($1::uuid[]) ORDER BY (v.vnfp IS NULL AND v.run IS NULL), v.created_at, v.id
LIMIT $2""",
        [['type'], 82],
    ),
    "alive": (
        """SELECT v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now FROM control.volumes v WHERE v.gone_at IS NULL ORDER BY v.created_at, v.id""",
        [],
    ),
    "made again": (
        """INSERT INTO control.volumes (id, type, size_gb, name, state, from_pool, vnfp, run, key, tries) VALUES ($1, $2, $3, $4, 'intent', false, $5, $6, $7, $8)""",
        ['fresh', 'type', 72, "volume's name", 'vnfp', 'run of the volume', 'key of the volume', 74],
    ),
    "made for a run": (
        """INSERT INTO control.volumes (id, type, size_gb, name, state, from_pool, run, key) VALUES ($1, $2, $3, $4, 'intent', false, $5, $6)""",
        ['fresh', 'type', 89, 'name', 'run', 'key'],
    ),
    "changed": (
        """UPDATE control.volumes v SET state = $5::text, backend_id = $6::text, path = $7::text, named = $8::text, reason = $9::text, evictions = $10::integer, vnfp = $11::uuid, retain = $12::boolean, gone_at = now(), version = v.version + 1 WHERE v.id = $1 AND v.version = $2 AND EXISTS (SELECT 1 FROM control.duties d WHERE d.name = $3 AND d.epoch = $4 AND d.expires_at > now()) RETURNING v.id, v.type,
v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now""",
        ['volume', 74, 'pool', 77, 'in_use', 'backend id', 'path', 'named', 'why the volume', 75, None, True],
    ),
    "gone": (
        """UPDATE control.volumes v SET gone_at = now(), version = v.version + 1 WHERE v.id = $1 AND v.version = $2 AND EXISTS (SELECT 1 FROM control.duties d WHERE d.name = $3 AND d.epoch = $4 AND d.expires_at > now()) RETURNING v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at,
v.gone_at, v.version, clock_timestamp() AS now""",
        ['volume', 74, 'pool', 77],
    ),
    "posted": (
        """UPDATE control.volumes v SET posted_at = now(), named = name, version = v.version + 1 WHERE v.id = $1 AND v.version = $2 AND EXISTS (SELECT 1 FROM control.duties d WHERE d.name = $3 AND d.epoch = $4 AND d.expires_at > now()) RETURNING v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at,
v.posted_at, v.gone_at, v.version, clock_timestamp() AS now""",
        ['volume', 74, 'pool', 77],
    ),
    "of a run": (
        """SELECT v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id, v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now FROM control.volumes v WHERE v.run = $1 ORDER BY v.created_at, v.tries, v.id""",
        ['run'],
    ),
    "spare": (
        """UPDATE control.volumes v SET state = 'claimed', run = $4, key = $5, name = $6, claimed_at = now(), version = v.version + 1 WHERE v.id = (SELECT id FROM (SELECT id, created_at FROM control.volumes WHERE state = 'ready' AND type = $1 AND size_gb >= $2 ORDER BY created_at, id LIMIT $3 FOR UPDATE SKIP LOCKED) s) RETURNING v.id, v.type, v.size_gb, v.name, v.named, v.state, v.from_pool, v.backend_id,
v.path, v.vnfp, v.run, v.key, v.retain, v.tries, v.evictions, v.reason, v.created_at, v.posted_at, v.gone_at, v.version, clock_timestamp() AS now""",
        ['type', 83, 1, 'run', 'key', 'name'],
    ),
    "vnfps": (
        """SELECT n.id, n.name, n.type, n.size_gb, n.state, n.reason, n.created_at, v.id AS v_id, v.name AS v_name, v.type AS v_type, v.size_gb AS v_size_gb, v.state AS v_state, v.from_pool AS v_from_pool, v.backend_id AS v_backend_id, v.vnfp AS v_vnfp, v.run AS v_run, v.reason AS v_reason, v.created_at AS v_created_at FROM control.vnfps n JOIN control.volumes v ON v.id = n.volume_id WHERE n.id =
ANY($1::uuid[])""",
        [['vnfp']],
    ),
    "volumes": (
        """SELECT v.id AS v_id, v.name AS v_name, v.type AS v_type, v.size_gb AS v_size_gb, v.state AS v_state, v.from_pool AS v_from_pool, v.backend_id AS v_backend_id, v.vnfp AS v_vnfp, v.run AS v_run, v.reason AS v_reason, v.created_at AS v_created_at FROM control.volumes v WHERE ($1::text[] IS NULL OR EXISTS ( SELECT 1 FROM control.runs r WHERE r.id = v.run AND r.group_name = ANY($1))) AND ($2::text IS
NULL AND v.state <> 'deleted' OR v.state = $2) AND ($3::text IS NULL OR v.type = $3) AND ($4::uuid IS NULL OR v.id < $4) ORDER BY v.id DESC LIMIT $5""",
        [['group'], 's', 't', 'a', 84],
    ),
    "view": (
        """SELECT v.id AS v_id, v.name AS v_name, v.type AS v_type, v.size_gb AS v_size_gb, v.state AS v_state, v.from_pool AS v_from_pool, v.backend_id AS v_backend_id, v.vnfp AS v_vnfp, v.run AS v_run, v.reason AS v_reason, v.created_at AS v_created_at FROM control.volumes v WHERE v.id = $1""",
        ['volume'],
    ),
    "breaker": (
        """INSERT INTO control.pool_breakers (scope, failures, opened_at, probe_at, reason) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (scope) DO UPDATE SET failures = $2, opened_at = $3, probe_at = $4, reason = $5""",
        ['scope', 85, moment(19), moment(20), 'why the breaker'],
    ),
    "new types": (
        """INSERT INTO control.pools (type, size_gb, target, file_target) SELECT type, size, target, target FROM unnest($1::text[], $2::integer[], $3::integer[]) AS f (type, size, target) ON CONFLICT DO NOTHING""",
        [['t'], [87], [86]],
    ),
    "schedule": (
        """SELECT s.id, s.name, s.cron, s.timezone, s.plan, s.parameters, s.sealed, s.overlap, s.group_name, s.bound, s.created_by, s.created_at, s.next_at FROM control.schedules s WHERE s.name = :name FOR UPDATE""",
        {'name': 'name'},
    ),
    "schedules": (
        """SELECT s.id, s.name, s.cron, s.timezone, s.plan, s.parameters, s.sealed, s.overlap, s.group_name, s.bound, s.created_by, s.created_at, s.next_at FROM control.schedules s WHERE s.name COLLATE "C" > :after AND (:all OR s.group_name = ANY(:groups)) ORDER BY s.name COLLATE "C" LIMIT :limit""",
        {'after': 'after', 'all': False, 'groups': ['group'], 'limit': 91},
    ),
    "saved schedule": (
        """INSERT INTO control.schedules AS s (name, id, cron, timezone, plan, parameters, sealed, overlap, group_name, bound, created_by, next_at) VALUES (:name, :id, :cron, :timezone, :plan, :parameters, :sealed, :overlap, :group, :bound, :by, :next) ON CONFLICT (name) DO UPDATE SET cron = :cron, timezone = :timezone, plan = :plan, parameters = :parameters, sealed = :sealed, overlap = :overlap, group_name
= :group, bound = :bound, next_at = :next, changed_at = now()""",
        {'name': "schedule's name", 'id': 'schedule', 'cron': 'cron', 'timezone': 'timezone', 'plan': '"plan"', 'parameters': '{"p":76}', 'sealed': 'sealed', 'overlap': 'overlap', 'group': 'group', 'bound': True, 'by': 'who made it', 'next': moment(17)},
    ),
    "due": (
        """SELECT s.id, s.name, s.cron, s.timezone, s.plan, s.parameters, s.sealed, s.overlap, s.group_name, s.bound, s.created_by, s.created_at, s.next_at FROM control.schedules s WHERE s.next_at <= clock_timestamp() ORDER BY s.next_at LIMIT :limit FOR UPDATE""",
        {'limit': 92},
    ),
    "firing": (
        """SELECT s.id, s.name, s.cron, s.timezone, s.plan, s.parameters, s.sealed, s.overlap, s.group_name, s.bound, s.created_by, s.created_at, s.next_at, t.at, t.outcome, t.run_id, t.reason FROM control.schedule_ticks t JOIN control.schedules s ON s.id = t.schedule_id WHERE t.outcome = 'firing' ORDER BY t.at LIMIT :limit""",
        {'limit': 93},
    ),
    "ended tick": (
        """UPDATE control.schedule_ticks SET outcome = :outcome, run_id = :run, reason = :reason, decided_at = now() WHERE schedule_id = :schedule AND at = :at AND outcome = 'firing'""",
        {'schedule': 'schedule', 'at': moment(18), 'outcome': 'started', 'run': 'run', 'reason': 'why the tick'},
    ),
    "plan of a run": (
        """SELECT name, version, document, group_name, created_by, created_at, NULL::int[] AS versions FROM control.plans WHERE name = $1 AND ($2::int IS NULL OR version = $2) AND ($3 OR deleted_at IS NULL) ORDER BY version DESC LIMIT 1""",
        ['plan', 94, False],
    ),
    "stored plan": (
        """SELECT name, version, document, group_name, created_by, created_at, (SELECT array_agg(v.version ORDER BY v.version) FROM (SELECT version FROM control.plans WHERE name = p.name AND deleted_at IS NULL ORDER BY version DESC LIMIT 1000) v) AS versions FROM control.plans p WHERE name = :name AND (CAST(:version AS int) IS NULL OR version = :version) AND deleted_at IS NULL ORDER BY version DESC LIMIT 1""",
        {'name': 'plan', 'version': 95},
    ),
    "plans": (
        """SELECT DISTINCT ON (name COLLATE "C") name, version, '' AS document, group_name, created_by, created_at, (SELECT array_agg(v.version ORDER BY v.version) FROM (SELECT version FROM control.plans WHERE name = p.name AND deleted_at IS NULL ORDER BY version DESC LIMIT 1000) v) AS versions FROM control.plans p WHERE deleted_at IS NULL AND name COLLATE "C" > :after AND (:all OR group_name = ANY(:groups))
ORDER BY name COLLATE "C", version DESC LIMIT :limit""",
        {'after': 'after', 'all': False, 'groups': ['group'], 'limit': 96},
    ),
    "waiter": (
        """SELECT w.run_id, w.id, (CASE WHEN w.role IS NOT NULL THEN (SELECT m.host FROM control.allocations m WHERE m.run_id = w.run_id AND m.role = w.role AND m.idx = coalesce(w.role_index, 0)) WHEN w.phase = 'rollback' THEN (SELECT m.host FROM control.steps m WHERE m.run_id = w.run_id AND m.node = substr(w.node, 10) AND m.instance = w.instance) ELSE w.place_host END) AS place_host, w.place_group,
w.place_labels, w.plugin, w.method, w.target, v.group_name, w.ready_at, w.waiting_for FROM control.steps w JOIN control.runs v ON v.id = w.run_id WHERE w.id = $1 AND w.state = 'ready' AND w.kind = 'method'""",
        ['step'],
    ),
    "waiters": (
        """SELECT w.run_id, w.id, (CASE WHEN w.role IS NOT NULL THEN (SELECT m.host FROM control.allocations m WHERE m.run_id = w.run_id AND m.role = w.role AND m.idx = coalesce(w.role_index, 0)) WHEN w.phase = 'rollback' THEN (SELECT m.host FROM control.steps m WHERE m.run_id = w.run_id AND m.node = substr(w.node, 10) AND m.instance = w.instance) ELSE w.place_host END) AS place_host, w.place_group,
w.place_labels, w.plugin, w.method, w.target, v.group_name, w.ready_at, w.waiting_for FROM control.steps w JOIN control.runs v ON v.id = w.run_id WHERE w.state = 'waiting' AND (v.state = 'running' OR w.phase <> 'main' AND v.state IN ('rolling_back', 'finalizing')) AND ($2::uuid IS NULL OR (w.ready_at, w.id) > ($3, $2)) ORDER BY w.ready_at, w.id LIMIT $1""",
        [97, None, None],
    ),
    "turns": (
        """WITH waits AS MATERIALIZED ( SELECT w.run_id, w.id, w.host, w.ready_at, w.plugin, w.method, w.target, w.place_group, w.place_labels, v.group_name, (CASE WHEN w.role IS NOT NULL THEN (SELECT m.host FROM control.allocations m WHERE m.run_id = w.run_id AND m.role = w.role AND m.idx = coalesce(w.role_index, 0)) WHEN w.phase = 'rollback' THEN (SELECT m.host FROM control.steps m WHERE m.run_id =
w.run_id AND m.node = substr(w.node, 10) AND m.instance = w.instance) ELSE w.place_host END) AS place_host FROM control.steps w JOIN control.runs v ON v.id = w.run_id WHERE w.state = 'waiting' AND (v.state = 'running' OR w.phase <> 'main' AND v.state IN ('rolling_back', 'finalizing'))) SELECT a.id AS agent, a.host, n.run_id, n.id AS step, l.made >= a.slots AS slots_made FROM control.agents a LEFT
JOIN LATERAL (SELECT count(*) AS made, count(*) FILTER (WHERE x.step_id IS NULL AND x.slot < a.slots) AS free FROM control.leases x WHERE x.agent_id = a.id) l ON true CROSS JOIN LATERAL ( SELECT f.* FROM (SELECT w.run_id, w.id, w.host, w.ready_at FROM waits w WHERE CASE WHEN (CASE WHEN w.place_host::text IS NOT NULL THEN a.host = w.place_host WHEN w.place_group::text IS NOT NULL THEN EXISTS
(SELECT 1 FROM control.group_agents g WHERE g.agent_id = a.id AND g.group_name = w.place_group) ELSE a.labels @> w.place_labels::jsonb END) AND (w.group_name::text IS NULL OR EXISTS (SELECT 1 FROM control.group_agents g WHERE g.agent_id = a.id AND g.group_name = w.group_name)) AND (w.target IS NULL OR a.targets ? w.target) THEN a.plugins -> w.plugin -> 'methods' ? w.method END ORDER BY w.ready_at,
w.id OFFSET 0) f WHERE NOT (EXISTS (SELECT 1 FROM control.allocations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND o.exclusive AND o.run_id <> ALL ((SELECT control.lineage(f.run_id))::uuid[])) OR EXISTS (SELECT 1 FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <>
ALL ((SELECT control.lineage(f.run_id))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage(f.run_id))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage(f.run_id))::uuid[])) END AND coalesce(f.ready_at >= q.created_at, true))) AND NOT
(a.draining AND NOT EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage(f.run_id))::uuid[]))) LIMIT 1) n WHERE a.state = 'online' AND NOT a.leftovers AND a.instance IS NOT NULL AND ($1::uuid IS NULL OR a.id = $1) AND l.free + greatest(a.slots - l.made, 0) > 0 -- A step that an agent would not take, or that did not reach it, tries another
one first. ORDER BY n.host IS NOT DISTINCT FROM a.host, l.free DESC LIMIT $2""",
        ['agent', 98],
    ),
    "orphans": (
        """UPDATE control.leases l SET step_id = NULL, attempt = NULL, token = NULL, taken_at = NULL WHERE l.step_id IS NOT NULL AND l.taken_at < now() - interval '1 minute' AND NOT EXISTS ( SELECT 1 FROM control.steps s WHERE s.id = l.step_id AND s.token = l.token AND s.state <> 'finished')""",
        [None],
    ),
    "hosts": (
        """SELECT a.id, a.host, a.labels, a.state, a.draining, a.leftovers, ARRAY(SELECT unnest(a.remains) EXCEPT SELECT unnest(a.released)) AS remains, a.instance IS NOT NULL AS registered, ARRAY(SELECT jsonb_object_keys(a.plugins)) AS plugins, ARRAY(SELECT u FROM unnest($4::text[]) u WHERE a.plugins -> split_part(u, '.', 1) -> 'methods' ? split_part(u, '.', 2)) AS methods, ARRAY(SELECT
jsonb_object_keys(a.targets)) AS targets, (SELECT array_agg(g.group_name) FROM control.group_agents g WHERE g.agent_id = a.id) AS groups, (SELECT json_build_array(q.number, q.name, q.group_name, CASE WHEN q.state = 'finished' THEN q.hold_until END) FROM control.allocations x JOIN control.runs q ON q.id = x.run_id WHERE x.agent_id = a.id AND x.exclusive AND x.run_id <> ALL (o.own) LIMIT 1) AS
alone, (SELECT json_agg(json_build_array(h.holder, h.count)) FROM ( SELECT json_build_array(q.number, q.name, q.group_name, CASE WHEN q.state = 'finished' THEN q.hold_until END) AS holder, count(*) OVER () AS count FROM control.allocations x JOIN control.runs q ON q.id = x.run_id WHERE x.agent_id = a.id AND x.run_id <> ALL (o.own) GROUP BY q.number, q.name, q.group_name, q.state, q.hold_until
ORDER BY q.number LIMIT 4) h) AS shared, (SELECT json_agg(json_build_array(h.holder, h.count)) FROM ( SELECT json_build_array(q.number, q.name, q.group_name, CASE WHEN q.state = 'finished' THEN q.hold_until END) AS holder, count(*) OVER () AS count FROM control.leases x JOIN control.steps s ON s.id = x.step_id JOIN control.runs q ON q.id = s.run_id WHERE x.agent_id = a.id AND q.id <> ALL (o.own)
GROUP BY q.number, q.name, q.group_name, q.state, q.hold_until ORDER BY q.number LIMIT 4) h) AS used, (SELECT json_build_array(q.number, q.name, q.group_name, CASE WHEN q.state = 'finished' THEN q.hold_until END) FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.number < $2 AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <> ALL
((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage($1::uuid))::uuid[])) END LIMIT 1) AS kept FROM control.agents a CROSS JOIN (SELECT
control.lineage($1) AS own) o WHERE a.revoked_at IS NULL AND ($3::text IS NULL OR EXISTS ( SELECT 1 FROM control.group_agents g WHERE g.agent_id = a.id AND g.group_name = $3)) ORDER BY a.host""",
        ['run', 71, 'group', []],
    ),
    "some hosts": (
        """SELECT a.id, a.host, a.labels, (SELECT array_agg(g.group_name) FROM control.group_agents g WHERE g.agent_id = a.id) AS groups FROM control.agents a WHERE a.id = ANY($1::uuid[]) AND a.revoked_at IS NULL""",
        [['agent']],
    ),
    "held": (
        """INSERT INTO control.allocations (run_id, role, idx, agent_id, host, exclusive) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING""",
        ['run', 'role', 0, 'agent of the host', 'host', False],
    ),
    "call": (
        """SELECT s.id, s.run_id AS run, s.node, s.name, s.instance, s.phase, s.kind, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.matrix, s.role, s.role_index, s.reuse, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals, s.cause, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.outputs, r.number, s.plugin, s.method,
s.parameters, s.sealed, s.env, s.target, n.rules FROM control.steps s JOIN control.runs r ON r.id = s.run_id JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",
        ['step'],
    ),
    "next": (
        """SELECT n.name AS of_node, n.phase AS node_phase, n.max_parallel, n.fail_fast, n.rules, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.untold, s.id, s.run_id AS run, s.node, s.name, s.instance, s.phase, s.kind, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.matrix, s.role, s.role_index, s.reuse, s.state, s.result, s.reason, s.waiting_for, s.attempt,
s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals, s.cause, s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.outputs, s.plugin, s.method, s.parameters, s.sealed, s.env, s.target, s.place_host, s.place_group, s.place_labels, r.number, l.host AS leased, (SELECT json_agg(json_build_array(e.source, e.condition, t.name, t.unfinished, t.failed, t.undecided, t.dead, t.due_at,
t.untold)) FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target WHERE e.run_id = n.run_id AND e.source = n.name) AS edges FROM control.runs r JOIN control.nodes n ON n.run_id = r.id LEFT JOIN LATERAL ( SELECT * FROM control.steps p WHERE p.run_id = n.run_id AND p.node = n.name AND p.state = 'pending' ORDER BY p.idx LIMIT 9) s ON true LEFT JOIN control.allocations
l ON l.run_id = r.id AND l.role = s.role AND l.idx = coalesce(s.role_index, 0) WHERE r.id = $1 AND n.name = ANY($2::text[]) ORDER BY s.idx""",
        ['run', ['node']],
    ),
    "case": (
        """SELECT r.name, r.group_name, r.timeout_s AS run_timeout_s, r.parameters AS shown, s.id, s.node, s.plugin, s.method, s.place_host, s.place_group, s.place_labels, s.parameters, s.sealed, s.target, s.timeout_s, s.grace_s, n.rules FROM control.runs r JOIN control.steps s ON s.run_id = r.id JOIN control.nodes n ON n.run_id = r.id AND n.name = s.node WHERE r.id = $1 AND r.document IS NULL""",
        ['run'],
    ),
    "handed over": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = x.step_id, attempt = x.attempt, token = x.token, taken_at = now() FROM json_to_recordset($26::json) AS x(agent_id uuid, step_id uuid, attempt int, token text, old text) JOIN control.agents a ON a.id = x.agent_id WHERE EXISTS (SELECT 1 FROM control.runs WHERE id = $1 AND version = $2) AND l.token = x.old AND l.agent_id = x.agent_id AND l.slot <
a.slots AND a.state = 'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1 FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <> ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations
asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps t WHERE t.id = x.step_id) >= q.created_at, true)) AND NOT a.draining OR EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT
control.lineage($1::uuid))::uuid[]))) AND (l.held_for IS NULL OR l.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) RETURNING 1), run AS ( UPDATE control.runs SET version = version + 1, state = $3::text, result = $4::text, reason = $5::text, event_seq = $6::int, attempt_seq = $7::int, undecided = $8::int, tally = $9::jsonb, cause = $10::text, cancel_by = $11::text, deadline =
$12::timestamptz, due_at = $13::timestamptz, started_at = $14::timestamptz, finished_at = $15::timestamptz, phase = $16::text, cleanup = $17::json, live = $18::int, waiting_for = $19::text, pause_by = $20::text, hold_until = $21::timestamptz, outputs = coalesce($22::json, outputs) WHERE id = $1 AND version = $2 AND (SELECT count(*) FROM claim) = 1 RETURNING 1), steps AS ( UPDATE control.steps s
SET state = x.state, result = x.result, reason = x.reason, waiting_for = x.waiting_for, attempt = x.attempt, tries = x.tries, token = x.token, agent_id = x.agent_id, host = x.host, sends = x.sends, refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at = x.ready_at, started_at = x.started_at, finished_at = x.finished_at, outputs = coalesce(x.outputs::json,
s.outputs) FROM json_to_recordset($23::json) AS x(id uuid, state text, result text, reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz, finished_at timestamptz, outputs text) WHERE s.id = ANY($25::uuid[]) AND s.id = x.id AND EXISTS
(SELECT 1 FROM run) RETURNING 1), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1, x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($24::json) AS x(seq int, kind text, step_id uuid, step text, attempt int, host text, old text, new text, result text, reason text)
WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , nodes AS ( UPDATE control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided = x.undecided, dead = x.dead, due_at = x.due_at, untold = x.untold FROM json_to_recordset($28::json) AS x(name text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE n.run_id = $1 AND n.name =
ANY($27::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (run_id, step_id, attempt, idx, agent_id, token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT $1::uuid, x.step_id, x.attempt, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason,
x.exit_code, x.output::json, x.error::json, x.chunks, x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($29::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token text, state text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool, started_at timestamptz,
finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id, token = excluded.token, state = excluded.state, result = excluded.result, reason = excluded.reason, exit_code = excluded.exit_code, output = excluded.output, error = excluded.error, chunks = excluded.chunks, lines = excluded.lines, bytes = excluded.bytes, tree_gone =
excluded.tree_gone, reported = excluded.reported, started_at = excluded.started_at, finished_at = excluded.finished_at), released AS ( UPDATE control.leases SET step_id = NULL, attempt = NULL, token = NULL, taken_at = NULL WHERE token = ANY($30::text[]) AND EXISTS (SELECT 1 FROM run)), records AS ( INSERT INTO control.records (run_id, step_id, attempt, body) SELECT $1, x.step_id, x.attempt,
x.body::json FROM json_to_recordset($31::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT DO NOTHING) SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, (EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') OR EXISTS (SELECT 1 FROM control.reservations)) AS queue, 1 / (CASE WHEN (SELECT
count(*) FROM run) * 1 = (SELECT count(*) FROM claim) AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length($23::json) THEN 1 ELSE 0 END) AS whole""",
        ['run', 10, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', moment(1), moment(2), moment(3), moment(4), 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', moment(5), '{"of":"the run"}', '[{"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', ['step'], '[{"agent_id":"agent","step_id":"held step","attempt":53,"token":"held token","old":"old token"}]', ['node'], '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]', ['other token'], '[{"step_id":"step","attempt":54,"body":"{\\"c\\":3}"}]'],
    ),
    "claimed": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = $28::uuid, attempt = $29::int, token = $27::text, taken_at = now() WHERE EXISTS (SELECT 1 FROM control.runs WHERE id = $1 AND version = $2) AND NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND (l.agent_id, l.slot) = ( SELECT f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id WHERE f.agent_id
= $26::uuid AND f.step_id IS NULL AND f.slot < a.slots AND a.state = 'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1 FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <> ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM
control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps t WHERE t.id = $28::uuid) >= q.created_at, true)) AND NOT a.draining OR EXISTS (SELECT 1 FROM control.allocations o
WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]))) AND (f.held_for IS NULL OR f.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) ORDER BY f.slot LIMIT 1 FOR UPDATE OF f SKIP LOCKED) RETURNING 1), run AS ( UPDATE control.runs SET version = version + 1, state = $3::text, result = $4::text, reason = $5::text, event_seq = $6::int, attempt_seq =
$7::int, undecided = $8::int, tally = $9::jsonb, cause = $10::text, cancel_by = $11::text, deadline = $12::timestamptz, due_at = $13::timestamptz, started_at = $14::timestamptz, finished_at = $15::timestamptz, phase = $16::text, cleanup = $17::json, live = $18::int, waiting_for = $19::text, pause_by = $20::text, hold_until = $21::timestamptz, outputs = coalesce($22::json, outputs) WHERE id = $1
AND version = $2 AND (SELECT count(*) FROM claim) = 1 RETURNING 1), steps AS ( UPDATE control.steps s SET state = x.state, result = x.result, reason = x.reason, waiting_for = x.waiting_for, attempt = x.attempt, tries = x.tries, token = x.token, agent_id = x.agent_id, host = x.host, sends = x.sends, refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at =
x.ready_at, started_at = x.started_at, finished_at = x.finished_at, outputs = coalesce(x.outputs::json, s.outputs) FROM json_to_recordset($23::json) AS x(id uuid, state text, result text, reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at
timestamptz, finished_at timestamptz, outputs text) WHERE s.id = ANY($25::uuid[]) AND s.id = x.id AND EXISTS (SELECT 1 FROM run) RETURNING 1), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1, x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($24::json) AS x(seq
int, kind text, step_id uuid, step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , nodes AS ( UPDATE control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided = x.undecided, dead = x.dead, due_at = x.due_at, untold = x.untold FROM json_to_recordset($31::json) AS x(name text,
unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE n.run_id = $1 AND n.name = ANY($30::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (run_id, step_id, attempt, idx, agent_id, token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at,
finished_at) SELECT $1::uuid, x.step_id, x.attempt, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code, x.output::json, x.error::json, x.chunks, x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($32::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token text, state text, result text, reason text, exit_code
int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool, started_at timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id, token = excluded.token, state = excluded.state, result = excluded.result, reason = excluded.reason, exit_code = excluded.exit_code, output =
excluded.output, error = excluded.error, chunks = excluded.chunks, lines = excluded.lines, bytes = excluded.bytes, tree_gone = excluded.tree_gone, reported = excluded.reported, started_at = excluded.started_at, finished_at = excluded.finished_at), records AS ( INSERT INTO control.records (run_id, step_id, attempt, body) SELECT $1, x.step_id, x.attempt, x.body::json FROM
json_to_recordset($33::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT DO NOTHING) SELECT (SELECT count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, false AS queue, 1 / (CASE WHEN (SELECT count(*) FROM run) * 1 = (SELECT count(*) FROM claim) AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) *
json_array_length($23::json) THEN 1 ELSE 0 END) AS whole""",
        ['run', 10, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', moment(1), moment(2), moment(3), moment(4), 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', moment(5), '{"of":"the run"}', '[{"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', ['step'], 'agent', 'held token', 'held step', 53, ['node'], '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]', '[{"step_id":"step","attempt":54,"body":"{\\"c\\":3}"}]'],
    ),
    "released": (
        """WITH run AS ( UPDATE control.runs SET version = version + 1, state = $3::text, result = $4::text, reason = $5::text, event_seq = $6::int, attempt_seq = $7::int, undecided = $8::int, tally = $9::jsonb, cause = $10::text, cancel_by = $11::text, deadline = $12::timestamptz, due_at = $13::timestamptz, started_at = $14::timestamptz, finished_at = $15::timestamptz, phase = $16::text, cleanup =
$17::json, live = $18::int, waiting_for = $19::text, pause_by = $20::text, hold_until = $21::timestamptz, outputs = coalesce($22::json, outputs) WHERE id = $1 AND version = $2 RETURNING 1), steps AS ( UPDATE control.steps s SET state = x.state, result = x.result, reason = x.reason, waiting_for = x.waiting_for, attempt = x.attempt, tries = x.tries, token = x.token, agent_id = x.agent_id, host =
x.host, sends = x.sends, refusals = x.refusals, cause = x.cause, deadline = x.deadline, due_at = x.due_at, ready_at = x.ready_at, started_at = x.started_at, finished_at = x.finished_at, outputs = coalesce(x.outputs::json, s.outputs) FROM json_to_recordset($23::json) AS x(id uuid, state text, result text, reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text,
sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz, finished_at timestamptz, outputs text) WHERE s.id = ANY($25::uuid[]) AND s.id = x.id AND EXISTS (SELECT 1 FROM run) RETURNING 1), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1, x.seq, x.kind,
x.step_id, x.step, x.attempt, x.host, x.old, x.new, x.result, x.reason FROM json_to_recordset($24::json) AS x(seq int, kind text, step_id uuid, step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , nodes AS ( UPDATE control.nodes n SET unfinished = x.unfinished, failed = x.failed, undecided =
x.undecided, dead = x.dead, due_at = x.due_at, untold = x.untold FROM json_to_recordset($27::json) AS x(name text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE n.run_id = $1 AND n.name = ANY($26::text[]) AND n.name = x.name AND EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (run_id, step_id, attempt, idx, agent_id, token,
state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT $1::uuid, x.step_id, x.attempt, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result, x.reason, x.exit_code, x.output::json, x.error::json, x.chunks, x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($28::json) AS x(step_id
uuid, attempt int, idx int, agent_id uuid, token text, state text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool, started_at timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT (step_id, attempt) DO UPDATE SET agent_id = excluded.agent_id, token = excluded.token, state =
excluded.state, result = excluded.result, reason = excluded.reason, exit_code = excluded.exit_code, output = excluded.output, error = excluded.error, chunks = excluded.chunks, lines = excluded.lines, bytes = excluded.bytes, tree_gone = excluded.tree_gone, reported = excluded.reported, started_at = excluded.started_at, finished_at = excluded.finished_at), released AS ( UPDATE control.leases SET
step_id = NULL, attempt = NULL, token = NULL, taken_at = NULL WHERE token = ANY($29::text[]) AND EXISTS (SELECT 1 FROM run)), records AS ( INSERT INTO control.records (run_id, step_id, attempt, body) SELECT $1, x.step_id, x.attempt, x.body::json FROM json_to_recordset($30::json) AS x(step_id uuid, attempt int, body text) WHERE EXISTS (SELECT 1 FROM run) ON CONFLICT DO NOTHING) SELECT (SELECT
count(*) FROM run) AS saved, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids, now() AS at, (EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') OR EXISTS (SELECT 1 FROM control.reservations)) AS queue, 1 / (CASE WHEN (SELECT count(*) FROM run) * 1 = (SELECT count(*) FROM run) AND (SELECT count(*) FROM steps) = (SELECT count(*) FROM run) * json_array_length($23::json) THEN 1 ELSE 0 END)
AS whole""",
        ['run', 10, 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', moment(1), moment(2), moment(3), moment(4), 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', moment(5), '{"of":"the run"}', '[{"id":"step","state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}"}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', ['step'], ['node'], '[{"name":"node","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]', ['old token'], '[{"step_id":"step","attempt":54,"body":"{\\"c\\":3}"}]'],
    ),
    "run": (
        """WITH claim AS ( UPDATE control.leases l SET step_id = $44::uuid, attempt = $45::int, token = $43::text, taken_at = now() WHERE NOT EXISTS (SELECT 1 FROM control.steps WHERE state = 'waiting') AND (l.agent_id, l.slot) = ( SELECT f.agent_id, f.slot FROM control.leases f JOIN control.agents a ON a.id = f.agent_id WHERE f.agent_id = $42::uuid AND f.step_id IS NULL AND f.slot < a.slots AND a.state =
'online' AND NOT a.leftovers AND (NOT EXISTS (SELECT 1 FROM control.reservations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state IN ('queued', 'allocating') AND q.cause IS NULL AND q.id <> ALL ((SELECT control.lineage($1::uuid))::uuid[]) AND CASE WHEN q.cause IS NULL THEN NOT EXISTS ( SELECT 1 FROM control.allocations had JOIN control.reservations asked ON
asked.agent_id = had.agent_id WHERE had.run_id = ANY ((SELECT control.lineage($1::uuid))::uuid[]) AND asked.run_id <> ALL ((SELECT control.lineage($1::uuid))::uuid[])) END AND coalesce((SELECT t.ready_at FROM control.steps t WHERE t.id = NULL) >= q.created_at, true)) AND NOT a.draining OR EXISTS (SELECT 1 FROM control.allocations o WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT
control.lineage($1::uuid))::uuid[]))) AND (f.held_for IS NULL OR f.held_for = ANY ((SELECT control.lineage($1::uuid))::uuid[])) ORDER BY f.slot LIMIT 1 FOR UPDATE OF f SKIP LOCKED) RETURNING 1),parent AS (SELECT 1 FROM control.steps WHERE id = $46::uuid AND state = 'running' FOR SHARE), run AS ( INSERT INTO control.runs (id, version, group_name, timeout_s, wants, parent, parent_step, state,
result, reason, event_seq, attempt_seq, undecided, tally, cause, cancel_by, deadline, due_at, started_at, finished_at, phase, cleanup, live, waiting_for, pause_by, hold_until, name, kind, plan, parameters, created_by, created_at, plan_version, document, sealed, concurrency_key, depth, rerun_of) SELECT $1::uuid, $2::int, $3::text, $4::double precision, $5::json, $6::uuid, $7::uuid, $8::text,
$9::text, $10::text, $11::int, $12::int, $13::int, $14::jsonb, $15::text, $16::text, $17::timestamptz, $18::timestamptz, $19::timestamptz, $20::timestamptz, $21::text, $22::json, $23::int, $24::text, $25::text, $26::timestamptz, $27::text, $28::text, $29::text, $30::json, $31::text, $32::timestamptz, $33::int, $34::text, $35::text, $36::text, $37::int, $38::uuid WHERE EXISTS (SELECT 1 FROM claim)
AND EXISTS (SELECT 1 FROM parent) RETURNING number, created_at), steps AS ( INSERT INTO control.steps (run_id, id, node, name, instance, phase, kind, timeout_s, grace_s, retry, idempotent, matrix, role, role_index, reuse, state, result, reason, waiting_for, attempt, tries, token, agent_id, host, sends, refusals, cause, deadline, due_at, ready_at, started_at, finished_at, outputs, idx, plugin,
method, parameters, sealed, env, target, place_host, place_group, place_labels) SELECT $1::uuid, x.id, x.node, x.name, x.instance, x.phase, x.kind, x.timeout_s, x.grace_s, x.retry, x.idempotent, x.matrix::json, x.role, x.role_index, x.reuse, x.state, x.result, x.reason, x.waiting_for, x.attempt, x.tries, x.token, x.agent_id, x.host, x.sends, x.refusals, x.cause, x.deadline, x.due_at, x.ready_at,
x.started_at, x.finished_at, x.outputs::json, x.idx, x.plugin, x.method, x.parameters::json, x.sealed, x.env::json, x.target, x.place_host, x.place_group, x.place_labels FROM json_to_recordset($39::json) AS x(id uuid, node text, name text, instance text, phase text, kind text, timeout_s double precision, grace_s double precision, retry jsonb, idempotent bool, matrix text, role text, role_index
int, reuse uuid, state text, result text, reason text, waiting_for text, attempt int, tries int, token text, agent_id uuid, host text, sends int, refusals int, cause text, deadline timestamptz, due_at timestamptz, ready_at timestamptz, started_at timestamptz, finished_at timestamptz, outputs text, idx int, plugin text, method text, parameters text, sealed text, env text, target text, place_host
text, place_group text, place_labels jsonb) WHERE EXISTS (SELECT 1 FROM run)), nodes AS ( INSERT INTO control.nodes (run_id, name, phase, max_parallel, fail_fast, rules, unfinished, failed, undecided, dead, due_at, untold) SELECT $1::uuid, x.name, x.phase, x.max_parallel, x.fail_fast, x.rules::json, x.unfinished, x.failed, x.undecided, x.dead, x.due_at, x.untold FROM json_to_recordset($40::json)
AS x(name text, phase text, max_parallel int, fail_fast bool, rules text, unfinished int, failed int, undecided int, dead bool, due_at timestamptz, untold int) WHERE EXISTS (SELECT 1 FROM run)), ev AS (INSERT INTO control.run_events (run_id, seq, kind, step_id, step, attempt, host, old, new, result, reason) SELECT $1::uuid, x.seq, x.kind, x.step_id, x.step, x.attempt, x.host, x.old, x.new,
x.result, x.reason FROM json_to_recordset($41::json) AS x(seq int, kind text, step_id uuid, step text, attempt int, host text, old text, new text, result text, reason text) WHERE EXISTS (SELECT 1 FROM run) ORDER BY x.seq RETURNING id, seq) , edges AS ( INSERT INTO control.edges (run_id, source, target, condition) SELECT $1::uuid, x.source, x.target, x.condition FROM json_to_recordset($47::json) AS
x(source text, target text, condition text) WHERE EXISTS (SELECT 1 FROM run)), attempts AS (INSERT INTO control.attempts AS a (run_id, step_id, attempt, idx, agent_id, token, state, result, reason, exit_code, output, error, chunks, lines, bytes, tree_gone, reported, started_at, finished_at) SELECT $1::uuid, x.step_id, x.attempt, coalesce(x.idx, -1), x.agent_id, x.token, x.state, x.result,
x.reason, x.exit_code, x.output::json, x.error::json, x.chunks, x.lines, x.bytes, x.tree_gone, x.reported, x.started_at, x.finished_at FROM json_to_recordset($48::json) AS x(step_id uuid, attempt int, idx int, agent_id uuid, token text, state text, result text, reason text, exit_code int, output text, error text, chunks int, lines bigint, bytes bigint, tree_gone bool, reported bool, started_at
timestamptz, finished_at timestamptz) WHERE EXISTS (SELECT 1 FROM run)) SELECT (SELECT number FROM run) AS number, now() AS at, (SELECT array_agg(id ORDER BY seq) FROM ev) AS ids""",
        ['run', 11, 'group', 18.5, '{"concurrency":{"key":"key","max":1,"when_full":"queue"}}', 'parent', 'parent step', 'finished', 'passed', 'why the run', 12, 13, 14, '{"passed":15}', 'cancelled', 'who cancelled', moment(1), moment(2), moment(3), moment(4), 'always', '{"rollback":16}', 17, 'what the run waits for', 'who paused', moment(5), 'name of the run', 'kind of the run', 'plan', '{"parameter":1}', 'who made it', moment(14), 61, 'document', 'sealed of the run', 'key', 62, 'rerun of', '[{"id":"step","node":"node","name":"name","instance":"instance","phase":"main","kind":"gate","timeout_s":25.5,"grace_s":26.5,"retry":{"attempts":27,"delay_s":0.0,"backoff":1.0,"max_delay_s":3600.0,"on":["error","failed","timed_out"]},"idempotent":true,"matrix":"{\\"cell\\":28}","role":"role","role_index":29,"reuse":null,"state":"finished","result":"failed","reason":"why the step","waiting_for":"what the step waits for","attempt":21,"tries":22,"token":"token","agent_id":"agent","host":"host","sends":23,"refusals":24,"cause":"timed_out","deadline":"2026-01-07T00:00:00Z","due_at":"2026-01-08T00:00:00Z","ready_at":"2026-01-09T00:00:00Z","started_at":"2026-01-10T00:00:00Z","finished_at":"2026-01-11T00:00:00Z","outputs":"{\\"of\\":\\"the step\\"}","idx":0,"plugin":"plugin","method":"method","parameters":"{\\"shown\\":1}","sealed":"sealed of the step","env":"{\\"ENV\\":\\"value\\"}","target":"target","place_host":"place host","place_group":"place group","place_labels":{"label":"value"}}]', '[{"name":"node","phase":"main","max_parallel":35,"fail_fast":true,"rules":"{\\"condition\\":\\"true\\"}","unfinished":31,"failed":32,"undecided":33,"dead":true,"due_at":"2026-01-12T00:00:00Z","untold":34}]', '[{"seq":51,"kind":"kind","step_id":"step","step":"step name","attempt":52,"host":"host","old":"old","new":"new","result":"result","reason":"why the event"}]', 'agent', 'held token', 'held step', 53, 'parent step', '[{"source":"source","target":"target","condition":"succeeded"}]', '[{"step_id":"step","attempt":45,"idx":46,"agent_id":"agent","token":"token","state":"running","result":"passed","reason":"why","exit_code":41,"output":"{\\"a\\":1}","error":"{\\"b\\":2}","chunks":42,"lines":43,"bytes":44,"tree_gone":true,"reported":true,"started_at":"2026-01-13T00:00:00Z","finished_at":"2026-01-14T00:00:00Z"}]'],
    ),
    "types": (
        """INSERT INTO control.pools AS p (type, size_gb, target, file_target) SELECT type, size, target, target FROM unnest($1::text[], $2::integer[], $3::integer[]) AS f (type, size, target) ON CONFLICT (type) DO UPDATE SET listed = true, size_gb = excluded.size_gb, target = CASE WHEN p.file_target = excluded.file_target THEN p.target ELSE excluded.target END, file_target = excluded.file_target, version =
p.version + 1, updated_at = now() WHERE NOT p.listed OR p.size_gb <> excluded.size_gb OR p.file_target <> excluded.file_target""",
        [['t'], [87], [86]],
    ),
    "added tick": (
        """INSERT INTO control.schedule_ticks (schedule_id, at, outcome, run_id, reason) VALUES (:schedule, :at, :outcome, :run, :reason) ON CONFLICT DO NOTHING""",
        {'schedule': 'schedule', 'at': moment(18), 'outcome': 'started', 'run': 'run', 'reason': 'why the tick'},
    ),
    "_OF_STEP": (
        """SELECT r.id AS run_id, r.version, r.group_name, r.timeout_s AS run_timeout_s, r.wants, r.parent, r.parent_step, r.state AS run_state, r.result AS run_result, r.reason AS run_reason, r.event_seq, r.attempt_seq, r.undecided, r.tally, r.cause AS run_cause, r.cancel_by, r.deadline AS run_deadline, r.due_at AS run_due_at, r.started_at AS run_started_at, r.finished_at AS run_finished_at, r.phase AS
run_phase, r.cleanup, r.live, r.waiting_for AS run_waiting_for, r.pause_by, r.hold_until, clock_timestamp() AS now, s.id, s.run_id AS run, s.node, s.name, s.instance, s.phase, s.kind, s.timeout_s, s.grace_s, s.retry, s.idempotent, s.matrix, s.role, s.role_index, s.reuse, s.state, s.result, s.reason, s.waiting_for, s.attempt, s.tries, s.token, s.agent_id, s.host, s.sends, s.refusals, s.cause,
s.deadline, s.due_at, s.ready_at, s.started_at, s.finished_at, s.outputs, n.phase AS node_phase, n.max_parallel, n.fail_fast, n.rules, n.unfinished, n.failed, n.undecided AS node_undecided, n.dead, n.due_at AS node_due_at, n.untold, (SELECT json_agg(json_build_array(e.source, e.condition, t.name, t.unfinished, t.failed, t.undecided, t.dead, t.due_at, t.untold)) FROM control.edges e JOIN
control.nodes t ON t.run_id = e.run_id AND t.name = e.target WHERE e.run_id = s.run_id AND e.source = s.node) AS edges FROM control.steps s JOIN control.runs r ON r.id = s.run_id JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = ANY($1::uuid[]) AND r.id = $2""",
        [],
    ),
    "_EDGES": (
        """SELECT e.source, e.condition, t.name, t.unfinished, t.failed, t.undecided, t.dead, t.due_at, t.untold FROM control.edges e JOIN control.nodes t ON t.run_id = e.run_id AND t.name = e.target WHERE e.run_id = $1 AND e.source = ANY($2)""",
        [],
    ),
    "hosts of circles": (
        """SELECT a.id, a.host, a.labels, a.instance IS NOT NULL AS registered, ARRAY(SELECT jsonb_object_keys(a.plugins)) AS plugins, ARRAY(SELECT u FROM unnest($1::text[]) u WHERE a.plugins -> split_part(u, '.', 1) -> 'methods' ? split_part(u, '.', 2)) AS methods, ARRAY(SELECT jsonb_object_keys(a.targets)) AS targets, (SELECT array_agg(g.group_name) FROM control.group_agents g WHERE g.agent_id = a.id) AS
groups, (SELECT json_agg(json_build_array(q.id, o.exclusive, json_build_array(q.number, q.name, q.group_name, CASE WHEN q.state = 'finished' THEN q.hold_until END))) FROM control.allocations o JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state <> 'finished') AS holders FROM control.agents a WHERE a.revoked_at IS NULL""",
        [],
    ),
}
# fmt: on


def bound(text: str, args: Any) -> str:
    """The statement with values in place of placeholders; JSON with its keys in order."""

    def value(match: re.Match[str]) -> str:
        if not args:
            return match[0]
        return f"<{plain(args[match[1]] if isinstance(args, dict) else args[int(match[1]) - 1])}>"

    return re.sub(r"(?<![:\w])[$:](\w+)", value, " ".join(text.split()))


def values(args: Any) -> Any:
    return args.values() if isinstance(args, dict) else args


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


INSERT = r"INSERT INTO \S+( AS \w)? \(([^)]*)\) (?:SELECT |VALUES \()"


def folded(text: str) -> str:
    """The statement with each of its lists in one order; an INSERT as pairs of column and value."""
    text = re.sub(r" AS x\(([^)]*)\)", lambda match: f" AS x[{'; '.join(sorted(items(match[1])))}]", text)
    done = ""
    while match := re.search(INSERT + r"|\b(DO UPDATE )?SET |\bSELECT (DISTINCT ON \(.*?\) )?|\bRETURNING ", text):
        done, rest = done + text[: match.start()], text[match.end() :]
        end = body(rest, "FROM|WHERE|ON CONFLICT|RETURNING")
        listed = items(rest[:end])
        if match[2]:
            pairs = zip(items(match[2]), listed, strict=True)
            listed = [f"{column} <- {value}" for column, value in pairs]
        listed = [re.sub(r"^(\w+ (=|<-) <[^>]*>)::[\w ]+$", r"\1", each) for each in listed]
        done += match[0].split("(")[0] + "; ".join(sorted(folded(each) for each in listed))
        text = rest[end:]
    return done + text


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_is_made_of_columns_is_what_was_written_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "new_id", lambda: "fresh")
    text, args = asyncio.run(statements())[name]
    old, old_args = WRITTEN[name]
    assert folded(bound(text, args)) == folded(bound(old, old_args))
    assert sorted(map(plain, values(args))) == sorted(map(plain, values(old_args)))


def test_the_comparison_sees_what_differs() -> None:
    text = "UPDATE t SET a = <1>, b = <2> FROM x WHERE c"
    assert folded(text) == folded("UPDATE t SET b = <2>::double precision, a = <1> FROM x WHERE c")
    assert folded(text) != folded("UPDATE t SET b = <1>, a = <2> FROM x WHERE c")
    assert folded("INSERT INTO t (a, b) SELECT 1, 2") != folded("INSERT INTO t (b, a) SELECT 1, 2")
