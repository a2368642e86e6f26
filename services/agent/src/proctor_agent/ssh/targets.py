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
from proctor_agent.ssh.command import Command, Exit, build, cannot_set, handed
from proctor_agent.ssh.doubt import may_have_run
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.held import HeldOutputs
from proctor_agent.ssh.marker import Start, Started
from proctor_agent.ssh.pool import Link, Pool, lost
from proctor_agent.ssh.start_script import NOT_STARTED_CODE
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

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pool = Pool(target)
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
    start: Start


class Targets:
    """The SSH endpoints of an agent, by name; one is the default. Use from one event loop."""

    def __init__(self, targets: Mapping[str, Target], default: str | None = None) -> None:
        # At its info level asyncssh logs each command line.
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        self._targets = dict(targets)
        self._default = default if default is not None else next(iter(targets), None)
        self._endpoints: dict[str, _Endpoint] = {}
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
                endpoint.pool.close_old()
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
            endpoint = self._endpoints[target.name] = _Endpoint(target)
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
            if begun.start.line is not None or begun.session.ended_at is None:
                return await _exit_of(endpoint, begun, began)
            # Somebody had ended the shell while it waited: it says itself that it has not become the program.
        wire = build(command)
        link, session = await endpoint.pool.open(wire)
        begun = _Begun(link, session, Start(wire.tag))
        await self._follow(endpoint, command, begun, sink, on_start)
        return await _exit_of(endpoint, begun, began)

    async def _follow(
        self, endpoint: _Endpoint, command: Command, begun: _Begun, sink: Sink, on_start: OnStart | None
    ) -> None:
        """Hand on what the command prints until it has ended."""
        session, open_still = begun.session, False
        try:
            await _pump(endpoint.target, begun, sink, on_start)
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

    async def reset(self, name: str | None) -> None:
        """Commands that start there from now on get a new login. Raises SshFault."""
        endpoint = self._endpoint(self.find(name))
        endpoint.waiting.dismiss()
        await endpoint.pool.reset()

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
    return _Begun(ready.link, ready.session, Start(ready.tag))


async def _pump(target: Target, begun: _Begun, sink: Sink, on_start: OnStart | None) -> None:
    session, start = begun.session, begun.start
    try:
        async with asyncio.timeout(target.start_timeout) as limit:
            while start.line is None and (pieces := await session.take()):
                for source, data in pieces:
                    if start.line is not None:
                        await sink(source, data)
                        continue
                    parts = start.feed(source, data)
                    if start.line is not None:
                        limit.reschedule(None)
                        if start.line.started is not None and on_start is not None:
                            await on_start(_group(target, start.line.started))
                    for shown, part in parts:
                        await sink(shown, part)
    except TimeoutError:
        if not limit.expired():
            raise
        raise await _late(target, begun) from None
    while pieces := await session.take():
        for source, data in pieces:
            await sink(source, data)
    for source, data in start.rest() if start.line is None else ():
        await sink(source, data)


async def _late(target: Target, begun: _Begun) -> SshFault:
    """The command has not started in time: it is called off."""
    bound = target.start_timeout
    begun.session.abort()
    if not await begun.link.answers():
        return lost(target, f"nothing was heard of its start within {bound:g} s (start_timeout)")
    return SshFault(
        faults.NOT_STARTED,
        f"target {target.name}: the login shell did not start the command within {bound:g} s (start_timeout): "
        "does a start-up file of the account wait for something?",
        target=target.name,
        phase="start",
        bound_s=bound,
    )


def _group(target: Target, started: Started) -> ProcessGroup:
    return ProcessGroup(target=target.name, pgid=started.pid, started=started.started, boot=started.boot)


async def _exit_of(endpoint: _Endpoint, begun: _Begun, began: float) -> Exit:
    target, session, line = endpoint.target, begun.session, begun.start.line
    if session.ended_at is None:
        raise lost(target, str(session.fault or "the channel was closed without an exit status"))
    if line is None:
        raise await _unseen(endpoint, session)
    if line.no_directory:
        raise SshFault(
            faults.NO_SUCH_DIRECTORY,
            f"target {target.name}: cannot change to the working directory (see the log)",
            target=target.name,
        )
    if line.refused_name:
        raise SshFault(faults.BAD_COMMAND, cannot_set(line.refused_name), target=target.name)
    if session.exit_signal is not None:
        return Exit(None, f"SIG{session.exit_signal}", session.ended_at - began, session.held)
    return Exit(session.exit_code, None, session.ended_at - began, session.held)


async def _unseen(endpoint: _Endpoint, session: CommandSession) -> SshFault:
    """Nothing was seen of the command's start."""
    name = endpoint.target.name
    how = f"exit code {session.exit_code}" if session.exit_signal is None else f"SIG{session.exit_signal}"
    if await may_have_run(endpoint.pool, session.exit_code):
        return SshFault(
            faults.START_NOT_SEEN,
            f"target {name}: the account's start-up files send the output of commands elsewhere: this one ended with "
            f"{how}, and may have run",
            target=name,
        )
    hint = ", or a start-up file sends its output elsewhere" if session.exit_code == NOT_STARTED_CODE else ""
    return SshFault(
        faults.NOT_STARTED,
        f"target {name}: the login shell ended with {how} and did not start the command{hint} (see the log)",
        target=name,
    )
