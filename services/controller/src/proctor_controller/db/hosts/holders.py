"""SQL of who has a host, or has it kept free: whom that keeps from it, and who it is."""

from datetime import UTC, datetime
from typing import Any

from proctor_controller.domain.hosts.holders import Holder

SHOWN = 4

_BINDING = """q.state IN ('queued', 'allocating') AND q.cause IS NULL
  AND q.id <> ALL ((SELECT control.lineage({run}))::uuid[])
  AND CASE WHEN q.cause IS NULL THEN NOT EXISTS (
    SELECT 1 FROM control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id
    WHERE had.run_id = ANY ((SELECT control.lineage({run}))::uuid[])
      AND asked.run_id <> ALL ((SELECT control.lineage({run}))::uuid[])) END"""
# Whoever holds a host that somebody waits for goes on everywhere: else that one would wait for him, and he for that
# one. The lineage stands in a query of its own, to be looked up once and not for each row; in CASE, which is looked at
# only for a host that somebody waits for. And a step that waited before the host was asked for goes first.
RESERVING = (
    """FROM control.reservations o JOIN control.runs q ON q.id = o.run_id
  WHERE o.agent_id = a.id AND """
    + _BINDING
    + " AND coalesce({ready} >= q.created_at, true)"
)
"""The waiting run that agent ``a`` is kept free for, where that keeps a step of ``run`` from it that became ready at
``ready`` (null: only now).
"""
RESERVING_RUN = (
    """FROM control.reservations o JOIN control.runs q ON q.id = o.run_id
  WHERE o.agent_id = a.id AND q.number < {number} AND """
    + _BINDING
)
"""The same for the hosts of a run that waits itself: the older one comes first."""


def holder_json(run: str) -> str:
    """A holder as a JSON value; ``run``: the alias of its row."""
    return (
        f"json_build_array({run}.number, {run}.name, {run}.group_name,"
        f" CASE WHEN {run}.state = 'finished' THEN {run}.hold_until END)"
    )


def to_holder(value: list[Any]) -> Holder:
    """The holder in what ``holder_json`` made."""
    number, name, group, until = value
    return Holder(number, name, group, None if until is None else datetime.fromisoformat(until).astimezone(UTC))
