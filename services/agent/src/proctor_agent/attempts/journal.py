"""The agent's record of attempts: SQLite on disk, in one thread of its own.

What an answer or a start depends on is committed with an fsync (WAL, synchronous=FULL) before the answer is given.
Process groups, which only help to clean up, go over a second connection without fsync (synchronous=NORMAL: it survives
the process, not a power cut). Calls that wait at the same time share a commit. Parameters and secrets are never stored,
only a hash of the parameters.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from proctor_agent.attempt import ProcessGroup
from proctor_common.messages.events import StepFinished
from proctor_common.messages.orders import StartAnswer, StartOrder, StartReply

log = structlog.get_logger(__name__)

RESERVE_BYTES = 64 * 1024 * 1024
KEEP_S = 24 * 3600.0
"""How long confirmed ends and tombstones are remembered: longer than any order can be on its way."""
SOON_S = 0.05
"""A process group is written when its command has run for so long; shorter commands leave nothing to write."""
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    step TEXT NOT NULL, attempt INTEGER NOT NULL, token TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'ended', 'confirmed', 'tombstone')),
    run TEXT NOT NULL, answer TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    target TEXT, plugin TEXT NOT NULL DEFAULT '', method TEXT NOT NULL DEFAULT '', parameters TEXT NOT NULL DEFAULT '',
    started REAL, finish BLOB, changed REAL NOT NULL,
    PRIMARY KEY (step, attempt)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_changed ON attempts (state, changed);
CREATE TABLE IF NOT EXISTS process_groups (
    step TEXT NOT NULL, attempt INTEGER NOT NULL, target TEXT NOT NULL, pgid INTEGER NOT NULL, started INTEGER NOT NULL,
    PRIMARY KEY (step, attempt, target, pgid, started)
) WITHOUT ROWID;
"""


class JournalFullError(Exception):
    """The disk has no room for the journal: nothing was written; take no new work."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal knows of one attempt. ``state``: accepted, ended, confirmed or tombstone."""

    run: str
    step: str
    attempt: int
    token: str
    state: str
    reply: StartReply
    target: str | None
    started: float | None
    finish: StepFinished | None


