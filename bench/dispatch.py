"""Dispatch and throughput: POST a test case, wait for its finish, against the same command on bare asyncssh."""

import asyncio
import json
import time

from websockets.asyncio.client import ClientConnection, connect

from bench.client import connected
from bench.figures import Figure, Report, percentile
from bench.system import System, bare_connection

BODY = {
    "plugin": "linux_system",
    "method": "run_shell",
    "host": "local-1",
    "parameters": {"command": "echo", "args": ["hi"]},
}


class Finishes:
    """Waits for runs to finish on the events websocket, whichever comes first: the answer or the event."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def listen(self) -> None:
        """Read events until cancelled."""
        async for text in self._socket:
            event = json.loads(text)
            if event.get("kind") == "run" and event.get("to") == "finished":
                self._of(event["run"]).set_result(event["result"])

    async def result(self, run: str) -> str:
        """The result of a run, once it has finished."""
        return await asyncio.wait_for(self._of(run), 60)

    def _of(self, run: str) -> asyncio.Future[str]:
        return self._waiting.setdefault(run, asyncio.get_running_loop().create_future())


async def measure(system: System, report: Report, count: int = 300) -> None:
    """Both figures, floor and Proctor in turns of 50, so that drift of the machine meets both."""
    url = system.url.replace("http", "ws", 1) + "/v1/events"
    async with (
        bare_connection(system) as ssh,
        connected(system.url, system.headers) as http,
        connect(url, additional_headers=system.headers, compression=None) as socket,
    ):
        finishes = Finishes(socket)
        listener = asyncio.create_task(finishes.listen())

        async def floor() -> float:
            begun = time.perf_counter()
            await ssh.run("echo hi", check=True)
            return time.perf_counter() - begun

        async def ours() -> float:
            begun = time.perf_counter()
            run = await http.post("/v1/testcases", BODY)
            assert await finishes.result(run["id"]) == "passed"
            return time.perf_counter() - begun

        await several(floor, 20, 1)
        await several(ours, 20, 1)
        floors: list[float] = []
        times: list[float] = []
        for _ in range(count // 50):
            floors += await several(floor, 50, 1)
            times += await several(ours, 50, 1)
        for name, share, target in (("p50", 0.5, 4.0), ("p99", 0.99, None)):
            a, b = percentile(times, share), percentile(floors, share)
            wanted = f"<= {target:g} times" if target else ""
            report.add(
                Figure(
                    f"dispatch {name}",
                    f"{a * 1e3:.1f} ms",
                    f"{b * 1e3:.1f} ms",
                    a / b,
                    wanted,
                    None if target is None else a / b <= target,
                )
            )
        rates = []
        for _ in range(3):
            rates.append((await _rate(ours, count, 8), await _rate(floor, count, 8)))
        ratio = percentile([a / b for a, b in rates], 0.5)
        a, b = rates[len(rates) // 2]
        report.add(Figure("throughput, 8 in flight", f"{a:.0f}/s", f"{b:.0f}/s", ratio, ">= 0.25", ratio >= 0.25))
        listener.cancel()


async def several(one, count: int, width: int) -> list[float]:  # type: ignore[no-untyped-def]
    """The times that ``count`` calls took, ``width`` at once."""
    gate = asyncio.Semaphore(width)

    async def turn() -> float:
        async with gate:
            return float(await one())

    return list(await asyncio.gather(*(turn() for _ in range(count))))


async def _rate(one, count: int, width: int) -> float:  # type: ignore[no-untyped-def]
    begun = time.perf_counter()
    await several(one, count, width)
    return count / (time.perf_counter() - begun)
