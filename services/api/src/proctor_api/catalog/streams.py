"""Lists of results of any length, read in batches so that neither a long list nor a slow client takes much memory.

The first batch is one query. The rest is read with a cursor on one connection. A client that takes no batch for
PATIENCE seconds loses the connection, not its position: the cursor is opened again behind the last row.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.queries import ResultQuery
from proctor_api.catalog.results import COLUMNS, Shown, view_of
from proctor_common.pg import Session, changing, session

BATCH = 400
LARGE = 8 * 1024
"""Bytes. Larger details are read one by one, so that the size of a batch is bounded."""
PATIENCE = 5.0
"""Seconds that a client may keep a connection without taking a batch."""
AT_ONCE = 4
"""Lists that are read at the same time after their first batch; others wait."""
TURN = 15.0
"""Seconds after which a list lets another one read."""
QUEUED = 2

_Queue = asyncio.Queue[list[Shown] | None]

_COLUMNS = f"{', '.join(COLUMNS)}, start_at, size, CASE WHEN size <= {LARGE} THEN details::text END AS details"


@dataclass(slots=True)
class ReadSoFar:
    """The position in a list. ``left``: results that may follow; None for no limit."""

    after: tuple[datetime, str] | None = None
    left: int | None = None


class ResultStreams:
    """Reads lists of results. One per process, because it limits the lists that are read at the same time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def first(self, query: ResultQuery) -> tuple[list[Shown], ReadSoFar | None]:
        """The first rows, and the position behind them; None if there are no more."""
        place = ReadSoFar(None, query.last or None)
        async with session(self._engine) as connection:
            batch = BATCH if place.left is None else min(BATCH, place.left)
            text, values = _select(query, place)
            rows = await connection.fetch(f"{text} LIMIT {batch}", *values)
            shown = await _shown(connection, rows)
        _move(place, rows)
        return shown, (None if len(rows) < BATCH or place.left == 0 else place)

    async def rest(self, query: ResultQuery, place: ReadSoFar) -> AsyncIterator[list[Shown]]:
        """The results behind a position, in batches."""
        queue: _Queue = asyncio.Queue(QUEUED)
        reading = asyncio.create_task(self._read(query, place, queue), name="results read")
        try:
            while (batch := await queue.get()) is not None:
                yield batch
            await reading
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, query: ResultQuery, place: ReadSoFar, queue: _Queue) -> None:
        """Put all batches into the queue, then None, also after an exception."""
        try:
            more = True
            while more:
                async with self._turns:
                    more, waiting = await self._turn(query, place, queue)
                if waiting is not None:
                    await queue.put(waiting)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    async def _turn(self, query: ResultQuery, place: ReadSoFar, queue: _Queue) -> tuple[bool, list[Shown] | None]:
        """Read for up to TURN seconds. Returns whether there is more, and a batch that was not taken in time."""
        end = asyncio.get_running_loop().time() + TURN
        async with changing(self._engine) as connection:
            text, values = _select(query, place)
            cursor = await connection.cursor(text, *values)
            while True:
                rows = await cursor.fetch(BATCH if place.left is None else min(BATCH, place.left))
                if not rows:
                    return False, None
                shown = await _shown(connection, rows)
                _move(place, rows)
                more = place.left != 0
                try:
                    await asyncio.wait_for(queue.put(shown), PATIENCE)
                except TimeoutError:
                    return more, shown
                if not more or asyncio.get_running_loop().time() > end:
                    return more, None


def _select(query: ResultQuery, place: ReadSoFar) -> tuple[str, list[Any]]:
    """The SQL statement and its arguments."""
    where, values = query.where(place.after)
    return f"SELECT {_COLUMNS} FROM catalog.results WHERE {where} ORDER BY {query.order}", values


def _move(place: ReadSoFar, rows: list[Any]) -> None:
    if rows:
        place.after = (rows[-1]["start_at"], rows[-1]["_id"])
        if place.left is not None:
            place.left -= len(rows)


async def _shown(connection: Session, rows: list[Any]) -> list[Shown]:
    shown = []
    for row in rows:
        view = view_of(row)
        del view["start_at"]
        if view.pop("size") > LARGE:
            text = await connection.fetchval("SELECT details::text FROM catalog.results WHERE id = $1", view["_id"])
            view["details"] = orjson.Fragment(text)
        shown.append(view)
    return shown
