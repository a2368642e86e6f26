"""SQL of schedules and the outcomes of their ticks."""

# ruff: noqa: S608 - statements are put together from constants of this module

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_controller.db.column import (
    CHANGING,
    FIXED,
    Column,
    Columns,
    When,
    dict_writer,
    maybe_text,
    member_of,
    reader,
)
from proctor_controller.db.session import clean, to_json
from proctor_controller.domain.schedule import Schedule, TickOutcome

KEPT_TICKS = 100
"""Of each schedule; older ones are deleted, except the last one that was started."""

SCHEDULES = Columns(
    (
        Column("id", "uuid", FIXED, read=str),
        Column("name", "text", FIXED),
        Column("cron", "text", CHANGING),
        Column("timezone", "text", CHANGING),
        Column("plan", "json", CHANGING, write=json.dumps),
        Column("parameters", "json", CHANGING, write=to_json),
        Column("sealed", "text", CHANGING),
        Column("overlap", "text", CHANGING),
        Column("group_name", "text", CHANGING, "group"),
        Column("bound", "boolean", CHANGING),
        Column("created_by", "text", FIXED, write=clean),
        Column("created_at", "timestamptz", When.READ),
        Column("next_at", "timestamptz", CHANGING),
    )
)
"""Of a :class:`Schedule`."""
TICKS = Columns(
    (
        Column("at", "timestamptz", FIXED),
        Column("outcome", "text", CHANGING, read=member_of(TickOutcome)),
        Column("run_id", "uuid", CHANGING, "run", read=maybe_text),
        Column("reason", "text", CHANGING, write=clean),
    )
)
"""Of a :class:`Tick`."""
_COLUMNS, _MADE = SCHEDULES.select("s"), SCHEDULES.at(When.INSERT)


@dataclass(frozen=True, slots=True)
class Tick:
    """The outcome of one tick; ``run``: the run that was started for it."""

    at: datetime
    outcome: TickOutcome
    run: str | None = None
    reason: str = ""


_to_schedule: Callable[[RowMapping], Schedule] = reader(Schedule, SCHEDULES)
_schedule_values: Callable[[Schedule], dict[str, Any]] = dict_writer(_MADE)
_to_tick: Callable[[RowMapping], Tick] = reader(Tick, TICKS)
_tick_values: Callable[[Tick], dict[str, Any]] = dict_writer(TICKS)


async def load_schedule(connection: AsyncConnection, name: str, *, lock: bool = False) -> Schedule | None:
    """The schedule of this name; ``lock``: nobody changes it before this transaction ends."""
    query = f"SELECT {_COLUMNS} FROM control.schedules s WHERE s.name = :name {'FOR UPDATE' if lock else ''}"
    row = (await connection.execute(text(query), {"name": name})).mappings().first()
    return _to_schedule(row) if row else None


async def list_schedules(
    connection: AsyncConnection, *, groups: Sequence[str] | None, after: str, limit: int
) -> list[Schedule]:
    """Schedules by name, after ``after``; only those of ``groups`` unless that is None."""
    query = f"""SELECT {_COLUMNS} FROM control.schedules s
        WHERE s.name COLLATE "C" > :after AND (:all OR s.group_name = ANY(:groups))
        ORDER BY s.name COLLATE "C" LIMIT :limit"""
    values = {"after": after, "all": groups is None, "groups": list(groups or []), "limit": limit}
    return [_to_schedule(row) for row in (await connection.execute(text(query), values)).mappings()]


async def save_schedule(connection: AsyncConnection, schedule: Schedule) -> None:
    """Insert it, or change the one of this name, which keeps its id and creator."""
    await connection.execute(
        text(f"""INSERT INTO control.schedules AS s ({_MADE.names}) VALUES ({_MADE.named})
             ON CONFLICT (name) DO UPDATE SET {_MADE.set_named}, changed_at = now()"""),
        _schedule_values(schedule),
    )


async def delete_schedule(connection: AsyncConnection, name: str) -> bool:
    """Delete it with its ticks; the runs it started stay."""
    done = await connection.execute(text("DELETE FROM control.schedules WHERE name = :name"), {"name": name})
    return bool(done.rowcount)


async def read_now(connection: AsyncConnection) -> datetime:
    """The database's clock, which schedules use."""
    now: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now


async def seconds_to_next(connection: AsyncConnection) -> float | None:
    """Seconds until the next tick of any schedule; None if there is no schedule."""
    query = "SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float8 FROM control.schedules"
    seconds: float | None = await connection.scalar(text(query))
    return seconds


