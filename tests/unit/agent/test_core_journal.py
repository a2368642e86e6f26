"""The journal: what it answers survives a crash, an attempt is accepted once, and a full disk takes no new work."""

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proctor_agent.attempt import ProcessGroup
from proctor_agent.attempts.journal import KEEP_S, Journal, JournalFullError
from proctor_common.messages.events import StepFinished
from proctor_common.messages.orders import StartAnswer, StartOrder, StartReply
from proctor_common.states import StepResult
from support.wait import eventually

ACCEPT = StartReply(answer=StartAnswer.ACCEPTED)
BUSY = StartReply(answer=StartAnswer.BUSY, reason="full")
EXPIRED = StartReply(answer=StartAnswer.EXPIRED, reason="late")
RESERVE = 1024 * 1024


def order(step: str = "s1", attempt: int = 1, token: str = "t1", **about: Any) -> StartOrder:
    return StartOrder(
        run="r1", run_number=1, step=step, step_name="x", attempt=attempt, token=token,
        not_after=datetime(2030, 1, 1, tzinfo=UTC), plugin="p", method="m", **about,
    )  # fmt: skip


def end(step: str = "s1", token: str = "t1") -> StepFinished:
    return StepFinished(
        run="r1", step=step, attempt=1, token=token, result=StepResult.PASSED, chunks=3, lines=2, bytes=9
    )


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(folder: Path, wall: Wall | None = None) -> AsyncIterator[Journal]:
    journal = Journal(folder / "journal.db", reserve=RESERVE, wall=wall or Wall())
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


def read_all(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_a_known_attempt_gets_its_stored_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        assert await journal.accept(order(), ACCEPT) == (ACCEPT, True)
        assert await journal.accept(order(), ACCEPT) == (ACCEPT, False)
        # Whatever the agent would say by now: it runs, or has run.
        assert await journal.accept(order(), BUSY) == (ACCEPT, False)
        assert await journal.accept(order(), EXPIRED) == (ACCEPT, False)
        assert (await journal.accept(order(token="other"), ACCEPT))[0].answer is StartAnswer.STALE
        assert await journal.accept(order(attempt=2, token="t2"), ACCEPT) == (ACCEPT, True)
    async with opened(tmp_path) as journal:
        assert await journal.accept(order(), ACCEPT) == (ACCEPT, False)


async def test_of_copies_that_come_at_once_one_is_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        answers = await asyncio.gather(*(journal.accept(order(), ACCEPT) for _ in range(20)))
    assert [fresh for _, fresh in answers].count(True) == 1
    assert {reply.answer for reply, _ in answers} == {StartAnswer.ACCEPTED}


async def test_busy_is_not_stored_and_expired_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        assert await journal.accept(order(), BUSY) == (BUSY, False)
        assert await journal.accept(order(), EXPIRED) == (EXPIRED, False)
        assert await journal.accept(order(), ACCEPT) == (EXPIRED, False)


async def test_asking_for_an_unknown_attempt_writes_a_tombstone(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        assert (await journal.find_or_tombstone("r1", "s1", 1, "t1")).state == "tombstone"
    async with opened(tmp_path) as journal:
        reply, fresh = await journal.accept(order(), ACCEPT)
        assert (reply.answer, fresh) == (StartAnswer.TOMBSTONED, False)


async def test_an_end_is_kept_until_it_is_confirmed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.accept(order(), ACCEPT)
        await journal.accept(order("s2"), ACCEPT)
        await journal.end(end())
        await journal.end(end("s2", token="not mine"))
    async with opened(tmp_path) as journal:
        left = {entry.step: entry for entry in await journal.unfinished()}
        assert left["s1"].finish == end()
        assert (left["s2"].state, left["s2"].finish) == ("accepted", None)
        await journal.confirm([("s1", 1), ("s2", 1), ("unknown", 7)])
        assert [entry.step for entry in await journal.unfinished()] == ["s2"]
        assert (await journal.find_or_tombstone("r1", "s1", 1, "t1")).state == "confirmed"
        assert await journal.accept(order(), ACCEPT) == (ACCEPT, False)


async def test_process_groups_are_remembered_until_the_end(tmp_path: Path) -> None:
    first, second = ProcessGroup("lab", 100, 5555), ProcessGroup("lab", 101, 6666)
    async with opened(tmp_path) as journal:
        await journal.accept(order(), ACCEPT)
        for group in (first, second, second):
            journal.group_started("s1", 1, group)
        journal.group_ended("s1", 1, first)
    async with opened(tmp_path) as journal:
        assert await journal.groups("s1", 1) == [second]
        assert await journal.groups("s1", 2) == []
        await journal.end(end())
        assert await journal.groups("s1", 1) == []


async def test_a_process_group_is_on_disk_soon_unless_it_has_ended_before(tmp_path: Path) -> None:
    short, long = ProcessGroup("lab", 100, 5555), ProcessGroup("lab", 101, 6666)
    async with opened(tmp_path) as journal:
        await journal.accept(order(), ACCEPT)
        journal.group_started("s1", 1, short)
        journal.group_ended("s1", 1, short)
        journal.group_started("s1", 1, long)
        beside = sqlite3.connect(tmp_path / "journal.db")
        await eventually(lambda: beside.execute("SELECT pgid FROM process_groups").fetchall() == [(101,)])
        assert not journal._soon


async def test_old_confirmed_ends_and_tombstones_are_forgotten(tmp_path: Path) -> None:
    wall = Wall()
    async with opened(tmp_path, wall) as journal:
        await journal.find_or_tombstone("r1", "dead", 1, "t1")
        for step in ("s1", "s2", "s3"):
            await journal.accept(order(step), ACCEPT)
        await journal.end(end("s1"))
        await journal.confirm([("s1", 1)])
        wall.now += KEEP_S + 1
        await journal.end(end("s2"))
        await journal.confirm([("s2", 1)])
    rows = sqlite3.connect(tmp_path / "journal.db").execute("SELECT step FROM attempts ORDER BY step").fetchall()
    assert rows == [("s2",), ("s3",)]


async def test_parameters_and_secrets_do_not_come_to_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        given = order(
            parameters={"password": "hunter2-hunter2"}, secrets=["hunter2-hunter2"], env={"P": "hunter2-hunter2"}
        )
        await journal.accept(given, ACCEPT)
        on_disk = read_all(tmp_path)
    assert b"hunter2" not in on_disk
    assert (tmp_path / "journal.db").stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_takes_no_new_work_but_every_end(tmp_path: Path) -> None:
    """The limit on file sizes stands in for the full disk."""
    async with opened(tmp_path) as journal:
        await journal.accept(order(), ACCEPT)
        assert (tmp_path / "journal.reserve").stat().st_size == RESERVE
        (tmp_path / "journal.reserve").unlink()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVE - 1, before[1]))
        try:
            with pytest.raises(JournalFullError):
                await journal.accept(order("s2"), ACCEPT)
            await journal.end(end())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert await journal.accept(order("s2"), ACCEPT) == (ACCEPT, True)
        assert (tmp_path / "journal.reserve").stat().st_size == RESERVE


async def test_a_journal_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"this is no database at all, but it is long enough" * 10)
    with pytest.raises(sqlite3.DatabaseError):
        async with opened(tmp_path):
            pass
