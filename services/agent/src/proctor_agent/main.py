"""The agent's process: identity, journal, bus, plugins; clean up what a former process left; then take orders."""

import asyncio
import fcntl
import os
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import structlog

from proctor_agent import loader
from proctor_agent.attempts.context import AgentContext
from proctor_agent.attempts.debts import Debts
from proctor_agent.attempts.ends import UnconfirmedEnds
from proctor_agent.attempts.journal import Journal
from proctor_agent.attempts.leftovers import Leftovers
from proctor_agent.attempts.supervisor import Supervisor
from proctor_agent.heartbeat import Heart
from proctor_agent.identity import AgentIdentity, ca_path, join, load_identity, make_folder, own_seed
from proctor_agent.log.spool import Spool
from proctor_agent.plugin_host import PluginWorkbench
from proctor_agent.registrar import Registrar
from proctor_agent.settings import AgentSettings
from proctor_agent.ssh import Targets
from proctor_common import subjects
from proctor_common.bus import Bus, BusError, BusOptions
from proctor_common.ids import new_id
from proctor_common.messages.events import HeartbeatReply, Registration, TargetSpec
from proctor_common.metrics import make_registry, observe_bus
from proctor_common.probe import serve_probe
from proctor_common.service import Background, StartError, Stop

log = structlog.get_logger(__name__)

STOP_PATIENCE = 3.0
STUCK_AFTER = 60.0
T = TypeVar("T")


