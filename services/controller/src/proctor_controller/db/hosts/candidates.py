"""SQL that finds agents for a step, and steps for an agent."""

# ruff: noqa: S608 - statements are put together from constants of this module

from datetime import datetime
from typing import NamedTuple

from proctor_common.messages.events import MethodSpec
from proctor_common.states import AgentState
from proctor_controller.db.hosts.holders import FREED, RESERVING, holder_json, to_holder
from proctor_controller.db.session import Row, Session, to_json
from proctor_controller.domain.hosts.holders import has_alone, name_run
from proctor_controller.domain.hosts.placement import Candidate, Placement

_FITS = """(CASE WHEN {host}::text IS NOT NULL THEN a.host = {host}
  WHEN {group}::text IS NOT NULL THEN EXISTS (SELECT 1 FROM control.group_agents g
       WHERE g.agent_id = a.id AND g.group_name = {group})
  ELSE a.labels @> {labels}::jsonb END)
 AND ({bound}::text IS NULL OR EXISTS (SELECT 1 FROM control.group_agents g
      WHERE g.agent_id = a.id AND g.group_name = {bound}))"""
# A step with a role goes to the host that its run holds for it; a rollback to the host of the step that it undoes.
HOST = """(CASE WHEN w.role IS NOT NULL THEN (SELECT m.host FROM control.allocations m
  WHERE m.run_id = w.run_id AND m.role = w.role AND m.idx = coalesce(w.role_index, 0))
 WHEN w.phase = 'rollback' THEN (SELECT m.host FROM control.steps m
  WHERE m.run_id = w.run_id AND m.node = substr(w.node, 10) AND m.instance = w.instance) ELSE w.place_host END)"""
_GOING = "(v.state = 'running' OR w.phase <> 'main' AND v.state IN ('rolling_back', 'finalizing'))"
_ABLE = "a.plugins -> {plugin} -> 'methods' ? {method}"
_WAITER_COLUMNS = f"""w.run_id, w.id, {HOST} AS place_host, w.place_group, w.place_labels, w.plugin, w.method,
 w.target, v.group_name, w.ready_at"""
# All waiting steps with the places where they may run, evaluated once for many agents.
_WAITS = f"""waits AS MATERIALIZED (
  SELECT {_WAITER_COLUMNS}, w.host
  FROM control.steps w JOIN control.runs v ON v.id = w.run_id WHERE w.state = 'waiting' AND {_GOING})"""
_PLACE = _FITS.format(host="w.place_host", group="w.place_group", labels="w.place_labels", bound="w.group_name")
# In CASE, so that the agents' methods, a big value to unpack, are read only for agents in the right place.
_WAITER = f"""CASE WHEN {_PLACE} AND (w.target IS NULL OR a.targets ? w.target)
 THEN {_ABLE.format(plugin="w.plugin", method="w.method")} END"""

_OWN = """EXISTS (SELECT 1 FROM control.allocations o
  WHERE o.agent_id = a.id AND o.run_id = ANY ((SELECT control.lineage({run}))::uuid[]))"""
_ALONE = """FROM control.allocations o JOIN control.runs q ON q.id = o.run_id
  WHERE o.agent_id = a.id AND o.exclusive AND o.run_id <> ALL ((SELECT control.lineage({run}))::uuid[])"""
_KEPT = f"(EXISTS (SELECT 1 {_ALONE}) OR EXISTS (SELECT 1 {RESERVING}))"
# A run that holds a host continues there when it is drained.
_DRAINED = f"(a.draining AND NOT {_OWN})"
_CANDIDATE = f"""a.id, a.host, a.state, a.instance IS NOT NULL AS registered,
 {_DRAINED.format(run="$9::uuid")} AS draining, a.leftovers, a.slots,
 a.plugins ? $5 AS has_plugin, coalesce({_ABLE.format(plugin="$5", method="$6")}, false) AS has_method, l.free, l.made,
 EXISTS (SELECT 1 FROM waits w WHERE {_WAITER}) AS queued,
 (SELECT {holder_json("q")} {_ALONE.format(run="$9::uuid")} LIMIT 1) AS alone_by,
 (SELECT {holder_json("q")} {RESERVING.format(run="$9::uuid", ready="$10::timestamptz")} LIMIT 1) AS kept_for"""
_SLOTS = """LEFT JOIN LATERAL (SELECT count(*) AS made,
  count(*) FILTER (WHERE x.step_id IS NULL AND x.slot < a.slots) AS free
  FROM control.leases x WHERE x.agent_id = a.id) l ON true"""