async def lock_due(connection: AsyncConnection, limit: int) -> list[Schedule]:
    """Schedules with a tick that is due, longest due first; nobody changes them before this transaction ends."""
    query = f"""SELECT {_COLUMNS} FROM control.schedules s WHERE s.next_at <= clock_timestamp()
        ORDER BY s.next_at LIMIT :limit FOR UPDATE"""
    return [_to_schedule(row) for row in (await connection.execute(text(query), {"limit": limit})).mappings()]


async def find_unfinished(connection: AsyncConnection, schedule: str) -> tuple[int, str] | None:
    """Number and state of a run of this schedule that has not finished."""
    query = """SELECT r.number, r.state FROM control.schedule_ticks t JOIN control.runs r ON r.id = t.run_id
        WHERE t.schedule_id = :schedule AND r.state <> 'finished' ORDER BY t.at DESC LIMIT 1"""
    row = (await connection.execute(text(query), {"schedule": schedule})).first()
    return (row.number, row.state) if row else None


async def is_firing(connection: AsyncConnection, schedule: str) -> bool:
    """Whether a run is about to be started for an earlier tick."""
    query = "SELECT 1 FROM control.schedule_ticks WHERE schedule_id = :schedule AND outcome = 'firing' LIMIT 1"
    return await connection.scalar(text(query), {"schedule": schedule}) is not None


async def add_ticks(connection: AsyncConnection, schedule: str, ticks: Sequence[Tick], next_at: datetime) -> list[Tick]:
    """Store the outcomes of ticks and when the next one is; returns those that were not decided before."""
    added = []
    for tick in ticks:
        done = await connection.execute(
            text(f"""INSERT INTO control.schedule_ticks (schedule_id, {TICKS.names})
                 VALUES (:schedule, {TICKS.named}) ON CONFLICT DO NOTHING"""),
            {"schedule": schedule, **_tick_values(tick)},
        )
        if done.rowcount:
            added.append(tick)
    await connection.execute(
        text("UPDATE control.schedules SET next_at = :next WHERE id = :id"), {"id": schedule, "next": next_at}
    )
    # Keep the last started tick, however many were skipped since: its run must not be started twice.
    await connection.execute(
        text("""DELETE FROM control.schedule_ticks WHERE schedule_id = :schedule AND outcome <> 'firing'
             AND at < (SELECT at FROM control.schedule_ticks WHERE schedule_id = :schedule
                       ORDER BY at DESC OFFSET :kept - 1 LIMIT 1)
             AND at IS DISTINCT FROM (SELECT max(at) FROM control.schedule_ticks
                                      WHERE schedule_id = :schedule AND outcome = 'started')"""),
        {"schedule": schedule, "kept": KEPT_TICKS},
    )
    return added


async def load_firing(connection: AsyncConnection, limit: int) -> list[tuple[Schedule, Tick]]:
    """Ticks for which a run is to be started, oldest first."""
    query = f"""SELECT {_COLUMNS}, {TICKS.select("t")}
        FROM control.schedule_ticks t JOIN control.schedules s ON s.id = t.schedule_id
        WHERE t.outcome = 'firing' ORDER BY t.at LIMIT :limit"""
    rows = (await connection.execute(text(query), {"limit": limit})).mappings()
    return [(_to_schedule(row), _to_tick(row)) for row in rows]


async def end_tick(connection: AsyncConnection, schedule: str, tick: Tick) -> bool:
    """Store the outcome of a tick that was firing; False if there is one already."""
    done = await connection.execute(
        text(f"""UPDATE control.schedule_ticks SET {TICKS.set_named}, decided_at = now()
             WHERE schedule_id = :schedule AND at = :at AND outcome = 'firing'"""),
        {"schedule": schedule, **_tick_values(tick)},
    )
    return bool(done.rowcount)


async def run_is_there(connection: AsyncConnection, run: str) -> bool:
    """Whether a run of this id was started."""
    return await connection.scalar(text("SELECT 1 FROM control.runs WHERE id = :run"), {"run": run}) is not None


async def newest_ticks(connection: AsyncConnection, schedules: Sequence[str], limit: int) -> dict[str, list[Tick]]:
    """The newest ticks of each schedule, newest first, always including the last one that was started."""
    rows = await connection.execute(
        text("""SELECT t.* FROM unnest(CAST(:schedules AS uuid[])) AS s (id) CROSS JOIN LATERAL (
               (SELECT * FROM control.schedule_ticks WHERE schedule_id = s.id ORDER BY at DESC LIMIT :limit)
               UNION (SELECT * FROM control.schedule_ticks WHERE schedule_id = s.id AND outcome = 'started'
                      ORDER BY at DESC LIMIT 1)
               ORDER BY at DESC) t"""),
        {"schedules": list(schedules), "limit": limit},
    )
    found: dict[str, list[Tick]] = {}
    for row in rows.mappings():
        found.setdefault(str(row["schedule_id"]), []).append(_to_tick(row))
    return found