def parameters_hash(order: StartOrder) -> str:
    """SHA-256 of the order's parameters as canonical JSON."""
    text = json.dumps(order.parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Call:
    work: Callable[[sqlite3.Connection], Any]
    durable: bool
    done: "asyncio.Future[Any] | None"
    """None: nobody waits for it."""


class Journal:
    """One database file; open it before use, close it at the end. Methods belong to one event loop."""

    def __init__(self, path: Path, *, reserve: int = RESERVE_BYTES, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._reserve = path.with_suffix(".reserve")
        self._reserve_bytes = reserve
        self._wall = wall
        self._calls: queue.SimpleQueue[list[_Call] | None] = queue.SimpleQueue()
        self._later: dict[tuple[str, int], list[_Call]] = {}
        """Goes to the thread with the next call: each time it is woken costs the loop a turn."""
        self._soon: dict[tuple[str, int, ProcessGroup], asyncio.TimerHandle] = {}
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_prune = 0.0

    async def open(self) -> None:
        """Open or create the file (0600). Raises OSError or sqlite3.Error."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await self._ask(lambda _: None)

    async def close(self) -> None:
        """Write what waits and end the thread."""
        self._write_groups()
        self._put()
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join, 10)

    # -- attempts -------------------------------------------------------------------------------------------------

    async def accept(self, order: StartOrder, verdict: StartReply) -> tuple[StartReply, bool]:
        """Answer a start order: a known attempt gets its stored answer, a new one ``verdict``, which is stored first
        (except ``busy``). True: the attempt was accepted by this call and must be run. Raises JournalFullError.
        """
        accepted = verdict.answer is StartAnswer.ACCEPTED

        def work(db: sqlite3.Connection) -> tuple[StartReply, bool]:
            known = _find(db, order.step, order.attempt)
            if known is not None:
                same = known.token == order.token
                return (known.reply if same else StartReply(answer=StartAnswer.STALE)), False
            if verdict.answer is StartAnswer.BUSY:
                return verdict, False
            if accepted and not self._has_reserve():
                raise JournalFullError("no room for the journal")
            now = self._wall()
            db.execute(
                "INSERT INTO attempts (step, attempt, token, state, run, answer, reason, target, plugin, method,"
                " parameters, started, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (order.step, order.attempt, order.token, "accepted" if accepted else "tombstone", order.run,
                 verdict.answer.value, verdict.reason, order.target, order.plugin, order.method,
                 parameters_hash(order), now, now),
            )  # fmt: skip
            return verdict, accepted

        return await self._ask(work)

    async def find_or_tombstone(self, run: str, step: str, attempt: int, token: str) -> Entry:
        """What is known of an attempt; if it is unknown, a tombstone is written first: it will never start."""

        def work(db: sqlite3.Connection) -> Entry:
            known = _find(db, step, attempt)
            if known is not None:
                return known
            db.execute(
                "INSERT INTO attempts (step, attempt, token, state, run, answer, changed) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (step, attempt, token, "tombstone", run, StartAnswer.TOMBSTONED.value, self._wall()),
            )
            written = _find(db, step, attempt)
            assert written is not None
            return written

        return await self._ask(work)

    async def end(self, finish: StepFinished) -> None:
        """Keep the end of an attempt until it is confirmed; its process groups are forgotten."""
        self._later.pop((finish.step, finish.attempt), None)
        for key in [key for key in self._soon if key[:2] == (finish.step, finish.attempt)]:
            self._soon.pop(key).cancel()

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE attempts SET state = 'ended', finish = ?, changed = ?"
                " WHERE step = ? AND attempt = ? AND token = ? AND state = 'accepted'",
                (finish.encode(), self._wall(), finish.step, finish.attempt, finish.token),
            )
            db.execute("DELETE FROM process_groups WHERE step = ? AND attempt = ?", (finish.step, finish.attempt))

        await self._ask(work)

    async def confirm(self, ends: list[tuple[str, int]]) -> None:
        """The controller has committed these ends (step, attempt): drop their bodies. Not fsynced: if a confirmation is
        lost, the end is only sent once more.
        """

        def work(db: sqlite3.Connection) -> None:
            now = self._wall()
            db.executemany(
                "UPDATE attempts SET state = 'confirmed', finish = NULL, changed = ?"
                " WHERE step = ? AND attempt = ? AND state = 'ended'",
                [(now, step, attempt) for step, attempt in ends],
            )
            if now - self._last_prune > KEEP_S / 24:
                self._last_prune = now
                db.execute(
                    "DELETE FROM attempts WHERE state IN ('confirmed', 'tombstone') AND changed < ?", (now - KEEP_S,)
                )

        await self._ask(work, durable=False)

    async def unfinished(self) -> list[Entry]:
        """What a former process left: attempts that were accepted, or have ended, and are not confirmed."""

        def work(db: sqlite3.Connection) -> list[Entry]:
            rows = db.execute(f"{_SELECT} WHERE state IN ('accepted', 'ended') ORDER BY changed").fetchall()
            return [_entry(row) for row in rows]

        return await self._ask(work, durable=False)

    # -- process groups -------------------------------------------------------------------------------------------

    def group_started(self, step: str, attempt: int, group: ProcessGroup) -> None:
        """Record a process group on a target, soon; nobody waits for it. A process killed before that is found by its
        marker.
        """
        assert self._loop is not None, "the journal is not open"
        key = (step, attempt, group)
        if key not in self._soon:
            self._soon[key] = self._loop.call_later(SOON_S, self._write_group, key)

    def _write_group(self, key: tuple[str, int, ProcessGroup]) -> None:
        self._soon.pop(key).cancel()
        step, attempt, group = key
        row = (step, attempt, group.target, group.pgid, group.started)
        sql = "INSERT OR IGNORE INTO process_groups VALUES (?, ?, ?, ?, ?)"
        self._put(_Call(lambda db: db.execute(sql, row), durable=False, done=None))

    def _write_groups(self) -> None:
        for key in list(self._soon):
            self._write_group(key)

    def group_ended(self, step: str, attempt: int, group: ProcessGroup) -> None:
        """Forget a process group, with the next call at the latest. Its start time tells it from a later one."""
        timer = self._soon.pop((step, attempt, group), None)
        if timer is not None:
            timer.cancel()
            return
        row = (step, attempt, group.target, group.pgid, group.started)
        sql = "DELETE FROM process_groups WHERE step = ? AND attempt = ? AND target = ? AND pgid = ? AND started = ?"
        self._later.setdefault((step, attempt), []).append(_Call(lambda db: db.execute(sql, row), False, None))

    async def groups(self, step: str, attempt: int) -> list[ProcessGroup]:
        """The recorded process groups of an attempt."""
        self._write_groups()

        def work(db: sqlite3.Connection) -> list[ProcessGroup]:
            sql = "SELECT target, pgid, started FROM process_groups WHERE step = ? AND attempt = ?"
            return [ProcessGroup(*row) for row in db.execute(sql, (step, attempt))]

        return await self._ask(work, durable=False)

    # -- the thread -----------------------------------------------------------------------------------------------

    async def _ask(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        assert self._loop is not None, "the journal is not open"
        done: asyncio.Future[T] = self._loop.create_future()
        self._put(_Call(work, durable, done))
        # The work is done even if the caller was cancelled.
        return await asyncio.shield(done)

    def _put(self, *last: _Call) -> None:
        calls = [each for later in self._later.values() for each in later]
        self._later.clear()
        self._calls.put([*calls, *last])

    def _serve(self) -> None:
        """The thread: open the file, then take the calls that wait, commit them together, answer them."""
        first = self._calls.get()
        if first is None:
            return
        try:
            durable, quick = self._connect("FULL"), self._connect("NORMAL")
            self._has_reserve()
        except (OSError, sqlite3.Error) as fault:
            self._answer([(first[-1], None, fault)])
            return
        self._answer([(first[-1], None, None)])
        ending = False
        while not ending:
            waiting = [self._calls.get()]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < 64:
                    waiting.append(self._calls.get_nowait())
            ending = None in waiting
            batch = [call for calls in waiting if calls is not None for call in calls]
            answers = []
            for db, wanted in ((quick, False), (durable, True)):
                mine = [call for call in batch if call.durable is wanted]
                if mine:
                    answers.extend(self._commit(db, mine))
            self._answer(answers)
        durable.close()
        quick.close()

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        if not self._path.exists():
            self._path.touch(mode=0o600)
        db = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.executescript(_SCHEMA)
        return db

    def _commit(self, db: sqlite3.Connection, calls: list[_Call]) -> list[tuple[_Call, Any, BaseException | None]]:
        """Commit all in one transaction; if that fails, one by one."""
        try:
            db.execute("BEGIN IMMEDIATE")
            results: list[tuple[_Call, Any, BaseException | None]] = [(call, call.work(db), None) for call in calls]
            db.execute("COMMIT")
        except Exception as fault:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if len(calls) > 1:
                return [answer for call in calls for answer in self._commit(db, [call])]
            if _is_full(fault) and self._reserve.exists():
                # Use the reserve: running attempts can still be ended.
                log.error("journal_uses_its_reserve")
                self._reserve.unlink(missing_ok=True)
                return self._commit(db, calls)
            return [(calls[0], None, JournalFullError(str(fault)) if _is_full(fault) else fault)]
        return results

    def _has_reserve(self) -> bool:
        """Whether the reserve is there; it is made again if possible."""
        if self._reserve.exists():
            return True
        try:
            file = os.open(self._reserve, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(file, 0, self._reserve_bytes)
            finally:
                os.close(file)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            return False
        return True

    def _answer(self, answers: list[tuple[_Call, Any, BaseException | None]]) -> None:
        assert self._loop is not None

        def deliver() -> None:
            for call, value, fault in answers:
                if call.done is None and fault is not None:
                    log.warning("journal_note_lost", error=str(fault))
                if call.done is None or call.done.done():
                    continue
                if fault is not None:
                    call.done.set_exception(fault)
                else:
                    call.done.set_result(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(deliver)


_SELECT = "SELECT run, step, attempt, token, state, answer, reason, target, started, finish FROM attempts"


def _is_full(fault: BaseException) -> bool:
    return isinstance(fault, sqlite3.OperationalError) and (
        getattr(fault, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE"))
        or "disk is full" in str(fault)
    )


def _find(db: sqlite3.Connection, step: str, attempt: int) -> Entry | None:
    row = db.execute(f"{_SELECT} WHERE step = ? AND attempt = ?", (step, attempt)).fetchone()
    return None if row is None else _entry(row)


def _entry(row: tuple[Any, ...]) -> Entry:
    run, step, attempt, token, state, answer, reason, target, started, finish = row
    return Entry(
        run=run,
        step=step,
        attempt=attempt,
        token=token,
        state=state,
        reply=StartReply(answer=StartAnswer(answer), reason=reason),
        target=target,
        started=started,
        finish=None if finish is None else StepFinished.model_validate_json(finish),
    )
