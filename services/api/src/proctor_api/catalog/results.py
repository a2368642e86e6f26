"""SQL of results: store one, read one, read a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import asyncpg
import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.dates import NEVER, read_date
from proctor_api.catalog.faults import bad, unknown
from proctor_api.catalog.fields import KEPT, dump, is_record_id, new_record_id, project_name_of
from proctor_api.catalog.queries import PAGE, ResultQuery
from proctor_api.catalog.sent import AHEAD, Dropped, date_sent, drop_unknown, name_sent, text_sent, trust_sent
from proctor_common.errors import ProctorError
from proctor_common.pg import Session, session

COLUMNS = (
    'id AS "_id"',
    "pod_name",
    "project_name",
    "case_name",
    "installer",
    "version",
    "scenario",
    "build_tag",
    "criteria",
    "start_date",
    "stop_date",
    "trust_indicator",
)
SELECT = f"SELECT {', '.join(COLUMNS)}, details::text AS details FROM catalog.results"
_COUNT = "SELECT count(*) FROM"
FIRST_YEAR = 2009
"""Before it no ``_id`` was made."""
COLUMN_TYPES = (
    ("id", "text"),
    ("pod_name", "text"),
    ("project_name", "text"),
    ("case_name", "text"),
    ("installer", "text"),
    ("version", "text"),
    ("scenario", "text"),
    ("build_tag", "text"),
    ("criteria", "text"),
    ("start_date", "text"),
    ("stop_date", "text"),
    ("start_at", "timestamptz"),
    ("stop_at", "timestamptz"),
    ("trust_indicator", "double precision"),
    ("size", "integer"),
    ("owner_group", "text"),
    ("details", "text"),
    ("run", "uuid"),
    ("step", "uuid"),
    ("attempt", "integer"),
)
"""Columns of the INSERT, in the order of ``NewResult.arguments``."""
_VALUES = ", ".join(
    f"${place}::text::json" if name == "details" else f"${place}" for place, (name, _) in enumerate(COLUMN_TYPES, 1)
)
INSERT = f"INSERT INTO catalog.results ({', '.join(name for name, _ in COLUMN_TYPES)}) VALUES ({_VALUES})"


@dataclass(frozen=True, slots=True)
class ResultOrigin:
    """The attempt that recorded a result; ids as text."""

    run: str
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NewResult:
    """A result to store. ``details``: JSON text; None if absent. ``origin``: None for a result sent by a client."""

    id: str
    pod_name: str
    project_name: str
    case_name: str
    texts: Mapping[str, str | None]
    start_at: datetime
    stop_at: datetime
    trust_indicator: float
    details: str | None
    owner_group: str | None = None
    origin: ResultOrigin | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the INSERT."""
        texts = self.texts
        origin = (None, None, None) if self.origin is None else (self.origin.run, self.origin.step, self.origin.attempt)
        return (
            self.id,
            self.pod_name,
            self.project_name,
            self.case_name,
            texts["installer"],
            texts["version"],
            texts["scenario"],
            texts["build_tag"],
            texts["criteria"],
            texts["start_date"],
            texts["stop_date"],
            self.start_at,
            self.stop_at,
            self.trust_indicator,
            0 if self.details is None else len(self.details.encode()),
            self.owner_group,
            self.details,
            *origin,
        )


TEXTS = ("installer", "version", "scenario", "build_tag", "criteria")
NAMES = ("pod_name", "project_name", "case_name")
KNOWN = KEPT | {*NAMES, *TEXTS, "start_date", "stop_date", "trust_indicator", "details"}


def read_result(
    body: Mapping[str, Any],
    now: datetime,
    zone: tzinfo,
    dropped: Dropped,
    *,
    group: str | None = None,
    origin: ResultOrigin | None = None,
    id_: str | None = None,
) -> NewResult:
    """The result in a body; ``id_`` None: it gets a new ``_id``. Raises 400 for names only."""
    pod, project, case = (name_sent(body, key, dropped) for key in NAMES)
    project_name_of({"project_name": project}, "project_name")
    texts = {key: text_sent(body, key, dropped) for key in TEXTS}
    texts |= {key: date_sent(body, key, dropped) for key in ("start_date", "stop_date")}
    details = body.get("details")
    drop_unknown(body, KNOWN, dropped)
    start, stop = (read_date(texts[key], zone) for key in ("start_date", "stop_date"))
    start_at, stop_at = counted_at(start, stop, arrival_of(id_, now))
    return NewResult(
        id=id_ or new_record_id(now),
        pod_name=pod,
        project_name=project,
        case_name=case,
        texts=texts,
        start_at=start_at,
        stop_at=stop_at,
        trust_indicator=trust_sent(body, dropped),
        details=None if details is None else dump(details),
        owner_group=group,
        origin=origin,
    )


