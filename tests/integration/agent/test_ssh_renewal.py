"""A login is no older than it may be: connections are renewed, and anew when a step asks for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from proctor_agent.ssh import Command, SshFault, Targets
from support.ssh_log import Printed, as_target
from support.sshd import OpenSshServer, SshTarget
from support.wait import eventually

WHO = Command(["sh", "-c", 'echo "$SSH_CONNECTION"'])


@contextlib.asynccontextmanager
async def reaching(ssh: SshTarget, **settings: float) -> AsyncIterator[Targets]:
    targets = Targets({"lab": replace(as_target(ssh), **settings)})  # type: ignore[arg-type]
    try:
        yield targets
    finally:
        await targets.close()


async def connection_of(targets: Targets, command: Command = WHO) -> str:
    printed = Printed()
    assert (await targets.run("lab", command, printed.write)).code == 0
    return printed.out.decode().strip()


async def test_a_new_connection_is_there_before_the_old_one_is_too_old(
    openssh: SshTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor_agent.ssh.targets.WARM_LOOK_S", 0.05)
    async with reaching(openssh, connection_age=2.0) as targets:
        first = await connection_of(targets)
        pool = targets._endpoints["lab"].pool
        old = pool._links[0]
        targets.start()
        await eventually(lambda: any(link is not old and link.fresh for link in pool._links), 10, "a second connection")
        assert old.fresh, "the old one still takes commands"
        running = asyncio.create_task(connection_of(targets, Command(["sh", "-c", 'sleep 3; echo "$SSH_CONNECTION"'])))
        await eventually(lambda: not old.fresh)
        assert await connection_of(targets) != first
        assert await running, "a command that runs is not cut off"
        await eventually(lambda: not old.usable, 10, "the old one to be closed")


async def test_a_connection_that_is_too_old_takes_no_command(openssh: SshTarget) -> None:
    async with reaching(openssh, connection_age=60.0) as targets:
        first = await connection_of(targets)
        assert await connection_of(targets) == first
        await eventually(lambda: targets._endpoints["lab"].waiting._ready is not None)
        link = targets._endpoints["lab"].pool._links[0]
        link.until = 0.0
        assert await connection_of(targets) != first
        await eventually(lambda: not link.usable)


async def test_a_reset_gives_a_new_login_and_ends_nothing(openssh: SshTarget) -> None:
    async with reaching(openssh) as targets:
        first = await connection_of(targets)
        printed = Printed()
        wait = Command(["sh", "-c", "echo ready; sleep 1; echo done"])
        running = asyncio.create_task(targets.run("lab", wait, printed.write))
        await eventually(lambda: b"ready" in printed.out)
        await eventually(lambda: targets._endpoints["lab"].waiting._opening is None)
        await targets.reset("lab")
        assert await connection_of(targets) != first
        assert (await running).code == 0
        assert printed.out == b"ready\ndone\n"


async def test_a_reset_that_cannot_log_in_says_why(openssh_server: OpenSshServer) -> None:
    async with reaching(openssh_server.target) as targets:
        await connection_of(targets)
        openssh_server.kill()
        with pytest.raises(SshFault) as caught:
            await targets.reset("lab")
        assert caught.value.kind == "target_unreachable"
