"""The recorder: what a plan asks to ``record`` becomes a result exactly once.

The controller keeps a row for each finished step to record until the api confirms it. If a process dies in between, the
row is asked for again; the result's key (run, step, attempt) makes a second insert do nothing. A record that cannot be
stored (an unknown pod without ``declare``, a value of the wrong type) is kept as a rejection with the reason, and
confirmed too, so that it does not block those behind it.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any
from urllib.parse import quote

import asyncpg
import structlog
from pydantic_core import to_json

from proctor_api.catalog.dates import creation_date, read_date
from proctor_api.catalog.faults import bad
from proctor_api.catalog.fields import new_record_id
from proctor_api.catalog.rejections import Rejections
from proctor_api.catalog.results import INSERT, NewResult, ResultOrigin, read_result, what_is_unknown
from proctor_api.catalog.sent import Dropped
from proctor_api.context import ApiContext
from proctor_api.controller_client import SELF
from proctor_api.settings import ApiSettings
from proctor_common import subjects
from proctor_common.bus import Message
from proctor_common.errors import Code, ProctorError
from proctor_common.messages.calls.runs import CONFIRM_RECORDS, LIST_PENDING_RECORDS, RecordsConfirm, RecordsPending
from proctor_common.messages.views import RecordView
from proctor_common.pg import Session, changing

log = structlog.get_logger(__name__)

EVERY = 30.0
"""Seconds after which the controllers are asked without a notification."""
AT_ONCE = 100
REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""Errors of the database about a value: a repetition would fail again."""
NAMES = {"project": "project_name", "case": "case_name", "pod": "pod_name"}
TEXTS = ("installer", "version", "scenario", "build_tag", "criteria")


class Recorder:
    """Takes records from the controllers and stores results. Each api process runs one."""

    def __init__(self, context: ApiContext) -> None:
        self._engine = context.engine
        self._bus = context.bus
        self._controllers = context.controllers
        self._settings = context.settings
        self._clock = context.clock
        self._figures = context.figures
        self._told = asyncio.Event()
        self.rejections = Rejections(context.engine)

    async def start(self) -> None:
        """Subscribe. Raises BusError."""
        await self._bus.subscribe(subjects.records(), self._on_told)

    def _on_told(self, message: Message) -> None:
        self._told.set()

    async def run(self) -> None:
        """Take all pending records, then wait for a notification or EVERY seconds; runs until cancelled."""
        while True:
            self._told.clear()
            try:
                while await self.take():
                    pass
            except ProctorError as fault:
                log.warning("records_not_taken", error=fault.message)
            except Exception:
                # The records are still pending, and an error here must not end the api.
                log.exception("records_not_taken")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._told.wait()

    async def take(self) -> bool:
        """Store and confirm one page. Returns whether there may be more. Raises ProctorError."""
        page = await self._controllers.ask(LIST_PENDING_RECORDS, SELF, RecordsPending(limit=AT_ONCE))
        for item in page.items:
            await self.store(item)
        if page.items:
            await self._controllers.ask_encoded(
                CONFIRM_RECORDS, SELF, RecordsConfirm(ids=[item.id for item in page.items])
            )
        return page.next is not None and bool(page.items)

    async def store(self, item: RecordView) -> bool:
        """Store one record. Returns whether it is a result now; else it is kept as a rejection.

        Raises ProctorError if the database is unavailable.
        """
        try:
            await self._store_result(item)
        except ProctorError as fault:
            if fault.status >= 500:
                raise
            await self._reject(item, fault.message)
            return False
        except REFUSED as fault:
            await self._reject(item, f"the database refuses it: {type(fault).__name__}")
            return False
        self._figures.recorded.inc()
        return True

    async def _store_result(self, item: RecordView) -> None:
        now = self._clock.now()
        body = body_of(item, self._settings)
        origin = ResultOrigin(item.run, item.step, item.attempt)
        dropped = Dropped()
        result = read_result(body, now, self._settings.zone, dropped, group=item.group, origin=origin)
        if dropped.names:
            # Nothing is lost by a refusal here: the record is kept, with the reason, until it is tried again.
            raise bad(f"cannot be stored as it is: {', '.join(dropped.names)}")
        declared = (item.body or {}).get("declare") is True
        try:
            async with changing(self._engine) as connection:
                if declared:
                    await self._declare(connection, result)
                await connection.execute(f"{INSERT} ON CONFLICT DO NOTHING", *result.arguments)
                await self.rejections.settle(connection, item)
        except asyncpg.ForeignKeyViolationError:
            raise await what_is_unknown(self._engine, result) from None

    async def _declare(self, connection: Session, result: NewResult) -> None:
        """Insert pod, project and test case if they are missing."""
        now = self._clock.now()
        date = creation_date(now, self._settings.zone)
        for table, name in (("pods", result.pod_name), ("projects", result.project_name)):
            await connection.execute(
                f"INSERT INTO catalog.{table} (id, name, body, creation_date) VALUES ($1, $2, '{{}}', $3)"
                " ON CONFLICT DO NOTHING",
                new_record_id(now),
                name,
                date,
            )
        await connection.execute(
            "INSERT INTO catalog.cases (id, project_name, name, body, creation_date) VALUES ($1, $2, $3, '{}', $4)"
            " ON CONFLICT DO NOTHING",
            new_record_id(now),
            result.project_name,
            result.case_name,
            date,
        )

    async def _reject(self, item: RecordView, reason: str) -> None:
        if await self.rejections.add(item, reason):
            self._figures.rejected.inc()
            log.warning("record_rejected", run=item.run, step=item.step_name, attempt=item.attempt, reason=reason)


def body_of(item: RecordView, settings: ApiSettings) -> dict[str, Any]:
    """A record as the body of ``POST /api/v1/results``. Raises 400, or 413 for one that was too large to send."""
    record = item.body
    if record is None:
        raise ProctorError(Code.TOO_LARGE, "the record is too large")
    body: dict[str, Any] = {NAMES[key]: _text(key, record.get(key)) for key in NAMES}
    body |= {key: _text(key, record.get(key)) for key in TEXTS}
    for key in ("start_date", "stop_date"):
        moment = read_date(_text(key, record.get(key)), UTC)
        body[key] = None if moment is None else moment.astimezone(settings.zone).strftime("%Y-%m-%d %H:%M:%S")
    body["trust_indicator"] = record.get("trust_indicator")
    body["details"] = details_of(item, record.get("details"), settings.link_base)
    return body


def details_of(item: RecordView, given: Any, link_base: str) -> dict[str, Any]:
    """The origin of a result merged with the plan's ``details``. Details that are not an object, or have members with
    the same names, are put whole under ``details``.
    """
    path = f"/v1/runs/{item.run}/logs?step={quote(item.step_name, safe='')}"
    origin: dict[str, Any] = {
        "run": item.run,
        "run_number": item.run_number,
        "step": item.step_name,
        "attempt": item.attempt,
        "host": item.host,
        "volume": item.volume,
        "log": f"{link_base}{path}",
    }
    if given is None:
        return origin
    given = _readable(given)
    if isinstance(given, Mapping) and not origin.keys() & given.keys():
        return {**origin, **given}
    return {**origin, "details": given}


def _readable(value: Any) -> Any:
    """The value with U+FFFD for each NUL, which PostgreSQL cannot store."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_readable(key): _readable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_readable(member) for member in value]
    return value


def _text(key: str, value: Any) -> str | None:
    """The value as text: an expression may give a number instead. Raises 400 for lists and objects."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return to_json(value).decode()
    raise bad(f"{key} must be a text")
