"""What the account may not end is told: processes of root below a step of somebody else."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator

import psutil
import pytest

from proctor_common.messages.orders import StartAnswer
from proctor_common.states import StepResult
from support.agent import AgentWorld
from support.processes import is_alive
from support.sshd import OpenSshServer
from support.wait import eventually

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv, to have an account below root"
)
# The account is nobody; what the line names as root's stays root's, in the session of the command.
SLEEPS = (["sleep", "86431"], ["sleep", "86432"])
LOGIN = """#!/bin/sh
case $SSH_ORIGINAL_COMMAND in *leave-root*)
  (trap '' TERM; exec sleep 86431) >/dev/null 2>&1 &
  (trap '' TERM; exec sleep 86432) >/dev/null 2>&1 & ;;
esac
exec setpriv --reuid=65534 --regid=65534 --clear-groups /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.fixture
def server(
    world: AgentWorld, openssh_server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenSshServer]:
    monkeypatch.setattr("proctor_agent.ssh.tree.KILL_WAIT_S", 0.5)
    monkeypatch.setattr("proctor_agent.attempts.debts.LOOK_S", 0.1)
    login = openssh_server.folder / "login"
    login.write_text(LOGIN)
    openssh_server.folder.chmod(0o755)
    login.chmod(0o755)
    allowed = openssh_server.folder / "authorized_keys"
    allowed.write_text(f'command="{login}" {allowed.read_text()}')
    world.ssh = openssh_server.target
    yield openssh_server
    for pid in _left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _left() -> list[int]:
    found = (each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] in SLEEPS)
    return [each.pid for each in found]


@pytest.mark.parametrize("how", ["cancelled", "timed_out"])
async def test_what_is_left_is_told_until_it_is_gone(world: AgentWorld, server: OpenSshServer, how: str) -> None:
    settings = world.settings()
    settings["targets"]["lab"].update(waiting_shell=False)
    async with world.agent_here(targets=settings["targets"]):
        order = world.shell("echo $$; sleep 599 # leave-root")
        assert (await world.start(order)).answer is StartAnswer.ACCEPTED
        await eventually(lambda: world.stored(order), 10, "the command to run")
        left = _left()
        await world.cancel(order, cause=how)
        end = await world.end_of(order)
        assert (end.result, end.tree_gone) == (StepResult(how), False)
        assert "2 processes could not be ended on target lab: " in end.reason
        assert all(f"{pid} sleep (uid 0)" in end.reason for pid in left)
        said = b"".join(chunk.data for chunk in await world.stored(order)).decode()
        assert "proctor: 2 processes could not be ended on target lab: " in said
        told = "2 processes could not be ended on target lab"
        await eventually(lambda: told in "".join(world.beats[-1].remains), 5, "the host to say so")
        # It is told and not in anybody's way.
        assert (await world.run_to_end(world.shell("true", run=world.agent))).result is StepResult.PASSED
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, left)))
        await eventually(lambda: world.beats[-1].remains == [], 10, "the host to say that it is gone")
