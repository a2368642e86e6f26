"""SQL of what runs hold: hosts by role, reserved hosts, concurrency slots."""

# ruff: noqa: S608 - statements are put together from constants of this package

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from proctor_common.states import AgentState, RunState
from proctor_controller.db.column import Column, Columns, When
from proctor_controller.db.hosts.candidates import make_slots
from proctor_controller.db.hosts.holders import RESERVING_RUN, SHOWN, holder_json, to_holder
from proctor_controller.db.session import Row, Session
from proctor_controller.domain.hosts.holders import Holder, has_alone, hold_it, name_run, name_runs
from proctor_controller.domain.hosts.leasing import LeasableHost
from proctor_controller.domain.hosts.placement import Candidate
from proctor_controller.domain.hosts.requirements import Requirements, requirements_of

_LOCK = 71_005
ALLOCATIONS = Columns(
    (
        Column("run_id", "uuid", When.INSERT),
        Column("role", "text", When.INSERT),
        Column("idx", "integer", When.INSERT),
        Column("agent_id", "uuid", When.INSERT),
        Column("host", "text", When.INSERT),
        Column("exclusive", "boolean", When.INSERT),
    )
)
"""Of a host that a run holds; ``idx``: which one of its role."""
MOST = 1000
"""One look reads at most so many runs that wait to begin."""


class WaitingRun(NamedTuple):
    """A run that has not begun."""

    run: str
    number: int
    state: RunState
    group: str | None
    wants: Requirements
    holds: bool
    """It has its hosts already."""
    resting: Holder | None = None
    """A run that it is nested in and that is paused."""


async def lock_leases(session: Session) -> None:
    """One allocation at a time, until the transaction ends."""
    await session.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


def _several(source: str, run: str) -> str:
    """Some of the runs in ``source`` that concern agent ``a``, except relatives, each with the count of all."""
    return f"""(SELECT json_agg(json_build_array(h.holder, h.count)) FROM (
  SELECT {holder_json("q")} AS holder, count(*) OVER () AS count FROM {source}
  WHERE x.agent_id = a.id AND {run} <> ALL (o.own)
  GROUP BY q.number, q.name, q.group_name, q.state, q.hold_until ORDER BY q.number LIMIT {SHOWN}) h)"""


_WAITING = f"""SELECT r.id, r.number, r.state, r.group_name, r.wants,
 EXISTS (SELECT 1 FROM control.allocations a WHERE a.run_id = r.id) AS holds,
 CASE WHEN r.parent IS NOT NULL THEN (SELECT {holder_json("p")} FROM control.runs p
  WHERE p.id = ANY (control.lineage(r.parent)) AND p.state IN ('pausing', 'paused') LIMIT 1) END AS resting
FROM control.runs r WHERE r.state IN ('queued', 'allocating') AND r.cause IS NULL"""


async def load_waiting_run(session: Session, run: str) -> WaitingRun | None:
    """The run, if it still waits to begin."""
    row = await session.fetchrow(f"{_WAITING} AND r.id = $1", run)
    return None if row is None else _waiting(row)


async def find_older_runs(session: Session, waiting: WaitingRun) -> list[WaitingRun]:
    """Older runs that wait for hosts only, oldest first, without those that the run is nested in."""
    rows = await session.fetch(
        f"""{_WAITING} AND r.number < $2 AND r.id <> ALL (control.lineage($1)) AND r.wants::jsonb ? 'roles'
              AND NOT r.wants::jsonb ? 'volumes' AND (r.state = 'allocating' OR r.concurrency_key IS NULL)
            ORDER BY r.number LIMIT $3""",
        waiting.run,
        waiting.number,
        MOST,
    )
    return [_waiting(row) for row in rows]


async def find_waiting_runs(session: Session, *, for_volumes: bool = False) -> list[WaitingRun]:
    """Runs that wait to begin, oldest first; ``for_volumes``: only those that want volumes."""
    where = " AND r.wants::jsonb ? 'volumes'" if for_volumes else ""
    rows = await session.fetch(f"{_WAITING}{where} ORDER BY r.number LIMIT $1", MOST)
    return [_waiting(row) for row in rows]