_FOR_PLACE = f"""WITH {_WAITS} SELECT {_CANDIDATE},
 $8::text IS NULL OR a.targets ? $8 AS has_target,
 CASE WHEN $7::bool THEN a.plugins -> $5 -> 'methods' -> $6 END AS spec,
 (SELECT array_agg(g.group_name ORDER BY g.group_name) FROM control.group_agents g WHERE g.agent_id = a.id) AS groups,
 clock_timestamp() AS now
FROM control.agents a {_SLOTS}
WHERE a.revoked_at IS NULL AND {_FITS.format(host="$1", group="$2", labels="$3", bound="$4")}
ORDER BY a.host LIMIT 1000"""


class FoundCandidate(NamedTuple):
    """A candidate for a step."""

    candidate: Candidate
    groups: list[str]
    """The agent's groups."""
    spec: MethodSpec | None
    """Its description of the method, only if that was asked for."""
    slots_made: int
    has_target: bool
    """Whether it has the requested target, if any."""
    now: datetime
    """The database's time."""


async def find_candidates(
    session: Session,
    place: Placement,
    plugin: str,
    method: str,
    *,
    group: str | None,
    target: str | None = None,
    with_spec: bool = False,
    run: str | None = None,
    ready_at: datetime | None = None,
) -> list[FoundCandidate]:
    """The agents in the right place, whether or not they take work; for a run with a group only that group's. ``run``:
    the asking run, if it exists already; ``ready_at``: since when its step waits.
    """
    labels = None if place.labels is None else dict(place.labels)
    wanted = None if labels is None else to_json(labels)
    rows = await session.fetch(
        _FOR_PLACE, place.host, place.group, wanted, group, plugin, method, with_spec, target, run, ready_at
    )
    return [_found(row, group) for row in rows]


async def find_candidates_of(session: Session, waiter: "Waiter") -> list[FoundCandidate]:
    """The agents in the place of a step that waits or has just become ready."""
    return await find_candidates(
        session,
        waiter.place,
        waiter.plugin,
        waiter.method,
        group=waiter.group,
        target=waiter.target,
        run=waiter.run,
        ready_at=waiter.ready_at,
    )


def _found(row: Row, group: str | None) -> FoundCandidate:
    slots: int = row["slots"]
    # Slots without a row are free too: rows are made when first needed.
    free = row["free"] + max(slots - row["made"], 0)
    candidate = Candidate(
        agent=str(row["id"]),
        host=row["host"],
        state=AgentState(row["state"]),
        registered=row["registered"],
        draining=row["draining"],
        leftovers=row["leftovers"],
        has_plugin=row["has_plugin"],
        has_method=row["has_method"],
        slots=slots,
        free=free,
        queued=row["queued"],
        kept=_kept(row, group),
        has_target=row["has_target"],
    )
    spec = MethodSpec.model_validate(row["spec"]) if row["spec"] else None
    return FoundCandidate(candidate, list(row["groups"] or []), spec, row["made"], row["has_target"], row["now"])


def _kept(row: Row, group: str | None) -> str:
    if row["alone_by"] is not None:
        return has_alone(to_holder(row["alone_by"]), group)
    if row["kept_for"] is not None:
        return f"it is kept free for {name_run(to_holder(row['kept_for']), group)}, which waits for it"
    return ""


async def read_clock(session: Session) -> datetime:
    """The database's time."""
    now: datetime = await session.fetchval("SELECT clock_timestamp()")
    return now


async def group_exists(session: Session, group: str) -> bool:
    """Whether there is a group of this name."""
    return bool(await session.fetchval("SELECT EXISTS (SELECT 1 FROM control.groups WHERE name = $1)", group))


async def known_methods(session: Session, group: str | None) -> list[str]:
    """Every ``plugin.method`` of the group's agents (None: of all), to suggest similar names."""
    rows = await session.fetch(
        """SELECT DISTINCT p.key || '.' || m AS name FROM control.agents a, jsonb_each(a.plugins) p,
             jsonb_object_keys(p.value -> 'methods') m
           WHERE a.revoked_at IS NULL AND ($1::text IS NULL OR EXISTS (SELECT 1 FROM control.group_agents g
             WHERE g.agent_id = a.id AND g.group_name = $1)) LIMIT 5000""",
        group,
    )
    return [row["name"] for row in rows]


async def make_slots(session: Session, agent: str) -> None:
    """Make the missing rows of the agent's slots."""
    await session.execute(
        """INSERT INTO control.leases (agent_id, slot, held_for)
           SELECT a.id, x.slot, (SELECT o.run_id FROM control.allocations o
             WHERE o.agent_id = a.id AND o.exclusive ORDER BY o.taken_at LIMIT 1)
           FROM control.agents a, generate_series(0, a.slots - 1) AS x(slot) WHERE a.id = $1
           ON CONFLICT DO NOTHING""",
        agent,
    )


