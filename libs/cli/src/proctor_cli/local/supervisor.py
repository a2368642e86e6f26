"""Child processes that are restarted when they die, and stopped in order."""

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proctor_cli.local.faults import GivenUp
from proctor_cli.local.processes import Child, ChildSpec

START_PATIENCE = 30.0
"""Seconds in which a failing start is repeated before it counts as one death."""
WINDOW = 60.0
MAX_DEATHS = 3
RETRY_PAUSE = 0.25
STOP_SECONDS = 4.2
SURE_SECONDS = 0.4
SETTLED = 5.0
"""Seconds after which a child without a better check counts as started."""
CONFIGURATION_FAULT = 2
LAST_LINES = 5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Care:
    """How to treat a child besides its process."""

    is_up: Callable[[int], Awaitable[bool]] | None = None
    """Called with its pid repeatedly until True; None: it is up after SETTLED seconds."""
    before: Callable[[], Awaitable[None]] | None = None
    """Runs before each start; may raise CommandFault."""
    started: Callable[[Child], None] | None = None
    """Called with each new process."""


class DeathCount:
    """Three deaths in a minute are too many."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_DEATHS)

    def add(self, time: float) -> bool:
        """Count a death; whether there were too many."""
        self._times.append(time)
        return len(self._times) == MAX_DEATHS and time - self._times[0] <= WINDOW


class ChildKeeper:
    """Keeps one child running until asked to stop."""

    def __init__(self, spec: ChildSpec, care: Care, say: Say) -> None:
        self.spec = spec
        self.up = asyncio.Event()
        """Set while it is up."""
        self.child: Child | None = None
        self._care = care
        self._say = say
        self._stopping = False
        self._ever_up = False
        self._deaths = DeathCount()
        self._failing_since: float | None = None

    async def keep(self) -> None:
        """Start the child, and restart it when it dies. Returns after :meth:`stop`. Raises GivenUp, or what ``before``
        raises.
        """
        died = False
        while not self._stopping:
            if self._care.before is not None:
                await self._care.before()
            if self._stopping:
                return
            former = self.child
            child = self._start()
            if died and former is not None:
                how = ending(former.code)
                self._say(f"{self.spec.name} died ({how}) and is started again (pid {child.pid})")
            was_up = await self._watch(child)
            if self._stopping:
                return
            died = self._note_end(child, was_up)
            if not died:
                await asyncio.sleep(RETRY_PAUSE)

    def _start(self) -> Child:
        try:
            child = self.child = Child(self.spec)
        except OSError as fault:
            raise GivenUp(f"cannot start {self.spec.name}: {fault.strerror or fault}") from None
        if self._care.started is not None:
            self._care.started(child)
        return child

    async def _watch(self, child: Child) -> bool:
        """Wait for the child's end; whether it had been up."""
        probe = asyncio.create_task(self._wait_until_up(child), name=f"probe {self.spec.name}")
        try:
            await child.ended.wait()
        finally:
            was_up = self.up.is_set()
            self.up.clear()
            probe.cancel()
            await asyncio.wait({probe})
        if not probe.cancelled() and (fault := probe.exception()) is not None:
            raise fault
        return was_up

    async def _wait_until_up(self, child: Child) -> None:
        if self._care.is_up is None:
            await asyncio.sleep(SETTLED)
        else:
            while not await self._care.is_up(child.pid):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
        self._failing_since = None
        self._ever_up = True
        self.up.set()

    def _note_end(self, child: Child, was_up: bool) -> bool:
        """Judge an unexpected end: whether it is a death, not a start that failed. Raises GivenUp."""
        now = asyncio.get_running_loop().time()
        how = ending(child.code)
        if was_up or child.code <= 0:
            if self._deaths.add(now):
                raise GivenUp(self._explained(f"{self.spec.name} died three times within a minute ({how})"))
            return True
        if not self._ever_up and child.code == CONFIGURATION_FAULT:
            raise GivenUp(self._explained(f"{self.spec.name} does not start ({how})"))
        if self._failing_since is None:
            self._failing_since = now
            self._say(f"{self.spec.name} does not start ({how}); trying again for {START_PATIENCE:.0f} s")
        elif now - self._failing_since >= START_PATIENCE:
            if not self._ever_up or self._deaths.add(self._failing_since):
                raise GivenUp(self._explained(f"{self.spec.name} does not start ({how})"))
            self._failing_since = None
        return False

    def _explained(self, message: str) -> str:
        said = last_lines(self.spec)
        return f"{message}; its log: {self.spec.log}" + "".join(f"\n  {line}" for line in said)

    def ask_to_stop(self) -> None:
        """Stop restarting; send the stop signal."""
        self._stopping = True
        if self.child is not None:
            self.child.signal(self.spec.stop_signal)

    async def stopped(self, grace: float) -> None:
        """Wait for the end; SIGKILL after ``grace`` seconds."""
        child = self.child
        if child is None:
            return
        try:
            async with asyncio.timeout(grace):
                await child.ended.wait()
        except TimeoutError:
            self._say(f"{self.spec.name} did not stop in {grace:.1f} s and is killed")
        child.kill_session()
        await child.ended.wait()


class ChildSupervisor:
    """All children, in stop order: each group is stopped after the former one has ended."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._groups: dict[int, list[ChildKeeper]] = {}
        self._tasks: dict[asyncio.Task[None], ChildKeeper] = {}
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, spec: ChildSpec, care: Care, *, stop_after: int) -> ChildKeeper:
        """Start a child and keep it. Groups with a low ``stop_after`` are stopped first."""
        keeper = ChildKeeper(spec, care, self._say)
        self._groups.setdefault(stop_after, []).append(keeper)
        task = asyncio.create_task(keeper.keep(), name=f"keep {spec.name}")
        self._tasks[task] = keeper
        task.add_done_callback(self._on_done)
        return keeper

    async def remove(self, keeper: ChildKeeper) -> None:
        """Stop one child permanently."""
        keeper.ask_to_stop()
        await keeper.stopped(keeper.spec.grace)
        for group in self._groups.values():
            if keeper in group:
                group.remove(keeper)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not self._fault.done():
            self._fault.set_exception(fault)

    async def failed(self) -> None:
        """Wait until a child cannot be kept running; raises the reason. Never returns."""
        await asyncio.shield(self._fault)

    def keepers(self) -> Sequence[ChildKeeper]:
        """All of them, in stop order."""
        return [keeper for _, group in sorted(self._groups.items()) for keeper in group]

    async def stop(self, budget: float = STOP_SECONDS) -> None:
        """Stop everything in order, within about ``budget`` seconds; SIGKILL after a child's grace.

        A group may use the time that former ones left, except for a minimum reserved for each later one.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + budget
        groups = [group for _, group in sorted(self._groups.items())]
        for later, group in zip(range(len(groups) - 1, -1, -1), groups, strict=True):
            for keeper in group:
                keeper.ask_to_stop()
            left = max(deadline - now() - later * SURE_SECONDS, SURE_SECONDS)
            await asyncio.gather(*(keeper.stopped(min(keeper.spec.grace, left)) for keeper in group))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._fault.done():
            self._fault.exception()  # read, so that asyncio does not warn


def ending(code: int) -> str:
    """How a process ended, as text."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def last_lines(spec: ChildSpec) -> list[str]:
    """The last lines of a child's log."""
    try:
        with spec.log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 4096))
            return log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    except OSError:
        return []
