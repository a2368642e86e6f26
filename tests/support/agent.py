"""A real agent between a real NATS, a real SSH target and a controller that the test plays by the real protocol."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from proctor_agent.identity import IDENTITY_FILE, AgentIdentity
from proctor_agent.main import run
from proctor_agent.settings import AgentSettings
from proctor_common import subjects
from proctor_common.bus import ACK, Bus, BusOptions, ConsumerSpec, Message, StreamMessage, Verdict
from proctor_common.bus.streams import event_stream, log_stream
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.events import (
    AttemptRef,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
    StepFinished,
)
from proctor_common.messages.log import Chunk, decode_chunk
from proctor_common.messages.orders import CancelOrder, QueryOrder, StandingReply, StartOrder, StartReply
from proctor_common.service import Stop
from support.processes import Child, Processes
from support.sshd import SshTarget
from support.wait import eventually

TRIAL = '''
"""Methods that behave badly, each in its own way."""

import asyncio
import time

from proctor_agent.plugin import Context, Plugin, Secret, method
from proctor_common.states import Source


class Trial(Plugin):
    @method(description="holds the agent's loop")
    async def block(self, context: Context, seconds: float) -> None:
        await context.log("blocking")
        await asyncio.sleep(0.1)
        time.sleep(seconds)

    @method(description="writes bytes, cut where it is told")
    async def write(self, context: Context, pieces: list[str]) -> None:
        for piece in pieces:
            await context._attempt.write(Source.STDOUT, bytes.fromhex(piece))
            await asyncio.sleep(0.005)

    @method(description="shows its secret wherever it can")
    async def blab(self, context: Context, token: Secret) -> None:
        await context.log("token " + token)
        await context.shell('printf %s "$TOKEN"; echo; echo "$TOKEN" >&2', env={"TOKEN": token})
        raise ValueError("my token is " + token)

    @method(description="does not let itself be cancelled")
    async def cling(self, context: Context) -> None:
        until = time.monotonic() + 6.5
        while time.monotonic() < until:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                pass

    @method(description="cancels itself")
    async def give_up(self, context: Context) -> None:
        raise asyncio.CancelledError
'''


def install_trial(folder: Path) -> Path:
    """The plugin ``trial`` as an installed distribution in ``folder``, which belongs on sys.path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "proctor_trial.py").write_text(TRIAL)
    about = folder / "proctor_trial-1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: proctor-trial\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[proctor.plugins]\ntrial = proctor_trial:Trial\n")
    return folder


