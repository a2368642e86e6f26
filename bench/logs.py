"""The log path: flow (MB/s to a websocket viewer), delay (write to viewer), memory of the agent, 50 viewers."""

import asyncio
import json
import time
from typing import Any

import httpx
from websockets.asyncio.client import connect

from bench.figures import Figure, Report, percentile
from bench.system import System, bare_connection

FLOOD = "head -c {size} /dev/zero | tr '\\0' a | fold -w 99"
STAMPS = (
    "import sys,time\n"
    "t=time.time()\n"
    "for i in range({count}):\n"
    "    n=t+i/1000\n"
    "    d=n-time.time()\n"
    "    if d>0: time.sleep(d)\n"
    "    sys.stdout.write('%.6f\\n'%time.time()); sys.stdout.flush()\n"
)


async def _start(http: httpx.AsyncClient, command: str, args: list[str], shell: bool) -> str:
    parameters: dict[str, Any] = {"command": command, "args": args, "shell": shell}
    body = {
        "plugin": "linux_system",
        "method": "run_shell",
        "host": "local-1",
        "parameters": parameters,
        "timeout": 600,
    }
    answer = await http.post("/v1/testcases", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


async def _view(system: System, run: str) -> tuple[int, str]:
    """All of a run's log: its bytes, in order (each frame's first line checked), and how the run ended."""
    url = system.url.replace("http", "ws", 1) + f"/v1/runs/{run}/logs/tail"
    size, line = 0, 1
    async with connect(url, additional_headers=system.headers, compression=None, max_size=None) as socket:
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "chunk" and frame["source"] == "stdout":
                assert frame["first_line"] == line, f"line {frame['first_line']} where {line} was due"
                line += frame["text"].count("\n")
                size += len(frame["text"])
            elif frame["type"] == "gap":
                raise AssertionError(f"a gap: {frame}")
            elif frame["type"] == "end":
                return size, str(frame["result"])
    raise AssertionError("the tail ended without its end")


async def measure_flow(system: System, report: Report, size: int = 100_000_000, rounds: int = 3) -> None:
    """MB/s from the process to a viewer that has all of it, against bare asyncssh reading the same command."""
    command = FLOOD.format(size=size)
    rates = []
    async with (
        bare_connection(system) as ssh,
        httpx.AsyncClient(base_url=system.url, headers=system.headers, timeout=60) as http,
    ):
        for _ in range(rounds):
            begun = time.perf_counter()
            process = await ssh.create_process(command, encoding=None)
            total = 0
            while data := await process.stdout.read(262144):
                total += len(data)
            floor = total / (time.perf_counter() - begun) / 1e6
            begun = time.perf_counter()
            seen, result = await _view(system, await _start(http, command, [], True))
            assert result == "passed"
            assert seen == total, f"{seen} bytes of {total}"
            rates.append((seen / (time.perf_counter() - begun) / 1e6, floor))
    ratio = percentile([a / b for a, b in rates], 0.5)
    ours, floor = sorted(rates)[len(rates) // 2]
    report.add(Figure("log flow", f"{ours:.0f} MB/s", f"{floor:.0f} MB/s", ratio, ">= 0.5", ratio >= 0.5))


async def measure_memory(system: System, report: Report, size: int = 1_000_000_000) -> None:
    """Growth of the agent's resident memory while one step prints 1 GB."""
    agent = system.process("agent")
    before = peak = agent.memory_info().rss
    async with httpx.AsyncClient(base_url=system.url, headers=system.headers, timeout=60) as http:
        viewer = asyncio.create_task(_view(system, await _start(http, FLOOD.format(size=size), [], True)))
        while not viewer.done():
            peak = max(peak, agent.memory_info().rss)
            await asyncio.sleep(0.1)
        await viewer
    grown = (peak - before) / 2**20
    report.add(Figure(f"agent memory growth for {size / 1e9:g} GB", f"{grown:.0f} MiB", "", None, "<= 64", grown <= 64))


async def measure_delay(system: System, report: Report, count: int = 10_000) -> None:
    """Milliseconds from a line's write to its viewer, at 1,000 lines/s."""
    delays: list[float] = []
    async with httpx.AsyncClient(base_url=system.url, headers=system.headers, timeout=60) as http:
        run = await _start(http, "python3", ["-c", STAMPS.format(count=count)], False)
        url = system.url.replace("http", "ws", 1) + f"/v1/runs/{run}/logs/tail"
        async with connect(url, additional_headers=system.headers, compression=None, max_size=None) as socket:
            async for text in socket:
                now = time.time()
                frame = json.loads(text)
                if frame["type"] == "chunk" and frame["source"] == "stdout":
                    delays += [now - float(line) for line in frame["text"].split()]
                elif frame["type"] == "end":
                    break
    assert len(delays) == count, f"{len(delays)} lines of {count}"
    late = delays[count // 10 :]
    p50, p99 = percentile(late, 0.5) * 1e3, percentile(late, 0.99) * 1e3
    report.add(Figure("log delay p50", f"{p50:.1f} ms"))
    report.add(Figure("log delay p99", f"{p99:.1f} ms", "", None, "<= 100 ms", p99 <= 100))


async def measure_viewers(system: System, report: Report, viewers: int = 50) -> None:
    """CPU seconds of the agent and of the stream's server for one run's log, with 1 and with 50 viewers."""
    spent = {}
    async with httpx.AsyncClient(base_url=system.url, headers=system.headers, timeout=60) as http:
        for count in (1, viewers):
            watched = [system.process("agent"), next(c for c in system.launcher.children(True) if "nats" in c.name())]
            before = [sum(p.cpu_times()[:2]) for p in watched]
            run = await _start(
                http, "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done", [], True
            )
            await asyncio.gather(*(_view(system, run) for _ in range(count)))
            spent[count] = [sum(p.cpu_times()[:2]) - b for p, b in zip(watched, before, strict=True)]
    for index, name in enumerate(("agent", "nats-server")):
        one, many = spent[1][index], spent[viewers][index]
        value = f"{many:.2f} CPU s with {viewers} viewers"
        report.add(Figure(f"viewers, {name}", value, f"{one:.2f} CPU s with 1", many / max(one, 0.01), "nothing more"))
