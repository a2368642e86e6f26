"""Ending what a command left on a target: real processes below a real sshd."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from proctor_agent.attempt import ProcessGroup, Target
from proctor_agent.ssh import Command, SshFault, Targets, end_tree
from support.processes import is_alive
from support.ssh_log import Printed, targets_for
from support.sshd import SshTarget
from support.wait import eventually

MARK = f"0190-step-{os.getpid()}.1"
"""No other worker's: a tree is found by it on the whole host."""


@pytest.fixture
async def lab(ssh_target: SshTarget) -> AsyncIterator[Targets]:
    targets = targets_for(ssh_target)
    yield targets
    await targets.close()


class Running:
    """A command that runs; its script prints the pids it wants to be watched, one a line, then ``ready``."""

    def __init__(self, targets: Targets, script: str, folder: Path, marker: str = MARK) -> None:
        self.printed = Printed()
        command = Command(["sh", "-c", script], cwd=str(folder), marker=marker)
        self.task = asyncio.create_task(
            targets.run(None, command, self.printed.write, self.printed.group_started), name="command"
        )

    async def pids(self) -> list[int]:
        await eventually(lambda: b"ready" in self.printed.out or self.task.done(), 10, "the script to be ready")
        return [int(word) for word in self.printed.out.split() if word.isdigit()]

    @property
    def groups(self) -> list[ProcessGroup]:
        return self.printed.groups

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SshFault):
            await self.task


async def test_a_tree_that_ends_on_term_is_gone_within_its_grace(lab: Targets, tmp_path: Path) -> None:
    running = Running(lab, "sleep 300 & echo $! $$; echo ready; wait", tmp_path)
    pids = await running.pids()
    began = asyncio.get_running_loop().time()
    assert await end_tree(lab, "lab", running.groups, MARK, 10) is True
    assert asyncio.get_running_loop().time() - began < 8
    assert not any(map(is_alive, pids))
    exit_ = await running.task
    assert exit_.signal == "SIGTERM"


async def test_what_ignores_term_is_killed_after_the_grace(lab: Targets, tmp_path: Path) -> None:
    script = """
        trap '' TERM
        (while :; do sleep 300; done) & echo $!
        trap 'echo asked' TERM
        echo $$; echo ready
        while :; do sleep 0.05; done
    """
    running = Running(lab, script, tmp_path)
    pids = await running.pids()
    began = asyncio.get_running_loop().time()
    assert await end_tree(lab, "lab", running.groups, MARK, 0.5) is True
    assert asyncio.get_running_loop().time() - began >= 0.5
    assert not any(map(is_alive, pids))
    assert (await running.task).signal == "SIGKILL"
    assert b"asked" in running.printed.out


async def test_a_grandchild_that_left_the_session_is_found_by_its_mark(lab: Targets, tmp_path: Path) -> None:
    # Twice removed: its own session, its parent gone, so that only the environment tells where it came from.
    running = Running(lab, "(setsid sh -c 'echo $$ >pid; exec sleep 300' &) ; echo ready; sleep 300", tmp_path)
    await running.pids()
    await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    escaped = int((tmp_path / "pid").read_text())
    await eventually(lambda: _parent(escaped) != running.groups[0].pgid)
    stranger = Running(lab, "echo $$; echo ready; sleep 300", tmp_path, marker=MARK + "0")
    (other,) = await stranger.pids()
    assert await end_tree(lab, "lab", running.groups, MARK, 5) is True
    assert not is_alive(escaped)
    assert is_alive(other), "a mark that only begins alike is another attempt's"
    os.kill(other, signal.SIGKILL)
    await running.end()
    await stranger.end()


async def test_a_child_with_another_session_and_an_empty_environment_is_found_by_its_parent(
    lab: Targets, tmp_path: Path
) -> None:
    script = (
        "env -i setsid sh -c 'echo $$ >pid; sleep 300; :' & while [ ! -s pid ]; do sleep 0.02; done; echo ready; wait"
    )
    running = Running(lab, script, tmp_path)
    await running.pids()
    escaped = int((tmp_path / "pid").read_text())
    assert await end_tree(lab, "lab", running.groups, MARK, 5) is True
    assert not is_alive(escaped)
    await running.end()


async def test_a_stopped_process_is_ended_too(lab: Targets, tmp_path: Path) -> None:
    running = Running(lab, "echo $$; echo ready; sleep 300", tmp_path)
    (pid,) = await running.pids()
    os.kill(pid, signal.SIGSTOP)
    assert await end_tree(lab, "lab", running.groups, MARK, 5) is True
    assert (await running.task).signal == "SIGTERM"


async def test_a_number_that_was_given_to_another_process_is_left_alone(lab: Targets, tmp_path: Path) -> None:
    running = Running(lab, "echo $$; echo ready; sleep 300", tmp_path)
    (pid,) = await running.pids()
    reused = [replace(group, started=group.started - 1) for group in running.groups]
    assert await end_tree(lab, "lab", reused, "some-other.1", 1) is True
    assert is_alive(pid)
    assert await end_tree(lab, "lab", running.groups, "", 1) is True
    assert not is_alive(pid)
    await running.end()


async def test_what_belongs_to_another_boot_is_gone(lab: Targets, tmp_path: Path) -> None:
    running = Running(lab, "echo $$; echo ready; sleep 300", tmp_path)
    (pid,) = await running.pids()
    assert running.groups[0].boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    before = [replace(group, boot="00000000-0000-0000-0000-000000000000") for group in running.groups]
    assert await end_tree(lab, "lab", before, "some-other.1", 1) is True
    assert is_alive(pid)
    assert await end_tree(lab, "lab", running.groups, "", 1) is True
    await running.end()


async def test_nothing_left_is_gone_at_once(lab: Targets, tmp_path: Path) -> None:
    running = Running(lab, "echo ready", tmp_path)
    await running.task
    assert await end_tree(lab, "lab", running.groups, MARK, 5) is True


async def test_an_unreachable_target_is_not_known(ssh_target: SshTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctor_agent.ssh.tree.EXTRA_S", 1.0)
    targets = Targets({"lab": Target("lab", "127.0.0.1", 1, ssh_target.user, ssh_target.key, ssh_target.known_hosts)})
    assert await end_tree(targets, "lab", [ProcessGroup("lab", 4_000_000, 1)], MARK, 0.1) is None


async def test_init_and_nothing_are_never_killed(lab: Targets) -> None:
    assert await end_tree(lab, "lab", [ProcessGroup("lab", 1, 0), ProcessGroup("lab", 0, 0)], "", 0.1) is True


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
