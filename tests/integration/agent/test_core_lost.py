"""Connections that are lost in the middle of a command, and bring-downs that fail: nobody is left behind."""

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from proctor_common.messages.orders import StartAnswer, StartOrder
from proctor_common.states import StepResult
from support.agent import AgentWorld
from support.processes import is_alive
from support.sshd import OpenSshServer
from support.wait import eventually

LEFT = "trap '' HUP PIPE; echo $$; while :; do sleep 0.1; done"


@pytest.fixture
def server(world: AgentWorld, openssh_server: OpenSshServer) -> Iterator[OpenSshServer]:
    world.ssh = openssh_server.target
    yield openssh_server
    for pid in _sshds(openssh_server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _sshds(server: OpenSshServer) -> list[int]:
    """The listener and the servers of its connections, but not what they have started."""
    listener = psutil.Process(server.child.pid)
    return [listener.pid, *(each.pid for each in listener.children(recursive=True) if "sshd" in each.name())]


def _signal(server: OpenSshServer, number: signal.Signals, *, listener: bool = True) -> None:
    for pid in _sshds(server):
        if listener or pid != server.child.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


async def _running(world: AgentWorld, order: StartOrder) -> int:
    assert (await world.start(order)).answer is StartAnswer.ACCEPTED
    chunks = await eventually(lambda: world.stored(order), 10, "the command to print its process")
    return int(chunks[0].data.split()[0])


def _is_owing(world: AgentWorld) -> bool:
    return "left on target lab is not known to be gone" in "".join(world.beats[-1].remains)


async def test_what_a_lost_connection_left_is_ended(world: AgentWorld, server: OpenSshServer) -> None:
    async with world.agent_here():
        order = world.shell(LEFT)
        pid = await _running(world, order)
        _signal(server, signal.SIGKILL, listener=False)
        end = await world.end_of(order)
        assert (end.result, end.error and end.error.kind) == (StepResult.ERROR, "connection_lost")
        assert end.tree_gone is True
        assert not is_alive(pid)
        said = b"".join(chunk.data for chunk in await world.stored(order))
        assert b"after the lost connection: nothing of it is left" in said


async def test_where_the_target_does_not_come_back_it_is_not_known(
    world: AgentWorld, server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.attempts.debts.PAUSE_S", 0.1)
    settings = world.settings()
    settings["targets"]["lab"].update(reconnect_timeout=0.5, login_timeout=1.0)
    async with world.agent_here(targets=settings["targets"]):
        order = world.shell(LEFT)
        pid = await _running(world, order)
        os.kill(server.child.pid, signal.SIGSTOP)
        _signal(server, signal.SIGKILL, listener=False)
        end = await world.end_of(order)
        assert (end.error and end.error.kind, end.tree_gone) == ("connection_lost", None)
        assert is_alive(pid)
        # No other run's work until it is made up for, which the order is told; the run's own goes on.
        other = world.shell("true", run=world.agent)
        reply = await world.start(other)
        assert (reply.answer, "is not known to be gone" in reply.reason) == (StartAnswer.BUSY, True)
        await eventually(lambda: _is_owing(world), 5, "the agent to say so")
        os.kill(server.child.pid, signal.SIGCONT)
        await eventually(lambda: not is_alive(pid), 20, "what was left to be ended")

        async def taken() -> bool:
            return (await world.start(other)).answer is StartAnswer.ACCEPTED

        await eventually(taken, 20, "the target to take work again")
        assert (await world.end_of(other)).result is StepResult.PASSED


async def test_a_cancel_over_a_dead_link_is_made_up_for(
    world: AgentWorld, server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.tree.EXTRA_S", 0.5)
    monkeypatch.setattr("proctor_agent.attempts.debts.PAUSE_S", 0.1)
    async with world.agent_here():
        order = world.shell(LEFT)
        pid = await _running(world, order)
        _signal(server, signal.SIGSTOP)
        await world.cancel(order)
        end = await world.end_of(order)
        assert (end.result, end.tree_gone) == (StepResult.CANCELLED, None)
        assert (await world.start(world.shell("true", run=world.agent))).answer is StartAnswer.BUSY
        _signal(server, signal.SIGCONT)
        await eventually(lambda: not is_alive(pid), 20, "what was left to be ended")


async def test_a_debt_is_given_up_after_its_time(
    world: AgentWorld, server: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.tree.EXTRA_S", 0.2)
    monkeypatch.setattr("proctor_agent.attempts.debts.LONGEST_S", 1.0)
    async with world.agent_here():
        order = world.shell(LEFT)
        pid = await _running(world, order)
        _signal(server, signal.SIGSTOP)
        await world.cancel(order)
        await world.end_of(order)
        await eventually(lambda: _is_owing(world), 5, "the debt")
        await eventually(lambda: world.beats[-1].remains == [], 10, "the debt to be given up")
        _signal(server, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
