"""A plan of many short steps, several wide, against the same commands on a warm asyncssh connection."""

import asyncio
import time
from typing import Any

from websockets.asyncio.client import connect

from bench.client import connected
from bench.dispatch import Finishes, several
from bench.figures import Figure, Report, percentile
from bench.system import System, bare_connection


def plan(count: int, width: int) -> dict[str, Any]:
    """``count`` steps in ``width`` chains: each waits for the one ``width`` before it."""
    return {
        "testplan_version": "2026-12-01",
        "name": "bench",
        "steps": {
            f"s{n}": {
                "uses": "linux_system.run_shell",
                "runs_on": {"host": "local-1"},
                "with": {"command": "echo", "args": ["hi"]},
                "depends_on": [f"s{n - width}"] if n >= width else [],
            }
            for n in range(count)
        },
    }


async def measure(system: System, report: Report, count: int = 200, width: int = 8, rounds: int = 5) -> None:
    """Seconds for the whole plan, from POST to the event that it is finished, floor and Proctor in turns."""
    url = system.url.replace("http", "ws", 1) + "/v1/events"
    async with (
        bare_connection(system) as ssh,
        connected(system.url, system.headers) as http,
        connect(url, additional_headers=system.headers, compression=None) as socket,
    ):
        finishes = Finishes(socket)
        listener = asyncio.create_task(finishes.listen())

        async def one() -> float:
            await ssh.run("echo hi", check=True)
            return 0.0

        async def floor() -> float:
            begun = time.perf_counter()
            await several(one, count, width)
            return time.perf_counter() - begun

        async def ours() -> float:
            begun = time.perf_counter()
            run = await http.post("/v1/runs", {"plan": plan(count, width)})
            assert await finishes.result(run["id"]) == "passed"
            return time.perf_counter() - begun

        await floor()
        await ours()
        pairs = [(await ours(), await floor()) for _ in range(rounds)]
        listener.cancel()
    ratio = percentile([a / b for a, b in pairs], 0.5)
    a, b = (percentile([pair[index] for pair in pairs], 0.5) for index in (0, 1))
    name = f"plan of {count} steps, {width} wide"
    report.add(Figure(name, f"{a:.2f} s", f"{b:.2f} s", ratio, "<= 2.5 times", ratio <= 2.5))