def counted_at(start: datetime | None, stop: datetime | None, arrival: datetime) -> tuple[datetime, datetime]:
    """The moments by which a result is found and put in order. One that starts more than AHEAD of its arrival counts
    as started then, and takes as long as its dates say.
    """
    if start is not None and start > arrival + AHEAD:
        return arrival, NEVER if stop is None or stop < start else arrival + (stop - start)
    if stop is not None and stop > arrival + AHEAD:
        stop = None
    return start or NEVER, stop or NEVER


def arrival_of(id_: str | None, now: datetime) -> datetime:
    """When a result came: an ``_id`` that it brings along begins with the seconds of its first arrival."""
    first = now if id_ is None else datetime.fromtimestamp(int(id_[:8], 16), UTC)
    return first if first < now and first.year >= FIRST_YEAR else now


Shown = dict[str, Any]
"""A result as clients see it, for ``orjson``; its details are the stored JSON text, not parsed."""


def view_of(row: Any) -> Shown:
    """The result in a row of SELECT."""
    shown = dict(row)
    details = shown["details"]
    if details is not None:
        shown["details"] = orjson.Fragment(details)
    return shown


async def what_is_unknown(engine: AsyncEngine, result: NewResult) -> ProctorError:
    """404 for the pod, project or test case of a result, whichever does not exist."""
    async with session(engine) as connection:
        row = await connection.fetchrow(
            "SELECT EXISTS (SELECT FROM catalog.pods WHERE name = $1) AS pod,"
            " EXISTS (SELECT FROM catalog.projects WHERE name = $2) AS project",
            result.pod_name,
            result.project_name,
        )
    if not row["pod"]:
        return unknown("pod", result.pod_name)
    if not row["project"]:
        return unknown("project", result.project_name)
    return unknown("test case of this project", f"{result.project_name}/{result.case_name}")


class Results:
    """Raises the errors of ``faults``, and ``database_unavailable``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, result: NewResult) -> None:
        """Store one. Raises 404 for an unknown pod, project or test case."""
        try:
            async with session(self._engine) as connection:
                await connection.execute(INSERT, *result.arguments)
        except asyncpg.ForeignKeyViolationError:
            raise await what_is_unknown(self._engine, result) from None

    async def get(self, id_: str, groups: list[str] | None) -> bytes:
        """The JSON of one. Raises 404, also for a malformed id."""
        if is_record_id(id_):
            query = ResultQuery(equal=(("id", id_),), groups=None if groups is None else tuple(groups))
            where, values = query.where()
            async with session(self._engine) as connection:
                row = await connection.fetchrow(f"{SELECT} WHERE {where}", *values)
            if row is not None:
                return orjson.dumps(view_of(row))
        raise unknown("result", id_)

    async def page(self, query: ResultQuery) -> tuple[list[Shown], int]:
        """The rows of page ``query.page`` and the number of pages. Raises 400 for a page beyond the last."""
        page = query.page or 1
        async with session(self._engine) as connection:
            total = await count(connection, query)
            pages = -(-total // PAGE)
            if page > max(1, pages):
                raise bad(f"page {page} is beyond the last one, {pages}")
            where, values = query.where()
            # The ids come from an index only, so that a late page does not read the rows of earlier ones.
            ids = f"(SELECT id FROM catalog.results WHERE {where} ORDER BY {query.order}"
            slice_ = f"OFFSET {(page - 1) * PAGE} LIMIT {max(0, min(PAGE, total - (page - 1) * PAGE))})"
            rows = await connection.fetch(f"{SELECT} WHERE id IN {ids} {slice_} ORDER BY {query.order}", *values)
        return [view_of(row) for row in rows], pages


async def count(connection: Session, query: ResultQuery) -> int:
    """The number of results of a query, at most ``query.last`` if that is not 0."""
    where, values = query.where()
    if query.last:
        bounded = f"(SELECT FROM catalog.results WHERE {where} LIMIT {query.last}) AS bounded"
        return int(await connection.fetchval(f"{_COUNT} {bounded}", *values))
    return int(await connection.fetchval(f"{_COUNT} catalog.results WHERE {where}", *values))