class AgentWorld:
    """What the agent said is kept: ``beats``, ``registrations``, ``ends`` (every copy). What it is told: ``confirming``
    (confirm each end that arrived), ``unwanted``, ``draining``, ``refusing`` (why), the time (``clock_offset``).
    """

    def __init__(self, url: str, folder: Path, ssh: SshTarget) -> None:
        self.url = url
        self.folder = folder
        self.ssh = ssh
        self.agent = new_id()
        self.run_id = new_id()
        self.data = folder / "agent"
        self.plugins = install_trial(folder / "plugins")
        self.beats: list[Heartbeat] = []
        self.beaten_at: list[float] = []
        self.registrations: list[Registration] = []
        self.ends: list[StepFinished] = []
        self.confirming = True
        self.unwanted: list[AttemptRef] = []
        self.draining = False
        self.over: list[str] = []
        self.register_again = False
        self.command = [sys.executable, "-m", "proctor_agent"]
        self.refusing = ""
        self.clock_offset = timedelta(0)
        self.before_end: Callable[[StepFinished], Awaitable[None]] | None = None
        self._bus: Bus | None = None

    # -- the controller -------------------------------------------------------------------------------------------

    @property
    def bus(self) -> Bus:
        assert self._bus is not None
        return self._bus

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Self]:
        options = BusOptions((self.url,), name="controller of a test", reconnect_wait=(0.05, 0.2))
        async with Bus(options) as bus:
            self._bus = bus
            await bus.ensure_stream(log_stream(max_bytes=2 * 1024**3))
            await bus.ensure_stream(event_stream())
            durable = f"test-{self.agent}"
            spec = ConsumerSpec(subjects.EVENT_STREAM, durable, filter_subject=subjects.events_of(self.agent))
            await bus.ensure_consumer(spec)
            await bus.serve(subjects.heartbeat(self.agent), self._on_beat)
            await bus.serve(subjects.registration(self.agent), self._on_registration)
            reading = asyncio.create_task(bus.consume(subjects.EVENT_STREAM, durable, self._on_event))
            try:
                yield self
            finally:
                reading.cancel()
                await asyncio.wait({reading}, timeout=5)

    async def _on_beat(self, message: Message) -> bytes:
        beat = decode(Heartbeat, message.data)
        self.beats.append(beat)
        self.beaten_at.append(asyncio.get_running_loop().time())
        arrived = {(end.step, end.attempt) for end in self.ends}
        confirmed = [ref for ref in beat.ended if (ref.step, ref.attempt) in arrived] if self.confirming else []
        return HeartbeatReply(
            time=datetime.now(UTC) + self.clock_offset,
            confirmed=confirmed,
            unwanted=self.unwanted,
            draining=self.draining,
            register_again=self.register_again,
            over=[run for run in beat.holding if run in self.over],
            refused=self.refusing,
        ).encode()

    async def _on_registration(self, message: Message) -> bytes:
        self.registrations.append(decode(Registration, message.data))
        now = datetime.now(UTC) + self.clock_offset
        return RegistrationReply(agent=self.agent, host="lab", number=1, time=now, refused=self.refusing).encode()

    async def _on_event(self, message: StreamMessage) -> Verdict:
        end = decode(StepFinished, message.data)
        if self.before_end is not None:
            await self.before_end(end)
        self.ends.append(end)
        return ACK

    # -- the agent ------------------------------------------------------------------------------------------------

    def settings(self, **changes: Any) -> dict[str, Any]:
        self.data.mkdir(mode=0o700, exist_ok=True)
        identity = AgentIdentity(self.agent, "lab", [self.url], None)
        (self.data / IDENTITY_FILE).write_text(json.dumps(asdict(identity)))
        target = {
            "host": self.ssh.host,
            "port": self.ssh.port,
            "user": self.ssh.user,
            "key_file": str(self.ssh.key),
            "known_hosts_file": str(self.ssh.known_hosts),
        }
        return {
            "data_dir": str(self.data),
            "targets": {"lab": target},
            "heartbeat": 0.1,
            "republish": 0.3,
            "journal_reserve": 1024 * 1024,
            "slots": 4,
            **changes,
        }

    @asynccontextmanager
    async def agent_here(self, **changes: Any) -> AsyncIterator[Stop]:
        """The agent in this process, registered; it is asked to stop at the end, or sooner by the test."""
        stop = Stop()
        before = len(self.registrations)
        task = asyncio.create_task(run(AgentSettings(**self.settings(**changes)), stop))
        try:
            await eventually(lambda: len(self.registrations) > before or task.done(), 15, "the registration")
            if task.done():
                task.result()
            yield stop
        finally:
            stop.ask("the test is over")
            done, _ = await asyncio.wait({task}, timeout=15)
            task.cancel()
            if done:
                task.result()
            else:
                raise AssertionError("the agent does not end")

    async def agent_process(self, processes: Processes, **changes: Any) -> Child:
        """The agent as a process of its own, registered."""
        before = len(self.registrations)
        settings = self.settings(**changes)
        env = {f"PROCTOR_AGENT_{name.upper()}": _text(value) for name, value in settings.items()}
        env["PYTHONPATH"] = str(self.plugins)
        child = processes.start([*self.command, "run"], name="agent", env=env)
        await eventually(lambda: len(self.registrations) > before or not child.alive, 30, "the registration")
        assert child.alive, child.output
        return child

    # -- orders ---------------------------------------------------------------------------------------------------

    def shell(self, text: str, *args: str, **about: Any) -> StartOrder:
        """An order to run shell text on the target."""
        return self.order("linux_system", "run_shell", {"command": text, "shell": True, "args": list(args)}, **about)

    def order(self, plugin: str, method: str, parameters: dict[str, Any], **about: Any) -> StartOrder:
        order = StartOrder(
            run=self.run_id,
            run_number=1,
            step=new_id(),
            step_name="trial",
            attempt=1,
            token=new_id(),
            not_after=datetime.now(UTC) + timedelta(seconds=30),
            plugin=plugin,
            method=method,
            parameters=parameters,
            timeout_s=60,
            grace_s=0.5,
        )
        return order.model_copy(update=about)

    async def start(self, order: StartOrder) -> StartReply:
        return decode(StartReply, await self.ask("start", order.encode()))

    async def cancel(self, order: StartOrder, cause: str = "cancelled", grace_s: float = 0.5) -> StandingReply:
        names: dict[str, Any] = {"run": order.run, "step": order.step, "attempt": order.attempt, "token": order.token}
        asked = CancelOrder(**names, cause=cause, grace_s=grace_s)
        return decode(StandingReply, await self.ask("cancel", asked.encode()))

    async def query(self, order: StartOrder) -> StandingReply:
        asked = QueryOrder(run=order.run, step=order.step, attempt=order.attempt, token=order.token)
        return decode(StandingReply, await self.ask("query", asked.encode()))

    async def ask(self, verb: str, data: bytes) -> bytes:
        return await self.bus.request(subjects.order(self.agent, verb), data, timeout=10)

    async def end_of(self, order: StartOrder, timeout: float = 20) -> StepFinished:
        """The attempt's end, when it has arrived."""

        def find() -> StepFinished | None:
            return next((e for e in self.ends if (e.step, e.attempt) == (order.step, order.attempt)), None)

        end: StepFinished = await eventually(find, timeout, f"the end of {order.step_name}")
        return end

    async def run_to_end(self, order: StartOrder, timeout: float = 20) -> StepFinished:
        reply = await self.start(order)
        assert reply.answer == "accepted", reply
        return await self.end_of(order, timeout)

    # -- logs -----------------------------------------------------------------------------------------------------

    async def stored(self, order: StartOrder) -> list[Chunk]:
        """The attempt's chunks as the stream has them: each once, by ``seq``."""
        chunks: dict[int, Chunk] = {}
        following = 1
        subject = subjects.log_of_attempt(order.run, order.step, order.attempt)
        while True:
            found = await self.bus.direct_get(
                subjects.LOG_STREAM, start_seq=following, subject_filter=subject, batch=1000, max_bytes=8 * 1024**2
            )
            for one in found:
                chunk = decode_chunk(one.data)
                known = chunks.setdefault(chunk.seq, chunk)
                assert (known.data, known.gap, known.first_line) == (chunk.data, chunk.gap, chunk.first_line)
            if not found or not found[-1].num_pending:
                return [chunks[seq] for seq in sorted(chunks)]
            following = found[-1].seq + 1

    async def log_of(self, order: StartOrder, end: StepFinished) -> list[Chunk]:
        """The whole log; fails where a ``seq`` or a line is missing, or where the end counts otherwise."""
        chunks = await self.stored(order)
        assert [chunk.seq for chunk in chunks] == list(range(1, end.chunks + 1))
        assert sum(len(chunk.data) for chunk in chunks) == end.bytes
        line = 1
        for chunk in chunks:
            if chunk.gap is None and not any(other.gap for other in chunks[: chunk.seq]):
                assert chunk.first_line == line, f"chunk {chunk.seq}"
            assert chunk.first_line >= line
            line = chunk.first_line + chunk.data.count(b"\n")
        return chunks

    def on_disk(self) -> bytes:
        """All that the agent has in its data directory."""
        found = []
        for path in sorted(self.data.rglob("*")):
            with suppress(OSError):
                found.append(path.read_bytes())
        return b"\n".join(found)

    def spooled(self) -> list[str]:
        return sorted(path.name for path in (self.data / "spool").iterdir())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
