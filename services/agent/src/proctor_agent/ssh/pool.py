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
"""Most connections to one target that take commands."""
RENEW_S = 30.0
"""So long before a connection is too old there is another one."""
ANSWER_S = 3.0
MAX_DEATHS = 3
"""How often a connection may die while a channel is being opened on it."""


@dataclass(eq=False, slots=True)
class Link:
    """A connection and its channels in use."""

    connection: asyncssh.SSHClientConnection
    channels: int = 0
    held: int = 0
    """Channels of commands that have ended, which something keeps open."""
    full: bool = False
    """The server refused one more channel, and none has ended since."""
    until: float = 0.0
    """Loop time from which on it takes no further command."""

    @property
    def usable(self) -> bool:
        """Whether the connection stands."""
        return not self.connection.is_closed()

    @property
    def fresh(self) -> bool:
        """Whether it takes further commands."""
        return self.usable and asyncio.get_running_loop().time() < self.until

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
        """Whether a connection stands that takes commands for a while yet."""
        soon = asyncio.get_running_loop().time() + min(RENEW_S, self.target.connection_age / 4)
        return any(link.usable and soon < link.until for link in self._links)

    @property
    def is_idle(self) -> bool:
        """Whether no command runs."""
        return not any(link.channels for link in self._links)

    async def warm(self) -> None:
        """See to it that a connection stands, a new one before the old one is too old. Raises SshFault."""
        if not self.is_warm:
            await self._link({link for link in self._links if link.usable})
            self.close_old()

    async def reset(self) -> None:
        """Commands that start from now on get a new connection. Raises SshFault."""
        now = asyncio.get_running_loop().time()
        for link in self._links:
            link.until = min(link.until, now)
        if self._connecting is not None:
            # What it brings was logged in before.
            await asyncio.wait({self._connecting})
            for link in self._links:
                link.until = min(link.until, now)
        await self._link(set())
        self.close_old()

    def close_old(self) -> None:
        """Close the connections that are too old, once nothing is open on them any more."""
        for link in [link for link in self._links if not link.fresh and not link.used]:
            self._links.remove(link)
            link.connection.close()

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
        if not link.fresh:
            self.close_old()
        elif not link.used and self._links and link is not self._links[0]:
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
                if sum(link.fresh for link in self._links) >= MAX_CONNECTIONS:
                    raise _refusal(self.target, f"all {MAX_CONNECTIONS} connections to it are full")
                self._connecting = asyncio.create_task(self._connect(), name="connect")
                # Nobody may be left to hear of its fault.
                self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
            # All who need one wait for the same: what it fails of is the fault of each.
            await asyncio.shield(self._connecting)
        return link

    async def _connect(self) -> Link:
        try:
            opened = asyncio.get_running_loop().time()
            link = Link(await connect(self.target), until=opened + self.target.connection_age)
            self._links.append(link)
            return link
        finally:
            self._connecting = None

    def _free(self, refused: set[Link]) -> Link | None:
        for link in self._links:
            if link.fresh and not link.full and link not in refused:
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
