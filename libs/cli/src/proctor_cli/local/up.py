"""``proctor up``: lock the data directory, run the local system, end it on a signal or when a child cannot be kept."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable

from proctor_cli.faults import CommandFault
from proctor_cli.local.folders import DataDir, hold, open_data_dir
from proctor_cli.local.supervisor import Say
from proctor_cli.local.system import LocalSystem, Options, clear_way

OnReady = Callable[[LocalSystem], Awaitable[int]]


def tell(line: str) -> None:
    """Print one line on standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"proctor up: {line}\n")
        sys.stderr.flush()


def run_up(options: Options, on_ready: OnReady | None = None, say: Say = tell) -> int:
    """Run the local system until SIGINT, SIGTERM or SIGHUP (exit code 0), or until ``on_ready`` has ended (its value).
    1 if a child cannot be kept running. Raises CommandFault if the system cannot start.
    """
    data = open_data_dir(options.data)
    with hold(data.root):
        return asyncio.run(_run(options, data, on_ready, say))


async def _run(options: Options, data: DataDir, on_ready: OnReady | None, say: Say) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked.set)
    await asyncio.to_thread(clear_way, data)
    system = LocalSystem(options, data, say)
    work = loop.create_task(_bring_up(system, on_ready, say), name="bring up")
    watch = loop.create_task(system.failed(), name="watch")
    stop = loop.create_task(asked.wait(), name="stop")
    try:
        await asyncio.wait({work, watch, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            return 0 if on_ready is None else 130
        ended = watch if watch.done() else work
        return ended.result() or 0
    except CommandFault as fault:
        say(str(fault))
        return fault.exit_code
    finally:
        for task in (work, watch, stop):
            task.cancel()
        await asyncio.wait({work, watch, stop}, timeout=2)
        await system.bring_down()


async def _bring_up(system: LocalSystem, on_ready: OnReady | None, say: Say) -> int:
    await system.bring_up()
    if on_ready is not None:
        return await on_ready(system)
    if system.options.no_auth:
        say("no authentication: whoever reaches this address is admin")
    words = ["ready", system.url, *(("token", system.token) if system.token else ())]
    with contextlib.suppress(BrokenPipeError):
        print(*words, flush=True)
    await asyncio.Event().wait()
    return 0