def _waiting(row: Row) -> WaitingRun:
    return WaitingRun(
        run=str(row["id"]),
        number=row["number"],
        state=RunState(row["state"]),
        group=row["group_name"],
        wants=requirements_of(row["wants"]),
        holds=row["holds"],
        resting=None if row["resting"] is None else to_holder(row["resting"]),
    )


class Peers(NamedTuple):
    """Runs of the same concurrency group."""

    under_way: int
    """How many are under way; ``some``: some of these."""
    some: list[Holder]
    oldest: str | None
    """The oldest one that may be cancelled."""
    before: int
    """How many older ones wait."""


async def load_peers(session: Session, waiting: WaitingRun, key: str) -> Peers:
    """The other runs with this key in its group, except those that it is nested in, as they wait for it."""
    row = await session.fetchrow(
        f"""SELECT count(*) FILTER (WHERE state <> 'queued') AS under_way,
             (array_agg({holder_json("r")} ORDER BY number) FILTER (WHERE state <> 'queued'))[:{SHOWN}] AS some,
             (array_agg(id ORDER BY number) FILTER (WHERE state NOT IN ('queued', 'cancelling')))[1] AS oldest,
             count(*) FILTER (WHERE state = 'queued' AND cause IS NULL AND number < $3) AS before
           FROM control.runs r WHERE concurrency_key = $1 AND id <> ALL (control.lineage($2)) AND state <> 'finished'
             AND group_name IS NOT DISTINCT FROM $4""",
        key,
        waiting.run,
        waiting.number,
        waiting.group,
    )
    some = [to_holder(each) for each in row["some"] or ()]
    return Peers(row["under_way"], some, str(row["oldest"]) if row["oldest"] else None, row["before"])


_NAMED = """a.id, a.host, a.labels,
 (SELECT array_agg(g.group_name) FROM control.group_agents g WHERE g.agent_id = a.id) AS groups"""
OWNED = f"""{_NAMED}, a.instance IS NOT NULL AS registered, ARRAY(SELECT jsonb_object_keys(a.plugins)) AS plugins,
 ARRAY(SELECT u FROM unnest({{uses}}::text[]) u
  WHERE a.plugins -> split_part(u, '.', 1) -> 'methods' ? split_part(u, '.', 2)) AS methods,
 ARRAY(SELECT jsonb_object_keys(a.targets)) AS targets"""
"""Agent ``a`` and what it has; of its methods only those in ``uses``."""
_HOSTS = f"""SELECT {OWNED.format(uses="$4")}, a.state, a.draining, a.leftovers,
 ARRAY(SELECT unnest(a.remains) EXCEPT SELECT unnest(a.released)) AS remains,
 (SELECT {holder_json("q")} FROM control.allocations x JOIN control.runs q ON q.id = x.run_id
  WHERE x.agent_id = a.id AND x.exclusive AND x.run_id <> ALL (o.own) LIMIT 1) AS alone,
 {_several("control.allocations x JOIN control.runs q ON q.id = x.run_id", "x.run_id")} AS shared,
 {_several("control.leases x JOIN control.steps s ON s.id = x.step_id JOIN control.runs q ON q.id = s.run_id", "q.id")}
  AS used,
 (SELECT {holder_json("q")} {RESERVING_RUN.format(run="$1::uuid", number="$2")} LIMIT 1) AS kept
FROM control.agents a CROSS JOIN (SELECT control.lineage($1) AS own) o
WHERE a.revoked_at IS NULL AND ($3::text IS NULL OR EXISTS (
 SELECT 1 FROM control.group_agents g WHERE g.agent_id = a.id AND g.group_name = $3))
ORDER BY a.host"""


async def load_hosts(session: Session, waiting: WaitingRun) -> list[LeasableHost]:
    """The agents that the run may use, and their holders; runs that it is nested in do not count as holders."""
    uses = sorted({use for role in waiting.wants.roles for use in role.uses})
    rows = await session.fetch(_HOSTS, waiting.run, waiting.number, waiting.group, uses)
    return [_host(row, waiting.group) for row in rows]


async def find_hosts(session: Session, agents: Sequence[str]) -> list[LeasableHost]:
    """These agents with labels and groups, without methods and holders."""
    rows = await session.fetch(
        f"SELECT {_NAMED} FROM control.agents a WHERE a.id = ANY($1::uuid[]) AND a.revoked_at IS NULL",
        list(agents),
    )
    return [_named(row) for row in rows]


