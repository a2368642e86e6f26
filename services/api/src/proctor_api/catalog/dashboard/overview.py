"""SQL of the results page: figures over time, the matrix, and the results behind a point.

Only the newest ``SCOPE`` results that match the filters are used, so that every choice of filters is fast.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.dashboard.verdicts import LAST, SQL_FAILED, SQL_PASSED, SQL_SECONDS, passed_of, trust_of
from proctor_api.catalog.queries import ResultQuery
from proctor_common.pg import session

SCOPE = 50_000
MOST_NAMES = 500
MOST_SERIES = 8
MOST_CELLS = 2_000
MOST_LINES = 50
"""Scenarios, and test cases, that the matrix shows at most: those with the most cells."""
MOST_RESULTS = 200
Line = TypeVar("Line", bound=Hashable)
DIMENSIONS = {
    "project": "project_name",
    "case": "case_name",
    "scenario": "scenario",
    "installer": "installer",
    "pod": "pod_name",
    "version": "version",
}
"""Filters and groupings: the name on the page and the column."""
_MONDAY = "'2000-01-03 00:00:00+00'"
_DAY = 86_400
_BUCKETS = ((1, 3_600), (7, _DAY // 4), (90, _DAY), (365, 7 * _DAY))


def bucket_of(days: int) -> int:
    """Seconds per point of the charts, chosen so that there are about 100 points at most."""
    return next((seconds for most, seconds in _BUCKETS if days <= most), 30 * _DAY)


@dataclass(frozen=True, slots=True)
class Period:
    """The last ``days`` up to ``now``."""

    now: datetime
    days: int

    @property
    def since(self) -> datetime:
        """Its beginning, at the edge of a bucket, so that the first point is complete."""
        monday = datetime(2000, 1, 3, tzinfo=UTC)
        bucket = bucket_of(self.days)
        past = (self.now - timedelta(days=self.days) - monday).total_seconds()
        return monday + timedelta(seconds=past // bucket * bucket)


class Overview:
    """Raises ProctorError ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def options(self, groups: Sequence[str] | None) -> dict[str, list[str]]:
        """The values of each dimension, at most MOST_NAMES each; ``groups`` None: of results of any group."""
        found = {}
        async with session(self._engine) as connection:
            for word, column in DIMENSIONS.items():
                if groups is None:
                    rows = await connection.fetch(_distinct(column))
                else:
                    rows = await connection.fetch(_distinct_of_groups(column), list(groups))
                found[word] = [row["name"] for row in rows]
        return found

    async def trend(self, query: ResultQuery, period: Period, by: str | None) -> dict[str, Any]:
        """Sums of all results, and the MOST_SERIES largest series, one per value of ``by`` (one without it)."""
        where, values = query.where()
        bucket = bucket_of(period.days)
        name = "''" if by is None else f"coalesce({DIMENSIONS[by]}, '')"
        async with session(self._engine) as connection:
            rows = await connection.fetch(_trend(where, name, bucket), *values)
        total = rows[0]
        series: dict[str, list[dict[str, Any]]] = {}
        for row in rows[1:]:
            series.setdefault(row["name"], []).append({"at": _iso(row["at"]), **_counts(row)})
        return {
            "from": _iso(period.since),
            "to": _iso(max(period.now, total["newest"] or period.now)),
            "bucket_seconds": bucket,
            "by": by,
            "sum": {**_counts(total), "newest": _iso(total["newest"])},
            "series": [{"name": key if by else None, "points": points} for key, points in series.items()],
            "left_off": max(0, total["names"] - MOST_SERIES) if by is not None else 0,
            "truncated": total["runs"] >= SCOPE,
        }

    async def matrix(self, query: ResultQuery) -> dict[str, Any]:
        """The last verdict and the trust of each pair of scenario and test case, of the MOST_CELLS newest pairs."""
        where, values = query.where()
        async with session(self._engine) as connection:
            rows = await connection.fetch(_matrix(where), *values)
        found = [_cell(row) for row in rows[:MOST_CELLS]]
        scenarios = _most([cell["scenario"] for cell in found])
        cases = _most([(cell["project"], cell["case"]) for cell in found])
        cells = [cell for cell in found if cell["scenario"] in scenarios and (cell["project"], cell["case"]) in cases]
        return {
            "looked_back": LAST,
            "scenarios": sorted(scenarios),
            "cases": [{"project": project, "case": case} for project, case in sorted(cases)],
            "cells": cells,
            "truncated": len(rows) > len(cells),
        }

    async def results(self, query: ResultQuery, limit: int) -> dict[str, Any]:
        """The newest results of a query, with the run that recorded them."""
        where, values = query.where()
        async with session(self._engine) as connection:
            rows = await connection.fetch(
                "SELECT id, project_name, case_name, scenario, installer, pod_name, version, criteria, start_date,"
                f" NULLIF(start_at, '-infinity') AS start_at, {SQL_SECONDS} AS seconds,"
                " trust_indicator, run, step, attempt"
                f" FROM catalog.results WHERE {where} ORDER BY results.start_at DESC, id DESC LIMIT {limit + 1}",
                *values,
            )
        return {"items": [_result(row) for row in rows[:limit]], "more": len(rows) > limit}


