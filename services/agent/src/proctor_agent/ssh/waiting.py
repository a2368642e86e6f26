"""A shell on a target that has started and waits to be told its command.

Opening a channel, the login shell's start and that of /bin/sh are most of what a short command costs. While a target
is in use, one shell has done all that in advance: it stands at ``read``, and what it is told comes on its standard
input (docs/adr/0022). It serves one command, and becomes it, as any other shell here.
"""

import asyncio
from dataclasses import dataclass

import structlog

from proctor_agent.ssh.channel import CommandSession
from proctor_agent.ssh.command import WireCommand, build_waiting
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.pool import Link, Pool

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
        self._ends = 0
        """Commands that have ended."""
        self._end: asyncio.TimerHandle | None = None

    def take(self) -> Waiting | None:
        """The shell, for one command; its link is to be released by the taker."""
        ready, self._ready = self._ready, None
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if ready is not None and (ready.session.closed or not ready.link.fresh):
            ready.session.abort()
            self._pool.release(ready.link)
            return None
        return ready

    def prepare(self) -> None:
        """A command has ended: have a shell started in the background, unless other commands keep the target busy: then
        it would only take their time. One that was started before that end goes: the command may have changed what a
        login gives.
        """
        self.dismiss()
        self._ends += 1
        if self._pool.target.waiting_shell and self._pool.is_idle and self._ready is None and self._opening is None:
            self._opening = asyncio.create_task(self._open(build_waiting()), name="waiting shell")

    async def _open(self, wire: WireCommand) -> None:
        try:
            await asyncio.sleep(PAUSE_S)
            if not self._pool.is_idle:
                return
            ends = self._ends
            link, session = await self._pool.open(wire)
            if ends != self._ends:
                session.abort()
                self._pool.release(link)
                return
        except SshFault as fault:
            # A command that needs the target gets such a fault as its own.
            log.debug("no_waiting_shell", target=self._pool.target.name, reason=fault.message)
        else:
            self._ready = Waiting(link, session, wire.tag)
            self._end = asyncio.get_running_loop().call_later(LONGEST_S, self.dismiss)
        finally:
            self._opening = None

    def dismiss(self) -> None:
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
        self.dismiss()
