"""SQL of ``/dashboard/v1``: which projects and test cases have results, and the rows of a board."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, tzinfo

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.dashboard.boards import PROJECTS
from proctor_api.catalog.dashboard.figures import Board
from proctor_api.catalog.dashboard.verdicts import SQL_PASSED, SQL_SECONDS, passed_of
from proctor_api.catalog.dates import read_date
from proctor_api.catalog.queries import ResultQuery
from proctor_api.catalog.sent import AHEAD
from proctor_common.pg import changing, session

MOST_RESULTS = 10_000
"""Newest results that a board uses at most; ``last`` in a query may lower it."""
LARGEST_DETAILS = 1024 * 1024
"""Bytes. Larger details are not read; their result counts without them."""
BATCH = 100
MOST_COUNTED = 50_000
"""Newest results that the status of functest uses at most."""
MOST_NAMES = 1000

_PROJECTS = f"""
WITH RECURSIVE found AS (
    SELECT min(project_name) AS name FROM catalog.results
    UNION ALL
    SELECT (SELECT min(project_name) FROM catalog.results WHERE project_name > found.name)
    FROM found WHERE found.name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL LIMIT {MOST_NAMES}
"""


class Readings:
    """``groups`` None: results of any group. Raises ProctorError ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def projects(self, groups: Sequence[str] | None) -> list[str]:
        """The projects with a dashboard: PROJECTS, then all others that have results."""
        async with session(self._engine) as connection:
            if groups is None:
                rows = await connection.fetch(_PROJECTS)
            else:
                rows = await connection.fetch(
                    "SELECT DISTINCT project_name AS name FROM catalog.results WHERE owner_group = ANY($1::text[])"
                    f" ORDER BY name LIMIT {MOST_NAMES}",
                    list(groups),
                )
        return [*PROJECTS, *(row["name"] for row in rows if row["name"] not in PROJECTS)]

    async def has_results(self, project: str, case: str | None, groups: Sequence[str] | None) -> bool:
        """Whether a project (``case`` None) or one of its test cases has results."""
        equal = [("project_name", project), *([] if case is None else [("case_name", case)])]
        query = ResultQuery(equal=tuple(equal), groups=None if groups is None else tuple(groups))
        where, values = query.where()
        async with session(self._engine) as connection:
            return bool(
                await connection.fetchval(f"SELECT EXISTS (SELECT FROM catalog.results WHERE {where})", *values)
            )

    async def fill(self, board: Board, query: ResultQuery, zone: tzinfo) -> None:
        """Add the newest results of a query to a board, oldest first. One from a clock that was ahead stands where it
        arrived.
        """
        newest = replace(query, newest_first=True)
        where, values = newest.where()
        limit = min(query.last or MOST_RESULTS, MOST_RESULTS)
        details = f"CASE WHEN r.size <= {LARGEST_DETAILS} THEN r.details::text END" if board.reads_details else "NULL"
        statement = (
            f"SELECT r.start_date, r.start_at, r.criteria, {SQL_SECONDS} AS seconds, {details} AS details FROM"
            f" (SELECT id AS newest_id, start_at AS newest_at FROM catalog.results WHERE {where}"
            f" ORDER BY {newest.order} LIMIT {limit}) AS newest"
            " JOIN catalog.results AS r ON r.id = newest_id ORDER BY newest_at, newest_id"
        )
        async with changing(self._engine) as connection:
            async for row in connection.cursor(statement, *values, prefetch=BATCH):
                board.add(
                    {
                        "start_date": shown_start(row["start_date"], row["start_at"], zone),
                        "passed": passed_of(row["criteria"]),
                        "seconds": row["seconds"],
                        "details": None if row["details"] is None else _details(row["details"]),
                    }
                )

    async def status(self, query: ResultQuery) -> list[tuple[str, int, int]]:
        """(case, results, passed) of each test case with results in a query, by name."""
        where, values = query.where()
        statement = (
            f"SELECT case_name, count(*) AS run, count(*) FILTER (WHERE {SQL_PASSED}) AS passed FROM"
            f" (SELECT case_name, criteria FROM catalog.results WHERE {where}"
            f" ORDER BY start_at DESC, id DESC LIMIT {MOST_COUNTED}) AS newest"
            f" GROUP BY case_name ORDER BY case_name LIMIT {MOST_NAMES}"
        )
        async with session(self._engine) as connection:
            rows = await connection.fetch(statement, *values)
        return [(row["case_name"], row["run"], row["passed"]) for row in rows]


def shown_start(sent: str | None, start_at: datetime, zone: tzinfo) -> str | None:
    """The start as the client sent it, or when the result arrived, if that start was ahead of it."""
    start = read_date(sent, zone)
    if start is None or start - start_at <= AHEAD:
        return sent
    return start_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def _details(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson does not take it, for example because it is nested too deep: count the result without details.
        return None