async def run(settings: AgentSettings, stop: Stop) -> None:
    """Run an agent until it is asked to stop. Raises StartError."""
    folder = make_folder(settings.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(only_one(folder))
        identity = await _unless_stopped(stop, who_am_i(settings, folder))
        if identity is None:
            return
        journal = await open_journal(settings, folder, stack)
        spool = Spool(folder / "spool", limit=settings.spool_limit, attempt_limit=settings.attempt_spool_limit)
        stack.callback(spool.close)
        instance = new_id()
        options = bus_options(settings, folder, identity, instance)
        try:
            bus = await _unless_stopped(stop, stack.enter_async_context(Bus(options)))
        except BusError as fault:
            raise StartError(f"no connection to the bus at {options.shown}: {fault}") from None
        if bus is None:
            return
        if settings.metrics_http is not None:
            registry = make_registry()
            observe_bus(registry, bus)
            stack.enter_context(serve_probe(settings.metrics_http, registry, lambda: health(bus)))
        targets = Targets(settings.ssh_targets(), settings.default_target)
        workbench = PluginWorkbench(loader.load(settings.plugins, settings.plugin_settings), targets)
        stack.push_async_callback(workbench.close)
        targets.start()
        for name, reason in workbench.load_errors.items():
            log.error("plugin_not_loaded", plugin=name, reason=reason)
        ends = UnconfirmedEnds(bus, identity.agent, journal, spool, republish=settings.republish)
        debts = Debts(workbench)
        stack.push_async_callback(debts.close)
        context = AgentContext(
            identity.agent, bus, journal, spool, workbench, ends, debts, targets.default, folder / "work"
        )
        leftovers = Leftovers(context)
        await leftovers.find()
        process = _Process(settings, context, instance, leftovers)
        await process.live(stack, options, identity, stop)


async def _unless_stopped(stop: Stop, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None if the agent is asked to end before."""
    task = asyncio.create_task(work)
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, asked):
            one.cancel()
        await asyncio.wait({task, asked}, timeout=5)


class _Process:
    """Heartbeat, registration, answers and cleaning up in this process."""

    def __init__(self, settings: AgentSettings, context: AgentContext, instance: str, leftovers: Leftovers) -> None:
        self._settings = settings
        self._context = context
        self._instance = instance
        self._supervisor = Supervisor(context, slots=settings.slots)
        self._leftovers = leftovers
        self._boot_id = boot_id()
        self._loop = asyncio.get_running_loop()
        self._registrar: Registrar | None = None
        self._background: Background | None = None

    async def live(self, stack: AsyncExitStack, options: BusOptions, identity: AgentIdentity, stop: Stop) -> None:
        """Take orders until asked to end."""
        self._background = await stack.enter_async_context(Background(stop))
        self._registrar = Registrar(self._context.bus, identity.agent, self.describe, self._registered)
        self._supervisor.cleaning = bool(self._leftovers.cut_off)
        try:
            await self._supervisor.serve()
        except BusError as fault:
            raise StartError(f"cannot take orders: {fault}") from None
        heart = Heart(
            options,
            identity.agent,
            boot_id=self._boot_id,
            instance=self._instance,
            slots=self._settings.slots,
            interval=self._settings.heartbeat,
            snapshot=self._supervisor.snapshot,
            beaten=lambda reply, here: _post(self._loop, self.on_beat, reply, here),
        )
        heart.start()
        stack.push_async_callback(asyncio.to_thread, heart.stop)
        self._background.start("registrar", self._registrar.run())
        self._background.start("ends", self._context.ends.repeat())
        self._background.start("leftovers", self._leftovers.settle(self._clean))
        log.info("agent_ready", agent=identity.agent, host=identity.host, instance=self._instance)
        await stop.wait()
        await self._supervisor.stop_all(STOP_PATIENCE)

    def _clean(self) -> None:
        """What the former process left on the targets is gone, or reported: take work from now on."""
        self._supervisor.cleaning = False
        assert self._registrar is not None
        self._registrar.ask()

    def _registered(self, time: datetime, here: float) -> None:
        self._supervisor.set_clock(time, here)
        self._supervisor.admit()

    def describe(self) -> Registration:
        """The registration of this agent, as it is now."""
        settings = self._settings
        targets = {name: TargetSpec(host=t.host, port=t.port, user=t.user) for name, t in settings.targets.items()}
        return Registration(
            boot_id=self._boot_id,
            instance=self._instance,
            version=version("proctor-agent"),
            slots=settings.slots,
            plugins=dict(self._context.workbench.plugins),
            load_errors=dict(self._context.workbench.load_errors),
            targets=targets,
            default_target=settings.default_target or next(iter(targets), None),
            leftovers=self._leftovers.cut_off,
        )

    def on_beat(self, reply: HeartbeatReply, here: float) -> None:
        """Do what a heartbeat's answer asks for; in the main loop."""
        assert self._registrar is not None
        if reply.refused:
            log.error("heartbeat_refused", reason=reply.refused)
            self._supervisor.admit(reply.refused)
            self._registrar.ask()
            return
        self._supervisor.set_clock(reply.time, here)
        self._supervisor.draining = reply.draining
        if reply.over:
            self._context.workbench.end_runs(reply.over)
        if reply.register_again:
            self._registrar.ask()
        if reply.confirmed or reply.unwanted:
            assert self._background is not None
            self._background.start("beat", self._settle(reply))

    async def _settle(self, reply: HeartbeatReply) -> None:
        if reply.confirmed:
            await self._context.ends.confirm([(ref.step, ref.attempt) for ref in reply.confirmed])
        await self._supervisor.kill_unwanted(list(reply.unwanted))


async def who_am_i(settings: AgentSettings, folder: Path) -> AgentIdentity:
    """The identity of an earlier join, else join now. Raises StartError."""
    identity = load_identity(folder)
    if identity is None:
        if settings.join_url is None or settings.join_token is None:
            raise StartError(
                "this agent has not joined: `proctor agents enroll HOST` gives a token, "
                "`proctor-agent join URL` takes it on standard input"
            )
        token = settings.join_token.get_secret_value()
        identity = await join(folder, settings.join_url, token, settings.join_ca_file, _say_put_off)
        log.info("joined", agent=identity.agent, host=identity.host)
    if settings.host is not None and settings.host != identity.host:
        raise StartError(f"host: the settings say {settings.host}, but this agent joined as {identity.host}")
    return identity


def _say_put_off(reason: str, seconds: float) -> None:
    log.warning("join_put_off", reason=reason, seconds=seconds)


async def open_journal(settings: AgentSettings, folder: Path, stack: AsyncExitStack) -> Journal:
    """Open the journal; it is closed with the stack. Raises StartError."""
    journal = Journal(folder / "journal.db", reserve=settings.journal_reserve)
    try:
        await journal.open()
    except Exception as fault:
        raise StartError(f"cannot open the journal {folder / 'journal.db'}: {fault}") from None
    stack.push_async_callback(journal.close)
    return journal


def bus_options(settings: AgentSettings, folder: Path, identity: AgentIdentity, instance: str) -> BusOptions:
    """How this agent reaches the bus; the names of its connections contain the instance."""
    return BusOptions(
        servers=tuple(settings.nats_urls or identity.nats_urls),
        name=f"agent/{identity.agent}/{instance}",
        inbox_prefix=subjects.inbox_prefix(identity.agent),
        nkey_seed=own_seed(folder),
        ca_file=ca_path(folder, identity, settings.nats_ca_file),
        start_timeout=settings.start_timeout,
        allow_plaintext=settings.allow_plaintext,
    )


def health(bus: Bus) -> str:
    """Why the process is not well; empty if it is."""
    age = bus.watchdog_age
    return f"the bus has not been looked after for {age:.0f} s" if age > STUCK_AFTER else ""


def boot_id() -> str:
    """The kernel's id of this boot; if it has none, a text that is new at each start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return new_id()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the data directory for this process alone. Raises StartError if another one holds it."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"data_dir: another agent uses {folder}") from None
        yield
    finally:
        os.close(file)


def _post(loop: asyncio.AbstractEventLoop, call: object, *arguments: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]