def _named(row: Row, **known: Any) -> LeasableHost:
    return LeasableHost(
        agent=str(row["id"]),
        host=row["host"],
        groups=frozenset(row["groups"] or ()),
        labels=row["labels"] or {},
        **known,
    )


def owner_in(row: Row, **known: Any) -> LeasableHost:
    """The agent in a row with OWNED; ``known``: its other attributes."""
    return _named(
        row,
        plugins=frozenset(row["plugins"]),
        methods=frozenset(row["methods"]),
        targets=frozenset(row["targets"]),
        registered=row["registered"],
        **known,
    )


def _host(row: Row, group: str | None) -> LeasableHost:
    candidate = Candidate(
        agent="",
        host=row["host"],
        state=AgentState(row["state"]),
        registered=row["registered"],
        draining=row["draining"],
        leftovers=row["leftovers"],
        has_plugin=True,
        has_method=True,
        slots=1,
        free=1,
    )
    used = _names(row["used"], group)
    return owner_in(
        row,
        hindrance=candidate.hindrance(),
        away=candidate.is_away or not row["registered"],
        alone="" if row["alone"] is None else has_alone(to_holder(row["alone"]), group),
        shared="" if not row["shared"] else hold_it(*_holders(row["shared"]), group=group),
        used=f"steps of {used} are under way on it" if used else _remaining(row["host"], row["remains"]),
        kept=""
        if row["kept"] is None
        else f"it is kept free for {name_run(to_holder(row['kept']), group)}, which is older",
    )


def _holders(values: Sequence[list[Any]]) -> tuple[list[Holder], int]:
    """Some holders, and how many there are."""
    return [to_holder(value) for value, _ in values], values[0][1]


def _remaining(host: str, remains: Sequence[str]) -> str:
    if not remains:
        return ""
    return f"{'; '.join(remains)} (an admin lets it be leased by `proctor agents release {host}`)"


def _names(values: Sequence[list[Any]] | None, group: str | None) -> str:
    if not values:
        return ""
    holders, count = _holders(values)
    return name_runs(holders, group, count)


async def hold_hosts(
    session: Session, run: str, hosts: Mapping[str, Sequence[LeasableHost]], exclusive: Mapping[str, bool]
) -> bool:
    """Give the run these hosts, by role, and end its reservations. False, and nothing is held: a step of another run
    has started on one that it wants exclusively.
    """
    alone = [host.agent for role, found in hosts.items() if exclusive[role] for host in found]
    for agent in alone:
        await make_slots(session, agent)
    if alone and not await _close(session, run, alone):
        return False
    await session.execute("DELETE FROM control.reservations WHERE run_id = $1", run)
    for role, found in hosts.items():
        for index, host in enumerate(found):
            place: dict[str, object] = {"run_id": run, "role": role, "idx": index, "exclusive": exclusive[role]}
            held = place | {"agent_id": host.agent, "host": host.host}
            columns = ALLOCATIONS.only(*held)
            await session.execute(
                f"""INSERT INTO control.allocations ({columns.names}) VALUES ({columns.insert_arguments(1)})
                    ON CONFLICT DO NOTHING""",
                *held.values(),
            )
    return True


async def _close(session: Session, run: str, agents: Sequence[str]) -> bool:
    """Let no other run have a slot of these agents. False, and nothing is changed: one has a slot already."""
    # Waits for concurrent claims and sees them; later claims see for whom the slot is held.
    await session.execute(
        "UPDATE control.leases SET held_for = $1 WHERE agent_id = ANY($2::uuid[]) AND held_for IS NULL", run, agents
    )
    used = await session.fetchval(
        """SELECT EXISTS (SELECT 1 FROM control.leases l JOIN control.steps s ON s.id = l.step_id
           WHERE l.agent_id = ANY($2::uuid[]) AND s.run_id <> ALL (control.lineage($1)))""",
        run,
        agents,
    )
    if used:
        await session.execute("UPDATE control.leases SET held_for = NULL WHERE held_for = $1", run)
    return not used


