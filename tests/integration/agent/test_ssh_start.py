"""How a command's start may fail: each phase has a bound, and what is said of the start is true."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proctor_agent.attempt import Target
from proctor_agent.ssh import Command, SshFault, Targets, end_tree
from support.ssh_log import Printed, as_target
from support.sshd import OpenSshServer, SshTarget
from support.wait import eventually

Restart = Callable[[str], Target]


@contextlib.asynccontextmanager
async def reaching(target: Target) -> AsyncIterator[Targets]:
    targets = Targets({target.name: target})
    try:
        yield targets
    finally:
        await targets.close()


async def fault_of(target: Target, command: Command | None = None) -> SshFault:
    async with reaching(target) as targets:
        with pytest.raises(SshFault) as caught:
            await targets.run(None, command or Command(["true"]), Printed().write)
    return caught.value


@pytest.fixture
def starting(openssh_server: OpenSshServer) -> Restart:
    """The target as it is where an account's start-up file holds such text."""
    allowed = openssh_server.folder / "authorized_keys"
    key = allowed.read_text()

    def with_file(text: str) -> Target:
        file = openssh_server.folder / "start-up"
        file.write_text(f'{text}\neval "$SSH_ORIGINAL_COMMAND"\n')
        allowed.write_text(f'command="exec bash {file}" {key}')
        return as_target(openssh_server.target)

    return with_file


# -- bounds ----------------------------------------------------------------------------------------------------------


async def test_each_phase_has_its_bound(ssh_target: SshTarget) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    target = replace(as_target(ssh_target), port=port, login_timeout=0.3)
    fault = await fault_of(target)
    assert (fault.kind, fault.data["phase"], fault.data["bound_s"]) == ("target_unreachable", "login", 0.3)
    assert "no login within 0.3 s (login_timeout)" in fault.message
    silent.close()
    # A backlog that is full: the kernel answers no further connection.
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    held = [asyncio.create_task(asyncio.open_connection("127.0.0.1", port)) for _ in range(3)]
    await eventually(lambda: any(each.done() for each in held))
    fault = await fault_of(replace(target, port=port, connect_timeout=0.3))
    assert (fault.kind, fault.data["phase"], fault.data["bound_s"]) == ("target_unreachable", "connect", 0.3)
    assert "no connection within 0.3 s (connect_timeout)" in fault.message
    for each in held:
        each.cancel()
    full.close()


async def test_all_who_wait_for_a_connection_have_the_same_fault(ssh_target: SshTarget) -> None:
    taken = 0

    def take(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1

    silent = await asyncio.start_server(take, "127.0.0.1", 0)
    target = replace(as_target(ssh_target), port=silent.sockets[0].getsockname()[1], login_timeout=0.3)
    async with reaching(target) as targets:
        runs = [targets.run(None, Command(["true"]), Printed().write) for _ in range(5)]
        faults = await asyncio.gather(*runs, return_exceptions=True)
    assert {getattr(fault, "kind", fault) for fault in faults} == {"target_unreachable"}
    assert taken == 1
    silent.close()


@pytest.mark.parametrize("text", ["sleep 300", "read answer; sleep 300", "while :; do sleep 1; done"])
async def test_a_login_shell_that_waits_is_given_up(starting: Restart, text: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    fault = await fault_of(replace(starting(text), start_timeout=0.5), Command(["touch", str(ran)]))
    assert (fault.kind, fault.data["phase"], fault.data["bound_s"]) == ("not_started", "start", 0.5)
    assert "within 0.5 s (start_timeout)" in fault.message
    assert not ran.exists()


async def test_where_nothing_starts_the_end_of_a_tree_is_bounded_too(
    starting: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.tree.EXTRA_S", 0.5)
    async with reaching(starting("sleep 300")) as targets:
        async with asyncio.timeout(5):
            assert await end_tree(targets, "lab", [], "step-1.1", 0.1) is None


# -- what is said of the start ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["exec 1>&2", "exec 2>&1", "exec > >(cat)", "echo hello; exec 1>&2; printf there"])
async def test_a_command_is_followed_wherever_its_output_comes(starting: Restart, text: str) -> None:
    async with reaching(starting(text)) as targets:
        printed = Printed()
        script = "echo out; echo err >&2; exit 3"
        end = await targets.run(None, Command(["sh", "-c", script]), printed.write, printed.group_started)
    assert end.code == 3
    assert len(printed.groups) == 1
    assert b"out\n" in printed.out + printed.err
    assert b"err\n" in printed.out + printed.err


@pytest.mark.parametrize(
    "text", ["exec >/dev/null", "exec >{file} 2>&1", "exec 1>&-", "exit 0", "exit 93", "kill -KILL $$", "exec true"]
)
async def test_not_started_is_true(starting: Restart, text: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    fault = await fault_of(starting(text.format(file=tmp_path / "log")), Command(["touch", str(ran)]))
    assert fault.kind == "not_started"
    assert not ran.exists()


async def test_what_may_have_run_is_not_called_not_started(starting: Restart, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    fault = await fault_of(starting("exec > >(cat >/dev/null) 2>&1"), Command(["touch", str(ran)]))
    assert fault.kind == "start_not_seen"
    assert "may have run" in fault.message
    assert ran.exists()


# -- algorithms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1\nCiphers aes128-cbc",
        "Ciphers 3des-cbc",
        "KexAlgorithms diffie-hellman-group-exchange-sha1",
        "MACs hmac-md5\nCiphers aes256-ctr",
    ],
)
async def test_old_algorithms_are_for_targets_that_ask_for_them(openssh_server: OpenSshServer, line: str) -> None:
    openssh_server.extra = line
    openssh_server.restart()
    target = as_target(openssh_server.target)
    fault = await fault_of(target)
    assert fault.kind == "target_unreachable"
    assert "legacy_algorithms = true below [targets.lab]" in fault.message
    async with reaching(replace(target, legacy_algorithms=True)) as targets:
        assert (await targets.run(None, Command(["true"]), Printed().write)).code == 0
