import sys
from pathlib import Path

from support.processes import Child, Processes

HEAD = """
import asyncio, sys
from contextlib import AsyncExitStack
from proctor_common.log_config import configure_logging
from proctor_common.service import Background, ConfigurationError, StartError, Stop, run_service
configure_logging("demo")

async def forever(name):
    try:
        print(name, "runs", flush=True)
        await asyncio.Event().wait()
    finally:
        print(name, "ends", flush=True)
"""
TAIL = "\nsys.exit(run_service('demo', main, drain_timeout=1))\n"


def start(processes: Processes, main: str) -> Child:
    return processes.start([sys.executable, "-c", HEAD + main + TAIL], name="service")


def test_a_signal_ends_it_in_reverse_order(processes: Processes) -> None:
    child = start(
        processes,
        """
async def main(stop):
    async with AsyncExitStack() as stack:
        stack.callback(print, "bus closed", flush=True)
        tasks = await stack.enter_async_context(Background(stop))
        tasks.start("first", forever("first"))
        tasks.start("second", forever("second"))
        await stop.wait()
        print("asked", stop.reason, flush=True)
""",
    )
    child.wait_for_line("second runs")
    child.process.terminate()
    assert child.process.wait(10) == 0
    assert child.stdout.split("\n")[-5:-1] == ["asked SIGTERM", "second ends", "first ends", "bus closed"]


def test_a_task_that_fails_ends_the_service_with_its_traceback(processes: Processes) -> None:
    child = start(
        processes,
        """
async def broken():
    raise ValueError("a surprise")

async def main(stop):
    async with Background(stop) as tasks:
        tasks.start("other", forever("other"))
        tasks.start("broken", broken())
        await stop.wait()
""",
    )
    assert child.process.wait(10) == 1
    assert "broken failed" in child.stderr
    assert "ValueError: a surprise" in child.stderr
    assert "other ends" in child.stdout


def test_what_does_not_end_is_ended(processes: Processes) -> None:
    main = """
async def main(stop):
    await forever("main")
"""
    child = start(processes, main)
    child.wait_for_line("main runs")
    child.process.terminate()
    assert child.process.wait(10) == 1
    assert "stopped_late" in child.stderr


def test_a_start_that_fails_is_one_line(processes: Processes, tmp_path: Path) -> None:
    child = start(processes, "async def main(stop):\n    raise StartError('no database')\n")
    assert child.process.wait(10) == 1
    assert child.stderr == "proctor demo: no database\n"
    child = start(processes, "async def main(stop):\n    raise ConfigurationError('no such setting')\n")
    assert child.process.wait(10) == 2
    assert child.stderr == "proctor demo: no such setting\n"