async def keep_hosts(session: Session, waiting: WaitingRun, agents: Sequence[str]) -> None:
    """Reserve these agents for the run, except those reserved for an older one."""
    await session.execute("DELETE FROM control.reservations WHERE run_id = $1", waiting.run)
    await session.execute(
        """INSERT INTO control.reservations AS v (agent_id, run_id) SELECT x, $1 FROM unnest($2::uuid[]) AS x
           ON CONFLICT (agent_id) DO UPDATE SET run_id = excluded.run_id
           WHERE (SELECT r.number FROM control.runs r WHERE r.id = v.run_id) > $3
             OR EXISTS (SELECT 1 FROM control.runs r
                        WHERE r.id = v.run_id
                          AND (r.state NOT IN ('queued', 'allocating') OR r.cause IS NOT NULL))""",
        waiting.run,
        list(agents),
        waiting.number,
    )


class Over(NamedTuple):
    """A run that has ended, with what it held."""

    wants: Requirements
    hold_until: datetime | None
    """Until when it keeps ``hold_roles``."""
    began: bool
    """Whether it ever had everything that it wanted."""
    freed: list[str]
    """Agents that it held or had reserved."""


async def release_hosts(session: Session, run: str) -> Over | None:
    """Release the hosts of a run that has ended, except those it keeps to be looked at."""
    row = await session.fetchrow(
        """SELECT wants, CASE WHEN hold_until > now() THEN hold_until END AS hold_until, started_at
           FROM control.runs WHERE id = $1 AND state = 'finished'""",
        run,
    )
    if row is None:
        return None
    wants, held = requirements_of(row["wants"]), row["hold_until"]
    kept = list(wants.hold.roles) if wants.hold is not None and held is not None else []
    freed = [
        *await session.fetch("DELETE FROM control.reservations WHERE run_id = $1 RETURNING agent_id", run),
        *await session.fetch(
            "DELETE FROM control.allocations WHERE run_id = $1 AND role <> ALL($2::text[]) RETURNING agent_id",
            run,
            kept,
        ),
    ]
    await _open(session)
    return Over(wants, held, row["started_at"] is not None, [str(each["agent_id"]) for each in freed])


async def find_reserver(session: Session, agent: str) -> str | None:
    """The waiting run for which an agent is reserved that has no live attempts; None otherwise."""
    run = await session.fetchval(
        """SELECT v.run_id FROM control.reservations v WHERE v.agent_id = $1
             AND NOT EXISTS (SELECT 1 FROM control.leases l WHERE l.agent_id = $1 AND l.step_id IS NOT NULL)""",
        agent,
    )
    return None if run is None else str(run)


async def drop_hosts(session: Session, run: str) -> None:
    """A run that has not begun releases its hosts: it waits for something else."""
    await session.execute(
        """DELETE FROM control.allocations a USING control.runs r
           WHERE a.run_id = $1 AND r.id = $1 AND r.state IN ('queued', 'allocating')""",
        run,
    )
    await _open(session)


async def _open(session: Session) -> None:
    """Slots of hosts that are no longer held exclusively are for everybody."""
    await session.execute(
        """UPDATE control.leases l SET held_for = NULL WHERE l.held_for IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM control.allocations a
             WHERE a.agent_id = l.agent_id AND a.run_id = l.held_for AND a.exclusive)"""
    )


async def sweep_hosts(session: Session) -> int:
    """Release what ended runs still hold; returns the number of hosts."""
    await session.execute(
        """DELETE FROM control.reservations v USING control.runs r
           WHERE r.id = v.run_id AND (r.state NOT IN ('queued', 'allocating') OR r.cause IS NOT NULL)"""
    )
    done = await session.execute(
        """DELETE FROM control.allocations a USING control.runs r
           WHERE r.id = a.run_id AND r.state = 'finished' AND (r.hold_until <= now()
             OR r.hold_until IS NULL AND r.finished_at < now() - interval '10 seconds')"""
    )
    await _open(session)
    return int(done.rpartition(" ")[2])


async def find_ready_steps(session: Session, run: str, limit: int) -> list[tuple[str, str]]:
    """Steps of a run that are ready for an agent or a nested plan: id and kind."""
    rows = await session.fetch(
        "SELECT id, kind FROM control.steps WHERE run_id = $1 AND state = 'ready' ORDER BY idx LIMIT $2", run, limit
    )
    return [(str(row["id"]), row["kind"]) for row in rows]