def _most(lines: list[Line]) -> set[Line]:
    """The MOST_LINES most frequent ones; among equals, the first."""
    return {line for line, _ in Counter(lines).most_common(MOST_LINES)}


def _distinct(column: str) -> str:
    """SQL that reads the distinct values of a column by index lookups, one per value, not per row."""
    return f"""
    WITH RECURSIVE found AS (
        SELECT min({column}) AS name FROM catalog.results WHERE {column} > ''
        UNION ALL
        SELECT (SELECT min({column}) FROM catalog.results WHERE {column} > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL LIMIT {MOST_NAMES}
    """


def _distinct_of_groups(column: str) -> str:
    return f"""
    SELECT DISTINCT name FROM (
        SELECT {column} AS name FROM catalog.results WHERE owner_group = ANY($1::text[])
        ORDER BY start_at DESC, id DESC LIMIT {SCOPE}
    ) AS newest WHERE name > '' ORDER BY name LIMIT {MOST_NAMES}
    """


def _trend(where: str, name: str, bucket: int) -> str:
    """SQL that gives a row of sums (place 0), then the points of the series with the most results."""
    sums = (
        "count(*) AS runs, count(*) FILTER (WHERE passed) AS passed, count(*) FILTER (WHERE failed) AS failed,"
        " percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds"
    )
    return f"""
    WITH scope AS MATERIALIZED (
        SELECT {name} AS name, start_at, {SQL_PASSED} AS passed, {SQL_FAILED} AS failed, {SQL_SECONDS} AS seconds
        FROM catalog.results WHERE {where} ORDER BY start_at DESC, id DESC LIMIT {SCOPE}
    ), ranked AS MATERIALIZED (
        SELECT name, row_number() OVER (ORDER BY count(*) DESC, name) AS place FROM scope GROUP BY name
    )
    SELECT 0 AS place, '' AS name, NULL::timestamptz AS at, max(start_at) AS newest,
        (SELECT count(*) FROM ranked) AS names, {sums} FROM scope
    UNION ALL
    SELECT place, name, date_bin('{bucket} seconds', start_at, {_MONDAY}) AS at, NULL, NULL, {sums}
    FROM scope JOIN ranked USING (name) WHERE place <= {MOST_SERIES} GROUP BY 1, 2, 3
    ORDER BY place, at
    """


def _matrix(where: str) -> str:
    """SQL that gives one row per cell: its last result, and the verdicts of its LAST newest ones."""
    return f"""
    WITH scope AS (
        SELECT id, project_name, case_name, coalesce(scenario, '') AS scenario, criteria, start_at, trust_indicator
        FROM catalog.results WHERE {where} ORDER BY start_at DESC, id DESC LIMIT {SCOPE}
    ), placed AS (
        SELECT *, row_number() OVER (
            PARTITION BY project_name, case_name, scenario ORDER BY start_at DESC, id DESC
        ) AS place FROM scope
    ), counted AS (
        SELECT project_name, case_name, scenario, count(*) FILTER (WHERE {SQL_PASSED}) AS passed,
            count(*) FILTER (WHERE {SQL_FAILED}) AS failed
        FROM placed WHERE place <= {LAST} GROUP BY project_name, case_name, scenario
    )
    SELECT id, project_name, case_name, scenario, criteria, start_at, trust_indicator, passed, failed
    FROM placed JOIN counted USING (project_name, case_name, scenario) WHERE place = 1
    ORDER BY start_at DESC, id DESC LIMIT {MOST_CELLS + 1}
    """


def _cell(row: Any) -> dict[str, Any]:
    trust = trust_of(row["passed"], row["passed"] + row["failed"])
    return {
        "project": row["project_name"],
        "case": row["case_name"],
        "scenario": row["scenario"],
        "passed": passed_of(row["criteria"]),
        "at": _iso(row["start_at"]),
        "result": row["id"],
        "trust_sent": row["trust_indicator"],
        "trust": None if trust is None else {"value": trust.value, "passed": trust.passed, "known": trust.known},
    }


def _result(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "project": row["project_name"],
        "case": row["case_name"],
        "scenario": row["scenario"],
        "installer": row["installer"],
        "pod": row["pod_name"],
        "version": row["version"],
        "criteria": row["criteria"],
        "passed": passed_of(row["criteria"]),
        "start_date": row["start_date"],
        "at": _iso(row["start_at"]),
        "seconds": row["seconds"],
        "trust_sent": row["trust_indicator"],
        "run": None if row["run"] is None else str(row["run"]),
        "step": None if row["step"] is None else str(row["step"]),
        "attempt": row["attempt"],
    }


def _counts(row: Any) -> dict[str, Any]:
    seconds = row["seconds"]
    return {
        "runs": row["runs"],
        "passed": row["passed"],
        "failed": row["failed"],
        "seconds": None if seconds is None else round(float(seconds), 3),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
