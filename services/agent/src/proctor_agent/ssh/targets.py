"""The agent's targets: warm connections, and commands run over them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import asyncssh
import structlog

from proctor_agent.attempt import ProcessGroup, Target
from proctor_agent.ssh import faults
from proctor_agent.ssh.channel import MAX_PACKET, WINDOW, CommandSession
from proctor_agent.ssh.command import NOT_STARTED_CODE, Command, Exit, MarkerFilter, Started, WireCommand, build
from proctor_agent.ssh.connection import connect
from proctor_agent.ssh.faults import SshFault
from proctor_common.states import Source

IDLE_S = 60.0
"""A further connection, opened because the first would take no more channels, is closed after so long without use."""
MAX_CONNECTIONS = 16
"""Most connections to one target."""
WARM_LOOK_S = 5.0
"""How often idle targets are looked at for a lost connection."""
LONGEST_WARM_PAUSE_S = 300.0
MAX_DEATHS = 3
"""How often a connection may die while a channel is being opened on it."""

log = structlog.get_logger(__name__)

Sink = Callable[[Source, bytes], Awaitable[None]]
OnStart = Callable[[ProcessGroup], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Link:
    """A connection and its channels in use. ``full``: the server refused one more, and none has ended since."""

    connection: asyncssh.SSHClientConnection
    channels: int = 0
    full: bool = False

    @property
    def usable(self) -> bool:
        return not self.connection.is_closed()


@dataclass(eq=False, slots=True)
class _Pool:
    target: Target
    links: list[_Link] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    retry_at: float = 0.0


class Targets:
    """The SSH endpoints of an agent, by name; one is the default. Use from one event loop."""

    def __init__(
        self, targets: Mapping[str, Target], default: str | None = None, *, connect_timeout_s: float = 10.0
    ) -> None:
        # At its info level asyncssh logs each command line.
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        self._targets = dict(targets)
        self._default = default if default is not None else next(iter(targets), None)
        self._pools: dict[str, _Pool] = {}
        self._connect_timeout_s = connect_timeout_s
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to the default target in the background, and again to any target whose connection was lost."""
        if self._warming is None:
            self._warming = asyncio.create_task(self._keep_warm(), name="warm connections")

    async def _keep_warm(self) -> None:
        if self._default in self._targets:
            self._pool(self._targets[self._default])
        loop = asyncio.get_running_loop()
        while True:
            for pool in list(self._pools.values()):
                if pool.retry_at <= loop.time() and not any(link.usable for link in pool.links):
                    await self._warm(pool)
            await asyncio.sleep(WARM_LOOK_S)

    async def _warm(self, pool: _Pool) -> None:
        try:
            await self._link(pool, set())
            pool.failures = 0
        except SshFault as fault:
            # A command that needs the target gets this fault as its own; here it only spaces out the tries.
            pool.failures += 1
            pause = min(LONGEST_WARM_PAUSE_S, WARM_LOOK_S * 2.0 ** min(pool.failures, 10))
            pool.retry_at = asyncio.get_running_loop().time() + pause
            log.warning("target_not_reached", target=pool.target.name, reason=fault.message)

    def _pool(self, target: Target) -> _Pool:
        return self._pools.setdefault(target.name, _Pool(target))

    @property
    def default(self) -> str | None:
        """Name of the target that is meant where none is named."""
        return self._default

    def find(self, name: str | None) -> Target:
        """The target of that name, or the default for None. Raises SshFault ``no_such_target``."""
        wanted = name if name is not None else self._default
        if wanted is None:
            raise SshFault(faults.NO_SUCH_TARGET, "this agent has no target: its settings name none")
        try:
            return self._targets[wanted]
        except KeyError:
            known = ", ".join(sorted(self._targets)) or "none"
            raise SshFault(faults.NO_SUCH_TARGET, f"no such target: {wanted} (known: {known})") from None

    async def run(self, name: str | None, command: Command, sink: Sink, on_start: OnStart | None = None) -> Exit:
        """Run a command to its end. Every byte that it prints goes to ``sink``, in order; while ``sink`` waits, reading
        stops, and with it the command. ``on_start`` gets the process group before the first of its bytes.

        Raises SshFault; only after kind ``connection_lost`` the command may have run, or still run. Cancelled: the
        channel is closed, the remote processes live on (``end_tree``).
        """
        target = self.find(name)
        wire = build(command)
        pool = self._pool(target)
        began = time.monotonic()
        link, session = await self._open(pool, wire)
        try:
            marker = await self._pump(target, session, MarkerFilter(wire.tag), sink, on_start)
        finally:
            session.abort()
            self._release(pool, link)
        return _exit_of(target, session, marker, time.monotonic() - began)

    async def _pump(
        self, target: Target, session: CommandSession, marker: MarkerFilter, sink: Sink, on_start: OnStart | None
    ) -> MarkerFilter:
        while pieces := await session.take():
            for source, data in pieces:
                if marker.found or source is Source.STDERR:
                    await sink(source, data)
                    continue
                noise, own = marker.feed(data)
                if noise:
                    await sink(Source.SYSTEM, noise)
                if marker.started is not None and on_start is not None:
                    await on_start(_group(target, marker.started))
                if own:
                    await sink(source, own)
        if rest := marker.rest():
            await sink(Source.SYSTEM, rest)
        return marker

    async def _open(self, pool: _Pool, wire: WireCommand) -> tuple[_Link, CommandSession]:
        """A channel with the command started on it. Raises SshFault; unless ``connection_lost`` nothing started."""
        refused: set[_Link] = set()
        for _ in range(MAX_CONNECTIONS + MAX_DEATHS):
            link = await self._link(pool, refused)
            session = CommandSession()
            link.channels += 1
            try:
                await _start(link.connection, session, wire)
                return link, session
            except (asyncssh.Error, OSError) as fault:
                self._release(pool, link)
                if session.opened:
                    raise _broken(pool.target, link, fault) from None
                # Nothing was sent that could have started it. A connection that is gone is replaced; one that is
                # full (sshd: MaxSessions, 10 by default) gets another beside it.
                if link.usable:
                    link.full = link.channels > 0
                    if refused and not link.full:
                        raise _refusal(pool.target, f"it takes no command: {fault}") from None
                    refused.add(link)
            except BaseException:
                session.abort()
                self._release(pool, link)
                raise
        raise _refusal(pool.target, f"none of {MAX_CONNECTIONS} connections takes another command")

    async def _link(self, pool: _Pool, refused: set[_Link]) -> _Link:
        if (link := _free(pool, refused)) is not None:
            return link
        async with pool.lock:
            # Whoever held the lock may have opened what we need.
            if (link := _free(pool, refused)) is not None:
                return link
            pool.links = [link for link in pool.links if link.usable]
            if len(pool.links) >= MAX_CONNECTIONS:
                raise _refusal(pool.target, f"all {MAX_CONNECTIONS} connections to it are full")
            link = _Link(await connect(pool.target, self._connect_timeout_s))
            pool.links.append(link)
            return link

    def _release(self, pool: _Pool, link: _Link) -> None:
        link.channels -= 1
        link.full = False
        if link.channels == 0 and pool.links and link is not pool.links[0]:
            asyncio.get_running_loop().call_later(IDLE_S, _close_idle, pool, link)

    async def close(self) -> None:
        """Close all connections."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        links = [link for pool in self._pools.values() for link in pool.links]
        self._pools.clear()
        for link in links:
            link.connection.abort()
        for link in links:
            await link.connection.wait_closed()


def _free(pool: _Pool, refused: set[_Link]) -> _Link | None:
    for link in pool.links:
        if link.usable and not link.full and link not in refused:
            return link
    return None


def _close_idle(pool: _Pool, link: _Link) -> None:
    if link.channels == 0 and link in pool.links:
        pool.links.remove(link)
        link.connection.close()


def _group(target: Target, started: Started) -> ProcessGroup:
    return ProcessGroup(target=target.name, pgid=started.pid, started=started.started)


async def _start(connection: asyncssh.SSHClientConnection, session: CommandSession, wire: WireCommand) -> None:
    channel, _ = await connection.create_session(
        lambda: session, wire.line, encoding=None, window=WINDOW, max_pktsize=MAX_PACKET
    )
    if wire.stdin:
        channel.write(wire.stdin)
    if wire.close_stdin:
        channel.write_eof()


def _broken(target: Target, link: _Link, fault: Exception) -> SshFault:
    if link.usable and isinstance(fault, asyncssh.ChannelOpenError):
        return _refusal(target, f"it refused to execute a command: {fault.reason}")
    return _lost(target, str(fault))


def _refusal(target: Target, why: str) -> SshFault:
    return SshFault(faults.CHANNEL_REFUSED, f"target {target.name}: {why}", target=target.name)


def _lost(target: Target, why: str) -> SshFault:
    return SshFault(
        faults.CONNECTION_LOST,
        f"target {target.name}: the connection was lost while the command ran: {why or 'closed'}; "
        "how the command ended is not known",
        target=target.name,
    )


def _exit_of(target: Target, session: CommandSession, marker: MarkerFilter, duration_s: float) -> Exit:
    if session.exit_code is None and session.exit_signal is None:
        raise _lost(target, str(session.fault or "the channel was closed without an exit status"))
    if marker.no_directory:
        raise SshFault(
            faults.NO_SUCH_DIRECTORY,
            f"target {target.name}: cannot change to the working directory (see the log)",
            target=target.name,
        )
    if not marker.found:
        how = f"exit code {session.exit_code}" if session.exit_signal is None else f"SIG{session.exit_signal}"
        hint = " before all values had arrived" if session.exit_code == NOT_STARTED_CODE else ""
        raise SshFault(
            faults.NOT_STARTED,
            f"target {target.name}: the login shell ended with {how}{hint} and did not start the command (see the log)",
            target=target.name,
        )
    if session.exit_signal is not None:
        return Exit(None, f"SIG{session.exit_signal}", duration_s)
    return Exit(session.exit_code, None, duration_s)
