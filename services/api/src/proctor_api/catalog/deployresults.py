"""Results of deployments: reading a body or query, and their SQL. Lists are read in batches."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any

import asyncpg
import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.dates import read_date
from proctor_api.catalog.faults import bad, unknown
from proctor_api.catalog.fields import KEPT, dump, is_record_id, new_record_id
from proctor_api.catalog.queries import MAX_NUMBER, PAGE, ResultQuery, read_query
from proctor_api.catalog.results import counted_at
from proctor_api.catalog.sent import Dropped, date_sent, drop_unknown, integer_sent, name_sent, text_sent
from proctor_common.pg import session

BATCH = 100
TEXTS = ("version", "job_name", "upstream_job_name", "criteria")
NUMBERS = ("build_id", "upstream_build_id")
FIELDS = (
    "installer",
    "version",
    "pod_name",
    "job_name",
    "build_id",
    "scenario",
    "upstream_job_name",
    "upstream_build_id",
    "criteria",
    "start_date",
    "stop_date",
    "details",
)
COLUMNS = (*FIELDS[:-1],)
_ABOUT_TIME = frozenset({"period", "last", "page", "from", "to", "descend"})
_SHORT = {"pod": "pod_name", "_id": "id"}
_INSERT = f"""
INSERT INTO catalog.deployresults (id, start_at, owner_group, body, {", ".join(COLUMNS)})
VALUES ($1, $2, $3, $4::text::json, {", ".join(f"${place}" for place in range(5, 5 + len(COLUMNS)))})
"""


@dataclass(frozen=True, slots=True)
class NewDeployResult:
    """A deployment result to store. ``body``: its members as clients see them, without ``_id``."""

    id: str
    start_at: datetime
    group: str | None
    body: Mapping[str, Any]


def read_deployresult(
    body: Mapping[str, Any], now: datetime, zone: tzinfo, group: str | None, dropped: Dropped
) -> NewDeployResult:
    """The deployment result in a body. Raises 400 for names only."""
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    for key in ("pod_name", "installer", "scenario"):
        found[key] = name_sent(body, key, dropped)
    for key in TEXTS:
        found[key] = text_sent(body, key, dropped)
    for key in NUMBERS:
        found[key] = integer_sent(body, key, dropped)
    for key in ("start_date", "stop_date"):
        found[key] = date_sent(body, key, dropped)
    found["details"] = body.get("details")
    drop_unknown(body, KEPT | {*FIELDS}, dropped)
    start_at, _ = counted_at(read_date(found["start_date"], zone), None, now)
    return NewDeployResult(new_record_id(now), start_at, group, found)


def read_deploy_query(
    pairs: Iterable[tuple[str, str]], now: datetime, zone: tzinfo, groups: Sequence[str] | None
) -> ResultQuery:
    """The query in a URL's parameters. Raises 400."""
    given = dict(pairs)
    about_time = [(key, value) for key, value in given.items() if key in _ABOUT_TIME]
    equal = {_SHORT.get(key, key): value for key, value in given.items() if key not in _ABOUT_TIME}
    query = read_query(about_time, now, zone, groups)
    return replace(query, equal=tuple(equal.items()), nothing=query.nothing or not set(equal) <= {*COLUMNS, "id"})


class DeployResults:
    """Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, result: NewDeployResult) -> None:
        """Store one. Raises 404 for an unknown pod."""
        columns = [None if result.body[name] is None else str(result.body[name]) for name in COLUMNS]
        try:
            async with session(self._engine) as connection:
                await connection.execute(
                    _INSERT, result.id, result.start_at, result.group, dump(dict(result.body)), *columns
                )
        except asyncpg.ForeignKeyViolationError:
            raise unknown("pod", result.body["pod_name"]) from None

    async def get(self, id_: str, groups: list[str] | None) -> bytes:
        """The JSON of one. Raises 404, also for a malformed id."""
        if is_record_id(id_):
            query = ResultQuery(equal=(("id", id_),), groups=None if groups is None else tuple(groups))
            where, values = query.where()
            async with session(self._engine) as connection:
                row = await connection.fetchrow(
                    f"SELECT id, body::text AS body FROM catalog.deployresults WHERE {where}", *values
                )
            if row is not None:
                return _view(row)
        raise unknown("deploy result", id_)

    async def page(self, query: ResultQuery) -> tuple[list[bytes], int]:
        """The rows of page ``query.page`` and the number of pages. Raises 400 for a page beyond the last."""
        page = query.page or 1
        async with session(self._engine) as connection:
            where, values = _where(query)
            limit = f"LIMIT {query.last}" if query.last else ""
            inner = f"SELECT FROM catalog.deployresults WHERE {where} {limit}"
            total = await connection.fetchval(f"SELECT count(*) FROM ({inner}) AS found", *values)
            pages = -(-total // PAGE)
            if page > max(1, pages):
                raise bad(f"page {page} is beyond the last one, {pages}")
            rows = await connection.fetch(
                f"SELECT id, body::text AS body FROM catalog.deployresults WHERE {where} ORDER BY {query.order}"
                f" OFFSET {(page - 1) * PAGE} LIMIT {max(0, min(PAGE, total - (page - 1) * PAGE))}",
                *values,
            )
        return [_view(row) for row in rows], pages

    async def stream(self, query: ResultQuery) -> AsyncIterator[list[bytes]]:
        """All results of a query, in batches; no connection is held between two of them."""
        after: tuple[datetime, str] | None = None
        left = query.last or MAX_NUMBER
        while left > 0:
            where, values = _where(query, after)
            size = min(BATCH, left)
            async with session(self._engine) as connection:
                rows = await connection.fetch(
                    "SELECT id, start_at, body::text AS body FROM catalog.deployresults"
                    f" WHERE {where} ORDER BY {query.order} LIMIT {size}",
                    *values,
                )
            if rows:
                after = (rows[-1]["start_at"], rows[-1]["id"])
                yield [_view(row) for row in rows]
            left = 0 if len(rows) < size else left - size


def _where(query: ResultQuery, after: tuple[datetime, str] | None = None) -> tuple[str, list[Any]]:
    if query.nothing:
        return "false", []
    return query.where(after)


def _view(row: Any) -> bytes:
    """The JSON of a row: ``_id`` before the members, which are stored as a non-empty object."""
    members = str(row["body"]).lstrip().removeprefix("{")
    return b'{"_id":' + orjson.dumps(row["id"]) + b"," + members.encode()
