"""The shell that waits on a target to be told its command, against OpenSSH's sshd."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest

from proctor_agent.ssh import Command, Targets, end_tree
from proctor_agent.ssh.command import MAX_HANDED
from support.processes import is_alive
from support.ssh_log import Printed, as_target
from support.sshd import SshTarget
from support.wait import eventually

WHO = ["sh", "-c", 'printf "%s %s" $$ "$PROCTOR_ATTEMPT"']


class Lab:
    """A target on which one command has run, so that a shell waits there for the next."""

    def __init__(self, target: SshTarget) -> None:
        self.targets = Targets({"lab": as_target(target)})

    async def run(self, command: Command) -> Printed:
        printed = Printed()
        end = await self.targets.run("lab", command, printed.write, printed.group_started)
        assert end.code == 0, printed.pieces
        return printed

    async def ready(self) -> int:
        """The process id of the shell that waits, once there is one that reads."""
        await eventually(lambda: self.targets._endpoints["lab"].waiting._ready is not None and len(self._shells()) == 1)
        (shell,) = self._shells()
        return shell

    def _shells(self) -> list[int]:
        return [process.pid for process in psutil.Process().children(recursive=True) if _waits(process)]


def _waits(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return words[:2] == ["/bin/sh", "-c"] and "_prv()" in words[2]


@pytest.fixture
async def lab(ssh_target: SshTarget) -> AsyncIterator[Lab]:
    lab = Lab(ssh_target)
    await lab.run(Command(["true"]))
    yield lab
    await lab.targets.close()


async def test_the_shell_that_waits_becomes_the_next_program(lab: Lab) -> None:
    waits = await lab.ready()
    printed = await lab.run(Command(WHO, marker="step-1.1"))
    assert printed.out.decode() == f"{waits} step-1.1"
    assert [group.pgid for group in printed.groups] == [waits]
    again = await lab.ready()
    assert again != waits
    words = ["a b", "", "'", '"$(id)`id`', "*", "\\", "line\nline", "日本語 😀", "--", "-n"]
    printed = await lab.run(Command(["printf", "%s\\0", *words]))
    assert printed.out.split(b"\0")[:-1] == [word.encode() for word in words]
    assert [group.pgid for group in printed.groups] == [again]


async def test_nothing_of_the_shell_is_left_in_the_environment_of_the_program(lab: Lab) -> None:
    own = Command(["env", "-0"], {"ONE": "a\nb"}, marker="step-1.1")
    await lab.ready()
    handed = await lab.run(own)
    direct = await lab.run(replace(own, stdin=b""))
    # What comes of the connection itself: sshd numbers its sessions.
    assert sorted(handed.out.split(b"\0")) == sorted(direct.out.split(b"\0"))
    assert b"ONE=a\nb" in handed.out.split(b"\0")


@pytest.mark.parametrize(
    "command",
    [
        Command(WHO, cwd="/"),
        Command(WHO, stdin=b"input"),
        Command([*WHO, "x" * MAX_HANDED]),
    ],
    ids=["folder", "input", "long"],
)
async def test_a_command_that_needs_its_own_shell_gets_it(lab: Lab, command: Command) -> None:
    waits = await lab.ready()
    printed = await lab.run(command)
    assert printed.out.split()[0] != str(waits).encode()


async def test_no_shell_waits_that_was_started_before_a_command_ended(lab: Lab) -> None:
    waits = await lab.ready()
    await lab.run(Command(["sh", "-c", "sleep 0.1"], cwd="/"))
    await eventually(lambda: not is_alive(waits))
    assert await lab.ready() != waits
    # One that is being started while a command ends is not taken either.
    first = asyncio.create_task(lab.run(Command(["true"], cwd="/")))
    second = asyncio.create_task(lab.run(Command(["sleep", "0.2"], cwd="/")))
    await asyncio.gather(first, second)
    last = await lab.ready()
    printed = await lab.run(Command(WHO))
    assert printed.out.split()[0] == str(last).encode()


async def test_a_command_runs_though_the_shell_that_waited_is_killed(lab: Lab) -> None:
    os.kill(await lab.ready(), signal.SIGSTOP)
    waits = await lab.ready()
    running = asyncio.create_task(lab.run(Command(WHO)))
    # It has been told its command and is killed before it reads it.
    await eventually(lambda: lab.targets._endpoints["lab"].waiting._ready is None)
    os.kill(waits, signal.SIGKILL)
    printed = await asyncio.wait_for(running, 10)
    assert len(printed.groups) == 1
    assert printed.out.split()[0] == str(printed.groups[0].pgid).encode() != str(waits).encode()


async def test_a_shell_waits_no_longer_than_it_may(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctor_agent.ssh.waiting.LONGEST_S", 0.05)
    await lab.run(Command(["true"]))
    waiting = lab.targets._endpoints["lab"].waiting
    await eventually(lambda: waiting._opening is None and waiting._ready is None)
    await eventually(lambda: lab.targets._endpoints["lab"].pool.is_idle)


async def test_no_shell_outlives_its_connection(lab: Lab) -> None:
    waits = await lab.ready()
    await lab.targets.close()
    await eventually(lambda: not is_alive(waits))


async def test_what_became_of_the_shell_is_found_by_its_marker(lab: Lab) -> None:
    waits = await lab.ready()
    running = asyncio.create_task(lab.run(Command(["sleep", "60"], marker="step-9.1")))
    await eventually(lambda: b"PROCTOR_ATTEMPT=step-9.1" in _environ(waits))
    assert await end_tree(lab.targets, "lab", [], "step-9.1", 1.0) is True
    assert not is_alive(waits)
    with pytest.raises(AssertionError):
        await running


async def test_no_shell_waits_where_the_settings_say_so(ssh_target: SshTarget) -> None:
    targets = Targets({"lab": replace(as_target(ssh_target), waiting_shell=False)})
    await targets.run("lab", Command(["true"]), Printed().write)
    assert targets._endpoints["lab"].waiting._opening is None
    await targets.close()


def _environ(pid: int) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()
