"""What a command on a target printed, kept in order; and an attempt without an agent around it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from proctor_agent.attempt import ProcessGroup, Target
from proctor_agent.ssh import Targets
from proctor_common.states import Source
from support.sshd import SshTarget


def as_target(ssh: SshTarget, name: str = "lab") -> Target:
    """The agent's settings for a test's SSH server."""
    return Target(name, ssh.host, ssh.port, ssh.user, ssh.key, ssh.known_hosts)


def targets_for(ssh: SshTarget) -> Targets:
    """An agent's targets with that one server, named ``lab``."""
    return Targets({"lab": as_target(ssh)})


class Printed:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Source, bytes]] = []
        self.groups: list[ProcessGroup] = []

    async def write(self, source: Source, data: bytes) -> None:
        self.pieces.append((source, data))

    async def group_started(self, group: ProcessGroup) -> None:
        self.groups.append(group)

    def of(self, source: Source) -> bytes:
        return b"".join(data for kind, data in self.pieces if kind is source)

    @property
    def out(self) -> bytes:
        return self.of(Source.STDOUT)

    @property
    def err(self) -> bytes:
        return self.of(Source.STDERR)

    @property
    def system(self) -> bytes:
        return self.of(Source.SYSTEM)


class RecordedAttempt(Printed):
    """All that a method's Context asks of the agent's core, recorded."""

    def __init__(
        self,
        scratch: Path,
        *,
        env: Mapping[str, str] | None = None,
        target: str | None = None,
        marker: str = "step-1.1",
    ) -> None:
        super().__init__()
        self.marker = marker
        self.run = "run-1"
        self.target = target
        self.env = dict(env or {})
        self.deadline = asyncio.get_running_loop().time() + 60
        self.stopping = asyncio.Event()
        self.scratch = scratch
        self.secrets: set[str] = set()
        self.ended: list[ProcessGroup] = []

    def hides(self, text: str) -> bool:
        return text in self.secrets

    def connection_lost(self, target: str) -> None:
        pass

    async def group_ended(self, group: ProcessGroup) -> None:
        self.ended.append(group)
