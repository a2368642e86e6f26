"""The tables of columns say what the migrated schema has, and all of it."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_controller.db.column import Columns, When
from proctor_controller.db.hosts.holders import SLOTS
from proctor_controller.db.hosts.leasing import ALLOCATIONS
from proctor_controller.db.plans import PLANS
from proctor_controller.db.pool.jobs import BREAKERS
from proctor_controller.db.pool.volumes import VOLUMES
from proctor_controller.db.runs.columns import (
    ATTEMPTS,
    EDGES,
    EVENTS,
    NEW_RUNS,
    NEW_STEPS,
    NODES,
    RECORDS,
    RUNS,
    STEPS,
)
from proctor_controller.db.schedules import SCHEDULES, TICKS
from proctor_controller.db.session import close_sessions, session

TABLES: dict[str, tuple[Columns, set[str]]] = {
    "runs": (Columns((*RUNS, *NEW_RUNS)), {"number"}),
    "steps": (Columns((*STEPS, *NEW_STEPS)), set()),
    "nodes": (NODES, {"run_id"}),
    "edges": (EDGES, {"run_id"}),
    "attempts": (ATTEMPTS, {"run_id", "evidence", "dispatched_at"}),
    "run_events": (EVENTS, {"run_id", "id", "at"}),
    "allocations": (ALLOCATIONS, {"taken_at"}),
    "leases": (SLOTS, {"slot", "held_for", "taken_at"}),
    "volumes": (VOLUMES, {"claimed_at", "ready_at"}),
    "pool_breakers": (BREAKERS, set()),
    "schedules": (SCHEDULES, {"changed_at"}),
    "schedule_ticks": (TICKS, {"schedule_id", "decided_at"}),
    "plans": (PLANS, {"deleted_at"}),
    "records": (RECORDS, {"run_id", "id", "created_at", "taken_at"}),
}
"""By table: its columns, and those that the statements name themselves or leave to the database."""


@pytest.mark.parametrize("table", TABLES)
async def test_the_schema_has_these_columns_and_no_others(rows: AsyncEngine, table: str) -> None:
    columns, others = TABLES[table]
    async with session(rows) as db:
        found = await db.fetch(
            """SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped""",
            f"control.{table}",
        )
        named = {
            column.name: await db.fetchval("SELECT format_type($1::text::regtype, NULL)", column.type)
            for column in columns
        }
    await close_sessions(rows)
    assert len(named) == len(columns)
    assert named == {row["attname"]: row["type"] for row in found if row["attname"] not in others}


def test_columns_that_are_read_beside_each_other_have_names_of_their_own() -> None:
    names = [each.alias or each.name for table in (RUNS, STEPS, NODES) for each in table.at(When.READ)]
    assert sorted(names) == sorted(set(names))
