"""SQL of holders: who holds a host or has it reserved, and whether that excludes a run."""

from datetime import UTC, datetime
from typing import Any

from proctor_controller.db.column import Column, Columns, When
from proctor_controller.domain.hosts.holders import Holder

SHOWN = 4
SLOTS = Columns(
    (
        Column("agent_id", "uuid", When.KEY, "agent"),
        Column("step_id", "uuid", When.UPDATE, "step"),
        Column("attempt", "int", When.UPDATE),
        Column("token", "text", When.UPDATE),
    )
)
"""Of a :class:`SlotHeld`: the slot's agent, and the attempt that has it (table leases)."""
FREED = ", ".join(f"{column.name} = NULL" for column in SLOTS.at(When.UPDATE)) + ", taken_at = NULL"
"""The SET list that gives a slot back."""

_BINDING = """q.state IN ('queued', 'allocating') AND q.cause IS NULL
  AND q.id <> ALL ((SELECT control.lineage({run}))::uuid[])
  AND CASE WHEN q.cause IS NULL THEN NOT EXISTS (
    SELECT 1 FROM control.allocations had JOIN control.reservations asked ON asked.agent_id = had.agent_id
    WHERE had.run_id = ANY ((SELECT control.lineage({run}))::uuid[])
      AND asked.run_id <> ALL ((SELECT control.lineage({run}))::uuid[])) END"""
# A run that holds a host that another run waits for is excluded nowhere: otherwise the two would wait for each other.
# The lineage is a subquery, to be evaluated once and not for each row, within CASE, which is evaluated only for a host
# that somebody waits for. A step that waited before the host was reserved goes first.
RESERVING = (
    """FROM control.reservations o JOIN control.runs q ON q.id = o.run_id
  WHERE o.agent_id = a.id AND """
    + _BINDING
    + " AND coalesce({ready} >= q.created_at, true)"
)
"""The waiting run for which agent ``a`` is reserved, if that excludes a step of ``run`` that became ready at ``ready``
(null: only now)."""
RESERVING_RUN = (
    """FROM control.reservations o JOIN control.runs q ON q.id = o.run_id
  WHERE o.agent_id = a.id AND q.number < {number} AND """
    + _BINDING
)
"""The same for the hosts of a run that waits itself: the older run comes first."""


def holder_json(run: str) -> str:
    """A holder as a JSON value; ``run``: the alias of its row."""
    return (
        f"json_build_array({run}.number, {run}.name, {run}.group_name,"
        f" CASE WHEN {run}.state = 'finished' THEN {run}.hold_until END)"
    )


def to_holder(value: list[Any]) -> Holder:
    """The holder in the output of ``holder_json``."""
    number, name, group, until = value
    return Holder(number, name, group, None if until is None else datetime.fromisoformat(until).astimezone(UTC))
