"""The supervisor, on small real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from proctor_cli.local import supervisor as supervising
from proctor_cli.local.faults import GivenUp
from proctor_cli.local.processes import ChildSpec
from proctor_cli.local.supervisor import Care, ChildKeeper, ChildSupervisor, DeathCount
from support.processes import is_alive
from support.wait import eventually


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def _spec(folder: Path, script: str, name: str = "child", **how: float) -> ChildSpec:
    return ChildSpec(name, ("/bin/sh", "-c", script), folder / f"{name}.log", **how)  # type: ignore[arg-type]


async def _at_once(_: int) -> bool:
    return True


UP = Care(is_up=_at_once)


@asynccontextmanager
async def _supervisor() -> AsyncIterator[tuple[ChildSupervisor, Told]]:
    told = Told()
    supervisor = ChildSupervisor(told)
    try:
        yield supervisor, told
    finally:
        async with asyncio.timeout(10):
            await supervisor.stop()


async def _new_pid(keeper: ChildKeeper, former: int = 0) -> int:
    def found() -> int:
        child = keeper.child
        return child.pid if child and keeper.up.is_set() and child.pid != former else 0

    pid: int = await eventually(found, 5, "a new child that is up")
    return pid


async def test_a_child_that_dies_is_started_again_with_one_line(tmp_path: Path) -> None:
    async with _supervisor() as (supervisor, told):
        keeper = supervisor.add(_spec(tmp_path, "exec sleep 60"), UP, stop_after=0)
        first = await _new_pid(keeper)
        os.kill(first, signal.SIGKILL)
        second = await _new_pid(keeper, first)
        assert told.lines == [f"child died (SIGKILL) and is started again (pid {second})"]


@pytest.mark.parametrize("ending", ["kill -9 $$", "exit 0"])
async def test_three_deaths_within_a_minute_are_too_many(tmp_path: Path, ending: str) -> None:
    async with _supervisor() as (supervisor, told):
        supervisor.add(_spec(tmp_path, f"echo last words; {ending}"), UP, stop_after=0)
        with pytest.raises(GivenUp, match=r"child died three times within a minute[\s\S]*last words"):
            async with asyncio.timeout(10):
                await supervisor.failed()
        assert len(told.lines) == 2


def test_three_deaths_in_more_than_a_minute_are_not() -> None:
    count = DeathCount()
    assert [count.add(t) for t in (0, 59, 61, 100, 118, 119)] == [False, False, False, True, True, True]


async def test_a_failing_start_is_tried_again_and_counts_once(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"[ -e {flag} ] && exec sleep 60; exit 1"

    async def is_up(_: int) -> bool:
        return flag.exists()

    async with _supervisor() as (supervisor, told):
        keeper = supervisor.add(_spec(tmp_path, script), Care(is_up=is_up), stop_after=0)
        starts: set[int] = set()

        def several() -> bool:
            if keeper.child is not None:
                starts.add(keeper.child.pid)
            return len(starts) >= 5

        await eventually(several, 10, "five starts")
        flag.touch()
        await _new_pid(keeper)
        assert told.lines == ["child does not start (exit code 1); trying again for 30 s"]


async def test_a_start_that_goes_on_failing_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "START_PATIENCE", 0.5)
    async with _supervisor() as (supervisor, _):
        supervisor.add(_spec(tmp_path, "echo why >&2; exit 1"), Care(), stop_after=0)
        with pytest.raises(GivenUp, match=r"child does not start \(exit code 1\)[\s\S]*why"):
            async with asyncio.timeout(10):
                await supervisor.failed()


async def test_wrong_settings_are_not_tried_again(tmp_path: Path) -> None:
    async with _supervisor() as (supervisor, told):
        supervisor.add(_spec(tmp_path, "echo no such setting; exit 2"), Care(), stop_after=0)
        with pytest.raises(GivenUp, match=r"does not start \(exit code 2\)[\s\S]*no such setting"):
            async with asyncio.timeout(10):
                await supervisor.failed()
        assert told.lines == []


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with _supervisor() as (supervisor, _):
        supervisor.add(ChildSpec("ghost", ("/no/such/program",), tmp_path / "ghost.log"), UP, stop_after=0)
        with pytest.raises(GivenUp, match="cannot start ghost: No such file"):
            await supervisor.failed()


async def test_groups_are_stopped_in_order(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    async with _supervisor() as (supervisor, _):
        for name, order in (("last", 2), ("first", 0), ("middle", 1)):
            on_term = f"sleep 0.05; echo {name} >> {trail}; exit 0"
            script = f"trap '{on_term}' TERM; touch {tmp_path}/{name}; while :; do sleep 0.01; done"
            await _new_pid(supervisor.add(_spec(tmp_path, script, name), UP, stop_after=order))
            await eventually((tmp_path / name).exists, 5, "the shell to have set its trap")
        await supervisor.stop()
    assert trail.read_text().split() == ["first", "middle", "last"]


async def test_who_does_not_stop_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ > {pids}; wait; sleep 60"
    async with _supervisor() as (supervisor, told):
        await _new_pid(supervisor.add(_spec(tmp_path, script, grace=0.2), UP, stop_after=0))
        await eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2, 5, "the pids")
        await supervisor.stop()
        assert told.lines == ["child did not stop in 0.2 s and is killed"]
    for pid in pids.read_text().split():
        await eventually(lambda pid=pid: not is_alive(int(pid)), 5, f"the end of {pid}")  # type: ignore[misc]


async def test_a_child_dies_with_its_launcher(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from proctor_cli.local.processes import Child, ChildSpec
async def main():
    child = Child(ChildSpec("c", ("/bin/sleep", "60"), pathlib.Path("{tmp_path}/c.log")))
    print(child.pid, flush=True)
    await child.ended.wait()
asyncio.run(main())
"""
    launcher = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert launcher.stdout is not None
        pid = int(await asyncio.wait_for(launcher.stdout.readline(), 20))
        assert is_alive(pid)
        assert os.getsid(pid) == pid
        launcher.kill()
        await eventually(lambda: not is_alive(pid), 5, "the child's end")
    finally:
        with suppress(ProcessLookupError):
            launcher.kill()
        await launcher.wait()
