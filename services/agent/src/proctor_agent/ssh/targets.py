"""The agent's targets, by name, and commands run on them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from proctor_agent.attempt import ProcessGroup, Target
from proctor_agent.ssh import faults
from proctor_agent.ssh.channel import CommandSession
from proctor_agent.ssh.command import NOT_STARTED_CODE, Command, Exit, MarkerFilter, Started, build, handed
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.held import HeldOutputs
from proctor_agent.ssh.pool import Link, Pool, lost
from proctor_agent.ssh.waiting import WaitingShell
from proctor_common.states import Source

WARM_LOOK_S = 5.0
"""How often idle targets are looked at for a lost connection."""
LONGEST_WARM_PAUSE_S = 300.0
HELD = (
    b"proctor: the command has ended, but something that it left still holds its output; "
    b"what that prints from here on is not kept\n"
)

log = structlog.get_logger(__name__)

Sink = Callable[[Source, bytes], Awaitable[None]]
OnStart = Callable[[ProcessGroup], Awaitable[None]]


class _Endpoint:
    """A target's connections, the shell that waits there, and when to try next to reach it."""

    def __init__(self, target: Target, connect_timeout_s: float) -> None:
        self.target = target
        self.pool = Pool(target, connect_timeout_s=connect_timeout_s)
        self.waiting = WaitingShell(self.pool)
        self.held = HeldOutputs(self.pool)
        self.failures = 0
        self.retry_at = 0.0

    async def close(self) -> None:
        await self.waiting.close()
        self.held.close()
        await self.pool.close()


@dataclass(slots=True)
class _Begun:
    """A command under way."""

    link: Link
    session: CommandSession
    marker: MarkerFilter


class Targets:
    """The SSH endpoints of an agent, by name; one is the default. Use from one event loop."""

    def __init__(
        self, targets: Mapping[str, Target], default: str | None = None, *, connect_timeout_s: float = 10.0
    ) -> None:
        # At its info level asyncssh logs each command line.
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        self._targets = dict(targets)
        self._default = default if default is not None else next(iter(targets), None)
        self._endpoints: dict[str, _Endpoint] = {}
        self._connect_timeout_s = connect_timeout_s
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to the default target in the background, and again to any target whose connection was lost."""
        if self._warming is None:
            self._warming = asyncio.create_task(self._keep_warm(), name="warm connections")

    async def _keep_warm(self) -> None:
        if self._default in self._targets:
            self._endpoint(self._targets[self._default])
        loop = asyncio.get_running_loop()
        while True:
            for endpoint in list(self._endpoints.values()):
                if endpoint.retry_at <= loop.time() and not endpoint.pool.is_warm:
                    await self._warm(endpoint)
            await asyncio.sleep(WARM_LOOK_S)

    async def _warm(self, endpoint: _Endpoint) -> None:
        try:
            await endpoint.pool.warm()
            endpoint.failures = 0
        except SshFault as fault:
            # A command that needs the target gets this fault as its own; here it only spaces out the tries.
            endpoint.failures += 1
            pause = min(LONGEST_WARM_PAUSE_S, WARM_LOOK_S * 2.0 ** min(endpoint.failures, 10))
            endpoint.retry_at = asyncio.get_running_loop().time() + pause
            log.warning("target_not_reached", target=endpoint.target.name, reason=fault.message)

    def _endpoint(self, target: Target) -> _Endpoint:
        endpoint = self._endpoints.get(target.name)
        if endpoint is None:
            endpoint = self._endpoints[target.name] = _Endpoint(target, self._connect_timeout_s)
        return endpoint

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
        endpoint = self._endpoint(target)
        began = time.monotonic()
        begun = _hand_over(endpoint, command)
        if begun is not None:
            await self._follow(endpoint, command, begun, sink, on_start)
            if begun.marker.found or begun.session.ended_at is None:
                return _exit_of(target, begun, began)
            # Somebody had ended the shell while it waited: it says itself that it has not become the program.
        wire = build(command)
        link, session = await endpoint.pool.open(wire)
        begun = _Begun(link, session, MarkerFilter(wire.tag))
        await self._follow(endpoint, command, begun, sink, on_start)
        return _exit_of(target, begun, began)

    async def _follow(
        self, endpoint: _Endpoint, command: Command, begun: _Begun, sink: Sink, on_start: OnStart | None
    ) -> None:
        """Hand on what the command prints until it has ended."""
        session, open_still = begun.session, False
        try:
            await _pump(endpoint.target, session, begun.marker, sink, on_start)
            open_still = session.held
        finally:
            if not open_still or command.run is None:
                session.abort()
                endpoint.pool.release(begun.link)
        if open_still:
            await self._keep_open(endpoint, command, begun, sink)
        endpoint.waiting.prepare()

    async def _keep_open(self, endpoint: _Endpoint, command: Command, begun: _Begun, sink: Sink) -> None:
        """Drain what something still holds until the run has ended, and say so."""
        oldest = None
        if command.run is not None:
            oldest = endpoint.held.keep(command.run, command.marker or "", begun.link, begun.session)
        await sink(Source.SYSTEM, HELD)
        if oldest is not None:
            await sink(Source.SYSTEM, f"proctor: the output of {oldest}, held for longest, is closed for it\n".encode())

    @property
    def held_runs(self) -> set[str]:
        """The runs whose steps have left something that still holds an output; may be read in another thread."""
        return {run for endpoint in list(self._endpoints.values()) for run in endpoint.held.runs}

    def end_runs(self, runs: Collection[str]) -> None:
        """These runs have ended: the outputs that their steps left open are closed."""
        for endpoint in self._endpoints.values():
            endpoint.held.end_runs(runs)

    async def close(self) -> None:
        """Close all connections."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        endpoints = list(self._endpoints.values())
        self._endpoints.clear()
        for endpoint in endpoints:
            await endpoint.close()


def _hand_over(endpoint: _Endpoint, command: Command) -> _Begun | None:
    """The command given to the shell that waits for one; None where none does, or it needs one of its own."""
    told = handed(command)
    ready = endpoint.waiting.take() if told is not None else None
    if told is None or ready is None:
        return None
    ready.session.feed(told)
    return _Begun(ready.link, ready.session, MarkerFilter(ready.tag))


async def _pump(
    target: Target, session: CommandSession, marker: MarkerFilter, sink: Sink, on_start: OnStart | None
) -> None:
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


def _group(target: Target, started: Started) -> ProcessGroup:
    return ProcessGroup(target=target.name, pgid=started.pid, started=started.started)


def _exit_of(target: Target, begun: _Begun, began: float) -> Exit:
    session, marker = begun.session, begun.marker
    if session.ended_at is None:
        raise lost(target, str(session.fault or "the channel was closed without an exit status"))
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
        return Exit(None, f"SIG{session.exit_signal}", session.ended_at - began, session.held)
    return Exit(session.exit_code, None, session.ended_at - began, session.held)