class Waiter(NamedTuple):
    """A step that waits for a slot, or has just become ready for one. ``waiting_for``: its last such message."""

    run: str
    step: str
    place: Placement
    plugin: str
    method: str
    group: str | None
    target: str | None = None
    ready_at: datetime | None = None
    waiting_for: str | None = None


def place_in(row: Row) -> Placement:
    """The place in a step's columns."""
    labels = row["place_labels"]
    return Placement(
        host=row["place_host"],
        group=row["place_group"],
        labels=None if labels is None else tuple(sorted(labels.items())),
    )


def _waiter(row: Row) -> Waiter:
    return Waiter(
        run=str(row["run_id"]),
        step=str(row["id"]),
        place=place_in(row),
        plugin=row["plugin"],
        method=row["method"],
        group=row["group_name"],
        target=row["target"],
        ready_at=row["ready_at"],
        waiting_for=row["waiting_for"],
    )


async def load_waiter(session: Session, step: str) -> Waiter | None:
    """Where a step that is ready for a slot may run; None for any other step."""
    row = await session.fetchrow(
        f"""SELECT {_WAITER_COLUMNS}, w.waiting_for FROM control.steps w JOIN control.runs v ON v.id = w.run_id
            WHERE w.id = $1 AND w.state = 'ready' AND w.kind = 'method'""",
        step,
    )
    return _waiter(row) if row else None


class Turn(NamedTuple):
    """The next step, and the agent that has a slot for it."""

    run: str
    step: str
    agent: str
    host: str
    slots_made: bool


async def next_turns(session: Session, agent: str | None, limit: int) -> list[Turn]:
    """For each agent (or this one) that takes work and has a free slot, the step that has waited longest."""
    rows = await session.fetch(
        f"""WITH {_WAITS} SELECT a.id AS agent, a.host, n.run_id, n.id AS step, l.made >= a.slots AS slots_made
        FROM control.agents a {_SLOTS}
        CROSS JOIN LATERAL (
          SELECT f.* FROM (SELECT w.run_id, w.id, w.host, w.ready_at FROM waits w WHERE {_WAITER}
            ORDER BY w.ready_at, w.id OFFSET 0) f
          WHERE NOT {_KEPT.format(run="f.run_id", ready="f.ready_at")} AND NOT {_DRAINED.format(run="f.run_id")}
          LIMIT 1) n
        WHERE a.state = 'online' AND NOT a.leftovers AND a.instance IS NOT NULL
          AND ($1::uuid IS NULL OR a.id = $1) AND l.free + greatest(a.slots - l.made, 0) > 0
        -- A step that an agent would not take, or that did not reach it, tries another one first.
        ORDER BY n.host IS NOT DISTINCT FROM a.host, l.free DESC LIMIT $2""",
        agent,
        limit,
    )
    return [Turn(str(r["run_id"]), str(r["step"]), str(r["agent"]), r["host"], r["slots_made"]) for r in rows]


async def load_waiting(session: Session, limit: int, after: Waiter | None = None) -> list[Waiter]:
    """Steps that wait for a slot, in the order of the queue, after ``after``, to update what they wait for."""
    rows = await session.fetch(
        f"""SELECT {_WAITER_COLUMNS}, w.waiting_for FROM control.steps w JOIN control.runs v ON v.id = w.run_id
            WHERE w.state = 'waiting' AND {_GOING} AND ($2::uuid IS NULL OR (w.ready_at, w.id) > ($3, $2))
            ORDER BY w.ready_at, w.id LIMIT $1""",
        limit,
        None if after is None else after.step,
        None if after is None else after.ready_at,
    )
    return [_waiter(row) for row in rows]


async def is_gone(session: Session, host: str, seconds: float) -> bool:
    """Whether a host's agent was removed that many seconds ago, and none has joined since."""
    row = await session.fetchrow(
        """SELECT max(revoked_at) <= now() - make_interval(secs => $2) AND bool_and(revoked_at IS NOT NULL) AS gone
           FROM control.agents WHERE host = $1""",
        host,
        seconds,
    )
    return bool(row["gone"])


async def free_orphans(session: Session) -> int:
    """Free slots whose attempt has ended; returns their number. They are due to a defect, never to a crash."""
    done = await session.execute(
        f"""UPDATE control.leases l SET {FREED}
           WHERE l.step_id IS NOT NULL AND l.taken_at < now() - interval '1 minute' AND NOT EXISTS (
             SELECT 1 FROM control.steps s WHERE s.id = l.step_id AND s.token = l.token AND s.state <> 'finished')"""
    )
    return int(done.rpartition(" ")[2])
