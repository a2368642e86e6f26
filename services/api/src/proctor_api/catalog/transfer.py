"""Import of results as NDJSON, in batches. A line that cannot be stored is reported and does not stop the others."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_api.catalog.dates import creation_date
from proctor_api.catalog.fields import is_record_id, new_record_id, object_of
from proctor_api.catalog.results import COLUMN_TYPES, NewResult, read_result
from proctor_api.catalog.sent import MOST_NAMES, Dropped, bare
from proctor_common.clock import Clock
from proctor_common.errors import Code, ProctorError
from proctor_common.pg import Session, changing, session

BATCH_ROWS = 500
BATCH_BYTES = 4 * 1024 * 1024
MOST_FAULTS = 100

_NAMES = ", ".join(name for name, _ in COLUMN_TYPES)
_ARRAYS = ", ".join(f"${place}::{kind}[]" for place, (_, kind) in enumerate(COLUMN_TYPES, 1))
_VALUES = ", ".join("details::json" if name == "details" else name for name, _ in COLUMN_TYPES)
_INSERT_MANY = (
    f"INSERT INTO catalog.results ({_NAMES}) SELECT {_VALUES} FROM unnest({_ARRAYS}) AS u({_NAMES})"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_KNOWN_PODS = "SELECT name FROM catalog.pods WHERE name = ANY($1::text[])"
_KNOWN_CASES = """
SELECT project_name, name FROM catalog.cases
WHERE (project_name, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
_DECLARE = """
INSERT INTO catalog.{table} (id, name, body, creation_date)
SELECT id, name, '{{}}', $3 FROM unnest($1::text[], $2::text[]) AS u(id, name) ON CONFLICT DO NOTHING
"""
_DECLARE_CASES = """
INSERT INTO catalog.cases (id, project_name, name, body, creation_date)
SELECT id, project, name, '{}', $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS u(id, project, name)
ON CONFLICT DO NOTHING
"""


@dataclass(slots=True)
class ImportReport:
    """The number of lines stored and refused so far."""

    stored: int = 0
    known: int = 0
    """Lines whose ``_id`` existed; not stored again."""
    refused: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    """Of how many lines a member was dropped, by its name: the first MOST_NAMES."""

    def refuse(self, line: int, message: str) -> None:
        """Count a line that cannot be stored."""
        self.refused += 1
        if len(self.errors) < MOST_FAULTS:
            self.errors.append({"line": line, "message": message})

    def note(self, names: Iterable[str]) -> None:
        """Count what a line lost."""
        for name in names:
            if name in self.dropped or len(self.dropped) < MOST_NAMES:
                self.dropped[name] = self.dropped.get(name, 0) + 1

    def view(self) -> dict[str, Any]:
        """For users; ``dropped`` only where something was."""
        told = {"stored": self.stored, "known": self.known, "refused": self.refused, "errors": self.errors}
        return {**told, "dropped": self.dropped} if self.dropped else told


class Import:
    """Takes lines one by one and stores them in batches.

    Keeps a line's ``_id`` and skips one that exists, so that an interrupted import can be repeated.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock, zone: tzinfo, *, group: str | None, declare: bool) -> None:
        self._engine = engine
        self._clock = clock
        self._zone = zone
        self._group = group
        self._declare = declare
        self._waiting: list[tuple[int, NewResult]] = []
        self._size = 0
        self.report = ImportReport()

    async def add(self, line: int, value: Any, size: int, dropped: Dropped) -> None:
        """One line's JSON value, ``size`` bytes long. Raises ``database_unavailable``."""
        try:
            body = object_of(value)
            id_ = bare(body.get("_id"))
            result = read_result(
                body,
                self._clock.now(),
                self._zone,
                dropped,
                group=self._group,
                id_=id_ if isinstance(id_, str) and is_record_id(id_) else None,
            )
        except ProctorError as fault:
            self.report.refuse(line, fault.message)
            return
        self.report.note(dropped.names)
        self._waiting.append((line, result))
        self._size += size
        if len(self._waiting) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Store the lines that are waiting."""
        rows, self._waiting, self._size = self._waiting, [], 0
        if not rows:
            return
        if self._declare:
            await self._declare_missing([result for _, result in rows])
        rows = await self._known_only(rows)
        try:
            await self._store(rows)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError):
            for line, result in rows:
                await self._store_alone(line, result)

    async def _store_alone(self, line: int, result: NewResult) -> None:
        try:
            await self._store([(line, result)])
        except asyncpg.ForeignKeyViolationError:
            self.report.refuse(line, "its pod, project or test case was deleted meanwhile")
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError):
            self.report.refuse(line, "the database does not accept a value in it, such as a NUL character")

    async def _store(self, rows: Sequence[tuple[int, NewResult]]) -> None:
        if not rows:
            return
        columns = zip(*(result.arguments for _, result in rows), strict=True)
        async with session(self._engine) as connection:
            stored = await connection.fetch(_INSERT_MANY, *(list(column) for column in columns))
        self.report.stored += len(stored)
        self.report.known += len(rows) - len(stored)

    async def _known_only(self, rows: list[tuple[int, NewResult]]) -> list[tuple[int, NewResult]]:
        """The rows whose pod and test case exist; the others are refused."""
        async with session(self._engine) as connection:
            pods, cases = await _known(connection, [result for _, result in rows])
        kept = []
        for line, result in rows:
            if result.pod_name not in pods:
                self.report.refuse(line, f"no such pod: {result.pod_name}")
            elif (result.project_name, result.case_name) not in cases:
                self.report.refuse(line, f"no such project or test case: {result.project_name}/{result.case_name}")
            else:
                kept.append((line, result))
        return kept

    async def _declare_missing(self, results: list[NewResult]) -> None:
        now = self._clock.now()
        date = creation_date(now, self._zone)

        def ids(names: Iterable[Any]) -> list[str]:
            return [new_record_id(now) for _ in names]

        pods = sorted({result.pod_name for result in results})
        projects = sorted({result.project_name for result in results})
        cases = sorted({(result.project_name, result.case_name) for result in results})
        async with changing(self._engine) as connection:
            await connection.execute(_DECLARE.format(table="pods"), ids(pods), pods, date)
            await connection.execute(_DECLARE.format(table="projects"), ids(projects), projects, date)
            owners, names = [case[0] for case in cases], [case[1] for case in cases]
            await connection.execute(_DECLARE_CASES, ids(cases), owners, names, date)


async def _known(connection: Session, results: list[NewResult]) -> tuple[set[str], set[tuple[str, str]]]:
    pods = await connection.fetch(_KNOWN_PODS, list({result.pod_name for result in results}))
    wanted = {(result.project_name, result.case_name) for result in results}
    cases = await connection.fetch(_KNOWN_CASES, [case[0] for case in wanted], [case[1] for case in wanted])
    return {row["name"] for row in pods}, {(row["project_name"], row["name"]) for row in cases}


async def lines_of(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a stream that are not blank, with their numbers from 1. Raises 413 for one over ``limit`` bytes."""
    number = 1
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            line = b"".join([*parts, piece])
            parts, size = [], 0
            _check_size(number, len(line), limit)
            if line.strip():
                yield number, line
            number += 1
        if rest:
            parts.append(rest)
            size += len(rest)
            _check_size(number, size, limit)
    last = b"".join(parts)
    if last.strip():
        yield number, last


def _check_size(number: int, size: int, limit: int) -> None:
    if size > limit:
        message = f"line {number} is over the limit of {limit} bytes; the lines before it are stored"
        raise ProctorError(Code.TOO_LARGE, message, limit=limit, hang_up=True)
