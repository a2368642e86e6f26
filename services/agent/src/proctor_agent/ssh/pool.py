"""The warm connections to one target, and the channels opened on them."""

import asyncio
from dataclasses import dataclass

import asyncssh

from proctor_agent.attempt import Target
from proctor_agent.ssh import faults
from proctor_agent.ssh.channel import MAX_PACKET, WINDOW, CommandSession
from proctor_agent.ssh.command import WireCommand
from proctor_agent.ssh.connection import connect
from proctor_agent.ssh.faults import SshFault

IDLE_S = 60.0
"""A further connection, opened because the first would take no more channels, is closed after so long without use."""
MAX_CONNECTIONS = 16
"""Most connections to one target."""
ANSWER_S = 3.0
MAX_DEATHS = 3
"""How often a connection may die while a channel is being opened on it."""


@dataclass(eq=False, slots=True)
class Link:
    """A connection and its channels in use. ``held``: those of commands that have ended, which something keeps open ·
    ``full``: the server refused one more, and none has ended since.
    """

    connection: asyncssh.SSHClientConnection
    channels: int = 0
    held: int = 0
    full: bool = False

    @property
    def usable(self) -> bool:
        """Whether the connection stands."""
        return not self.connection.is_closed()

    async def answers(self) -> bool:
        """Whether the target has done what it was asked for so far: it says no to what nobody has."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.connection.create_session(asyncssh.SSHClientSession, subsystem="proctor-none", encoding=None)
        except asyncssh.ChannelOpenError:
            return self.usable
        except (asyncssh.Error, OSError):
            return False
        return True

    @property
    def used(self) -> bool:
        """Whether a channel is open on it."""
        return self.channels + self.held > 0


class Pool:
    """One target's connections. Use from one event loop."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._links: list[Link] = []
        self._connecting: asyncio.Task[Link] | None = None

    @property
    def is_warm(self) -> bool:
        """Whether a connection stands."""
        return any(link.usable for link in self._links)

    @property
    def is_idle(self) -> bool:
        """Whether no command runs."""
        return not any(link.channels for link in self._links)

    async def warm(self) -> None:
        """See to it that a connection stands. Raises SshFault."""
        await self._link(set())

    async def open(self, wire: WireCommand) -> tuple[Link, CommandSession]:
        """A channel with the command started on it; to be released. Raises SshFault; unless ``connection_lost``
        nothing was started.
        """
        refused: set[Link] = set()
        for _ in range(MAX_CONNECTIONS + MAX_DEATHS):
            link = await self._link(refused)
            session = CommandSession()
            link.channels += 1
            try:
                async with asyncio.timeout(self.target.start_timeout) as limit:
                    await _start(link.connection, session, wire)
                return link, session
            except (asyncssh.Error, OSError) as fault:
                self.release(link)
                if limit.expired():
                    # It answers nothing any more; whether it still did what it was asked for is not known.
                    link.connection.abort()
                    bound = self.target.start_timeout
                    raise lost(self.target, f"no answer within {bound:g} s (start_timeout)") from None
                if session.opened:
                    raise _broken(self.target, link, fault) from None
                # Nothing was sent that could have started it. A connection that is gone is replaced; one that is
                # full (sshd: MaxSessions, 10 by default) gets another beside it.
                if link.usable:
                    link.full = link.used
                    if refused and not link.full:
                        raise _refusal(self.target, f"it takes no command: {fault}") from None
                    refused.add(link)
            except BaseException:
                session.abort()
                self.release(link)
                raise
        raise _refusal(self.target, f"none of {MAX_CONNECTIONS} connections takes another command")

    def release(self, link: Link) -> None:
        """One of its commands has ended."""
        link.channels -= 1
        self._emptied(link)

    def let_go(self, link: Link) -> None:
        """One of the outputs that were held open on it is closed."""
        link.held -= 1
        self._emptied(link)

    def _emptied(self, link: Link) -> None:
        link.full = False
        if not link.used and self._links and link is not self._links[0]:
            asyncio.get_running_loop().call_later(IDLE_S, self._close_idle, link)

    async def close(self) -> None:
        """Close all connections."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        links, self._links = self._links, []
        for link in links:
            link.connection.abort()
        for link in links:
            await link.connection.wait_closed()

    async def _link(self, refused: set[Link]) -> Link:
        while (link := self._free(refused)) is None:
            if self._connecting is None:
                self._links = [link for link in self._links if link.usable]
                if len(self._links) >= MAX_CONNECTIONS:
                    raise _refusal(self.target, f"all {MAX_CONNECTIONS} connections to it are full")
                self._connecting = asyncio.create_task(self._connect(), name="connect")
                # Nobody may be left to hear of its fault.
                self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
            # All who need one wait for the same: what it fails of is the fault of each.
            await asyncio.shield(self._connecting)
        return link

    async def _connect(self) -> Link:
        try:
            link = Link(await connect(self.target))
            self._links.append(link)
            return link
        finally:
            self._connecting = None

    def _free(self, refused: set[Link]) -> Link | None:
        for link in self._links:
            if link.usable and not link.full and link not in refused:
                return link
        return None

    def _close_idle(self, link: Link) -> None:
        if not link.used and link in self._links:
            self._links.remove(link)
            link.connection.close()


async def _start(connection: asyncssh.SSHClientConnection, session: CommandSession, wire: WireCommand) -> None:
    await connection.create_session(lambda: session, wire.line, encoding=None, window=WINDOW, max_pktsize=MAX_PACKET)
    session.feed(wire.stdin, end=wire.close_stdin)


def _broken(target: Target, link: Link, fault: Exception) -> SshFault:
    if link.usable and isinstance(fault, asyncssh.ChannelOpenError):
        return _refusal(target, f"it refused to execute a command: {fault.reason}")
    return lost(target, str(fault))


def _refusal(target: Target, why: str) -> SshFault:
    return SshFault(faults.CHANNEL_REFUSED, f"target {target.name}: {why}", target=target.name)


def lost(target: Target, why: str) -> SshFault:
    """The connection ended while a command ran."""
    return SshFault(
        faults.CONNECTION_LOST,
        f"target {target.name}: the connection was lost while the command ran: {why or 'closed'}; "
        "how the command ended is not known",
        target=target.name,
    )
