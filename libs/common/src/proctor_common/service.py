"""Running a service: signals, owned background tasks, an orderly end, an exit code.

    async def main(stop: Stop) -> None:
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(Bus(...))
            tasks = await stack.enter_async_context(Background(stop))
            tasks.start("watchdog", watchdog(bus))
            await stop.wait()

    sys.exit(run_service("api", main))

Resources end in the reverse order of the ``AsyncExitStack``; the whole end has ``drain_timeout`` seconds.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2


class StartError(Exception):
    """The service cannot start (or go on), for a reason that its operator can fix: one line, no traceback.

    ``code``: the process's exit code: 1, or 2 for a wrong configuration.
    """

    def __init__(self, message: str, *, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ConfigurationError(StartError):
    """The settings or the command line are wrong: exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=EXIT_CONFIGURATION)


class Stop:
    """Whether the service must end, and why; for the service's own event loop."""

    def __init__(self) -> None:
        self.reason = ""
        self.fault: BaseException | None = None
        self._event = asyncio.Event()

    def ask(self, reason: str, fault: BaseException | None = None) -> None:
        """Ask the service to end; the first reason is kept."""
        if not self._event.is_set():
            self.reason = reason
            self.fault = fault
            self._event.set()

    @property
    def asked(self) -> bool:
        """Whether the service has been asked to end."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the service must end."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> bool:
        """Wait, at most until the service is asked to end; True if it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        return self._event.is_set()


class Background:
    """Tasks of the service: all are cancelled at its end; one that raises ends the service with its fault.

    Enter it after what the tasks use, so that the exit stack ends the tasks first.
    """

    def __init__(self, stop: Stop, *, timeout: float = 5.0) -> None:
        self._stop = stop
        self._timeout = timeout
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the tasks, last one first, and wait for each; a task that does not end is logged and left."""
        for task in list(reversed(self._tasks)):
            task.cancel()
            _, late = await asyncio.wait({task}, timeout=self._timeout)
            if late:
                log.error("task_does_not_end", task=task.get_name())

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` until it returns or the service ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.remove(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            self._stop.ask(f"{task.get_name()} failed", fault)


def run_service(
    name: str,
    main: Callable[[Stop], Coroutine[Any, Any, None]],
    *,
    drain_timeout: float = 20.0,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run ``main`` until it returns; SIGTERM and SIGINT ask its ``Stop``. The exit code is the result.

    A second signal, or ``drain_timeout`` seconds after the first, cancels ``main``. A :class:`StartError` is one
    line on standard error; any other fault is logged with its traceback.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_run(name, main, drain_timeout))
    except StartError as fault:
        return report(name, fault)
    except KeyboardInterrupt:
        return EXIT_FAILED


def report(name: str, fault: StartError) -> int:
    """Print on standard error why the service does not run; returns the exit code."""
    sys.stderr.write(f"proctor {name}: {fault.message}\n")
    sys.stderr.flush()
    return fault.code


async def _run(name: str, main: Callable[[Stop], Coroutine[Any, Any, None]], drain_timeout: float) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    task = loop.create_task(main(stop), name=f"service {name}")

    def on_signal(number: signal.Signals) -> None:
        if stop.asked:
            log.warning("stopping_at_once", signal=number.name)
            task.cancel()
            return
        log.info("stopping", signal=number.name)
        stop.ask(number.name)
        loop.call_later(drain_timeout, task.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    # A fault of a background task ends the service too, in the same bounded time.
    asked = loop.create_task(stop.wait())
    asked.add_done_callback(lambda _: loop.call_later(drain_timeout, task.cancel))
    try:
        return await _outcome(name, task, stop)
    finally:
        asked.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _outcome(name: str, task: "asyncio.Task[None]", stop: Stop) -> int:
    await asyncio.wait({task})
    if task.cancelled():
        log.error("stopped_late", reason=stop.reason)
        return EXIT_FAILED
    fault = task.exception() or stop.fault
    if isinstance(fault, StartError):
        raise fault
    if fault is not None:
        log.error("service_failed", service=name, reason=stop.reason, exc_info=fault)
        return EXIT_FAILED
    return EXIT_OK
