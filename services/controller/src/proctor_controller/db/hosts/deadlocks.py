"""SQL of waits that may be part of a deadlock: of runs that hold hosts and wait for others."""

# ruff: noqa: S608 - statements are put together from constants of this package

from typing import NamedTuple

from proctor_controller.db.hosts.candidates import HOST, place_in
from proctor_controller.db.hosts.holders import holder_json, to_holder
from proctor_controller.db.hosts.leasing import OWNED, owner_in
from proctor_controller.db.session import Session
from proctor_controller.domain.hosts.deadlocks import HeldHost, Wait
from proctor_controller.domain.hosts.holders import Holder
from proctor_controller.domain.hosts.requirements import HostRole, requirements_of

LIMIT = 200

_RUNS = f"""SELECT r.id, r.number, r.group_name, r.wants, control.lineage(r.parent) AS holders FROM control.runs r
WHERE r.state IN ('queued', 'allocating') AND r.cause IS NULL AND r.parent IS NOT NULL AND r.wants::jsonb ? 'roles'
 AND (r.state = 'allocating' OR r.concurrency_key IS NULL)
 AND EXISTS (SELECT 1 FROM control.allocations o WHERE o.run_id = ANY (control.lineage(r.parent)))
ORDER BY r.number LIMIT {LIMIT}"""
_STEPS = f"""SELECT w.id, w.run_id, w.place_group, w.place_labels, w.plugin, v.number, v.group_name,
 w.phase <> 'main' AS cleanup, control.lineage(w.run_id) AS holders,
 {HOST} AS place_host
FROM control.steps w JOIN control.runs v ON v.id = w.run_id
WHERE w.state = 'waiting' AND w.role IS NULL
 AND (w.phase = 'main' AND v.state = 'running' OR w.phase <> 'main' AND v.state IN ('rolling_back', 'finalizing'))
 AND EXISTS (SELECT 1 FROM control.allocations o WHERE o.run_id = ANY (control.lineage(w.run_id)))
ORDER BY w.ready_at LIMIT {LIMIT}"""
_HOSTS = f"""SELECT {OWNED.format(uses="$1")},
 (SELECT json_agg(json_build_array(q.id, o.exclusive, {holder_json("q")})) FROM control.allocations o
  JOIN control.runs q ON q.id = o.run_id WHERE o.agent_id = a.id AND q.state <> 'finished') AS holders
FROM control.agents a WHERE a.revoked_at IS NULL"""


class Waits(NamedTuple):
    """The waits of runs that hold hosts, all hosts, and their holders."""

    waits: list[Wait]
    hosts: list[HeldHost]
    runs: dict[str, Holder]


async def load_waits(session: Session) -> Waits:
    """The input of the search for a deadlock; without hosts if there are fewer than two such waits."""
    waits = [
        Wait(
            str(row["id"]), row["number"], requirements_of(row["wants"]).roles, _ids(row["holders"]), row["group_name"]
        )
        for row in await session.fetch(_RUNS)
    ]
    for row in await session.fetch(_STEPS):
        place = place_in(row)
        labels = None if place.labels is None else dict(place.labels)
        role = HostRole("host", host=place.host, group=place.group, labels=labels, plugin=row["plugin"])
        run, step = str(row["run_id"]), str(row["id"])
        waits.append(Wait(run, row["number"], (role,), _ids(row["holders"]), row["group_name"], step, row["cleanup"]))
    if len(waits) < 2:
        return Waits(waits, [], {})
    hosts, runs = list[HeldHost](), dict[str, Holder]()
    uses = sorted({use for wait in waits for role in wait.roles for use in role.uses})
    for row in await session.fetch(_HOSTS, uses):
        held: dict[str, bool] = {}
        for run, exclusive, holder in row["holders"] or ():
            held[run] = held.get(run, False) or exclusive
            runs[run] = to_holder(holder)
        hosts.append(HeldHost(owner_in(row), held))
    return Waits(waits, hosts, runs)


def _ids(values: list[object]) -> frozenset[str]:
    return frozenset(map(str, values))
