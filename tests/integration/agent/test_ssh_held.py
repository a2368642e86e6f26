"""Commands whose output something else still holds when they have ended."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proctor_agent.ssh import Command, Exit, end_tree
from proctor_agent.ssh import held as ssh_held
from support.processes import is_alive
from support.ssh_log import Printed, targets_for
from support.sshd import SshTarget
from support.wait import eventually

MARK = f"0190-held-{os.getpid()}.1"


class Lab:
    """A target, and the commands of one run on it."""

    def __init__(self, ssh: SshTarget) -> None:
        self.targets = targets_for(ssh)

    async def shell(self, text: str, *, run: str = "run-1", marker: str = MARK) -> tuple[Exit, Printed]:
        printed = Printed()
        command = Command(["/bin/sh", "-c", text], marker=marker, run=run)
        return await self.targets.run("lab", command, printed.write, printed.group_started), printed

    @property
    def held(self) -> int:
        return len(self.targets._endpoints["lab"].held._held)


@pytest.fixture
async def lab(ssh_target: SshTarget) -> AsyncIterator[Lab]:
    lab = Lab(ssh_target)
    yield lab
    await end_tree(lab.targets, "lab", [], MARK, 0.0)
    await lab.targets.close()


def _alive(printed: Printed) -> bool:
    return is_alive(int(printed.out.split()[0]))


@pytest.mark.parametrize(
    "text",
    [
        "sleep 120 & echo $! started",
        "(sleep 120) >/dev/null & echo $! started",
        "setsid sleep 120 2>/dev/null & echo $! started",
    ],
    ids=["both", "error", "output"],
)
async def test_a_command_ends_when_it_ends(lab: Lab, text: str) -> None:
    end, printed = await lab.shell(text)
    assert (end.code, end.held) == (0, True)
    assert end.duration_s < 1
    assert printed.out.endswith(b" started\n")
    assert b"still holds its output" in printed.system
    assert _alive(printed)


async def test_how_it_ended_is_told_whatever_holds_its_output(lab: Lab) -> None:
    end, _ = await lab.shell("sleep 120 & exit 3")
    assert (end.code, end.signal, end.held) == (3, None, True)
    end, _ = await lab.shell("sleep 120 & kill -KILL $$")
    assert (end.code, end.signal, end.held) == (None, "SIGKILL", True)


async def test_what_is_printed_right_after_the_end_is_kept(lab: Lab) -> None:
    end, printed = await lab.shell("(sleep 0.1; echo late; sleep 120) & head -c 300000 /dev/zero; echo end")
    assert end.held
    assert printed.out.count(b"\0") == 300_000
    assert printed.out.endswith(b"end\nlate\n")


async def test_a_command_is_not_waited_for_that_leaves_nothing(lab: Lab) -> None:
    end, printed = await lab.shell("sleep 120 >/dev/null 2>&1 & echo $!")
    assert not end.held
    assert printed.system == b""
    assert _alive(printed)
    assert lab.held == 0


async def test_a_server_that_goes_on_printing_lives_until_its_run_ends(lab: Lab) -> None:
    began = time.monotonic()
    end, printed = await lab.shell("(while :; do echo x; sleep 0.05; done) & echo $! started")
    assert (end.code, end.held) == (0, True)
    assert time.monotonic() - began < 4
    read = len(printed.out)
    # It prints more than any buffer between here and there takes.
    flood, flooding = await lab.shell("(head -c 40000000 /dev/zero; echo $$ >&2; sleep 120) & echo $!")
    assert flood.held
    await lab.shell("true")
    assert _alive(printed)
    assert lab.targets.held_runs == {"run-1"}
    lab.targets.end_runs(["run-2"])
    assert _alive(printed)
    lab.targets.end_runs(["run-1"])
    assert lab.held == 0
    await eventually(lambda: not _alive(printed), 10, "the printing server to meet its closed output")
    assert len(printed.out) == read, "what is printed after the end is not kept"
    assert _alive(flooding)


async def test_an_end_of_the_server_itself_lets_go(lab: Lab) -> None:
    _, printed = await lab.shell("sleep 120 & echo $!")
    assert lab.held == 1
    os.kill(int(printed.out), signal.SIGKILL)
    await eventually(lambda: lab.held == 0)
    assert not any(link.held for link in lab.targets._endpoints["lab"].pool._links)


async def test_the_oldest_is_closed_where_too_many_are_held(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_held, "MOST", 2)
    printing = "(while :; do echo x; sleep 0.05; done) 2>/dev/null & echo $!"
    _, first = await lab.shell(printing)
    _, second = await lab.shell("sleep 120 & echo $!", marker=MARK + "0")
    assert lab.held == 2
    _, third = await lab.shell("sleep 120 & echo $!")
    assert lab.held == 2
    assert f"the output of {MARK}, held for longest, is closed".encode() in third.system
    await eventually(lambda: not _alive(first), 10, "the first to meet its closed output")
    assert _alive(second)
    await end_tree(lab.targets, "lab", [], MARK + "0", 0.0)


async def test_the_end_of_its_attempt_ends_what_it_left(lab: Lab, tmp_path: Path) -> None:
    _, printed = await lab.shell("sleep 120 & echo $!")
    assert await end_tree(lab.targets, "lab", printed.groups, MARK, 1.0) is True
    assert not _alive(printed)
    await eventually(lambda: lab.held == 0)


async def test_a_slow_log_gets_all_that_came_before_the_end(lab: Lab) -> None:
    printed = Printed()

    async def slow(source: object, data: bytes) -> None:
        await asyncio.sleep(0.7)
        await printed.write(source, data)  # type: ignore[arg-type]

    command = Command(["/bin/sh", "-c", "head -c 3000000 /dev/zero; sleep 120 & exit 0"], marker=MARK, run="run-1")
    end = await lab.targets.run("lab", command, slow)
    assert end.held
    assert printed.out.count(b"\0") == 3_000_000
