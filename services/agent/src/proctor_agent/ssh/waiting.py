"""A shell on a target that has started and waits to be told its command.

Opening a channel and the shell's start are most of what a short command costs. While a target is in use, one shell
has done all that in advance: it stands at ``read``, and what it is told comes on its standard input (docs/adr/0022).
It serves one command, and becomes it, as any other shell here. Before there is one, the login shell is asked what
it is (docs/adr/0025): both never at once, so that no more than one session is used in advance.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from proctor_agent.ssh.channel import CommandSession
from proctor_agent.ssh.command import WireCommand, build_waiting
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.login_shell import may_export
from proctor_agent.ssh.pool import Link, Pool
from proctor_agent.ssh.probe import ask

LONGEST_S = 30.0
"""A shell waits so long at most: what a login gets (environment, groups, limits) is never older than that."""

PAUSE_S = 0.005
"""The end of the command before goes first."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A started shell: its channel, and the bytes with which its marker line will start."""

    link: Link
    session: CommandSession
    tag: bytes


class WaitingShell:
    """The one shell that waits on a target, if any. Use from one event loop."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ready: Waiting | None = None
        self._opening: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None

    def take(self, names: Iterable[str] = ()) -> Waiting | None:
        """The shell, for one command that sets such environment variables; its link is to be released by the taker."""
        if self._ready is not None and not may_export(self._ready.session.shell, names):
            return None
        ready, self._ready = self._ready, None
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if ready is not None and (ready.session.closed or not ready.link.usable):
            self._pool.release(ready.link)
            return None
        return ready

    def prepare(self) -> None:
        """Have a shell started in the background, unless one waits, or other commands keep the target busy: then it
        would only take their time.
        """
        if self._may_open():
            self._opening = asyncio.create_task(self._open(build_waiting()), name="waiting shell")

    def learn(self) -> None:
        """Have the login shell asked in the background what it is, without a shell to wait afterwards."""
        if self._may_open():
            self._opening = asyncio.create_task(self._ask(), name="login shell")

    def _may_open(self) -> bool:
        return self._pool.target.waiting_shell and self._pool.is_idle and self._ready is None and self._opening is None

    async def _ask(self) -> None:
        try:
            await ask(self._pool)
        finally:
            self._opening = None

    async def _open(self, wire: WireCommand) -> None:
        try:
            await asyncio.sleep(PAUSE_S)
            if not self._pool.is_idle:
                return
            await ask(self._pool)
            if not self._pool.is_idle:
                return
            link, session = await self._pool.open(wire)
        except SshFault as fault:
            # A command that needs the target gets such a fault as its own.
            log.debug("no_waiting_shell", target=self._pool.target.name, reason=fault.message)
        else:
            self._ready = Waiting(link, session, wire.tag)
            self._end = asyncio.get_running_loop().call_later(LONGEST_S, self._dismiss)
        finally:
            self._opening = None

    def _dismiss(self) -> None:
        """Close it: at the end of its input the shell goes."""
        ready = self.take()
        if ready is not None:
            ready.session.abort()
            self._pool.release(ready.link)

    async def close(self) -> None:
        """Have none, and start none."""
        opening = self._opening
        if opening is not None:
            opening.cancel()
            await asyncio.wait({opening})
        self._dismiss()
