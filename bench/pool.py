"""The volume pool: claims by a hundred at once, a refill, and what the backend is asked at rest.

On a local system of its own with the local backend. The claims go through the same code as a controller's, in this
process, on the system's own database, while its keeper renames and refills on the same cores; and once more by HTTP.
"""

import asyncio
import os
import socket
import tempfile
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.figures import Figure, Report, percentile
from bench.system import System, local_system
from proctor_common.clock import SystemClock
from proctor_common.ids import new_id
from proctor_common.pg import make_engine
from proctor_controller.context import SERVER_SETTINGS
from proctor_controller.db.pool.claims import Demand
from proctor_controller.db.session import close_sessions
from proctor_controller.domain.volumes.settings import LocalSettings
from proctor_controller.pool.demands import Demands
from proctor_controller.volumes.local import LocalBackend

CLAIMANTS, DEFICIT, REST_SECONDS = 100, 300, 30.0
INI = """
[volumes]
concurrency = 10
[volumes_backup]
volume_backup_types = igw
backup_nums_igw = 0
[pool]
backend = local
"""


async def measure(report: Report, scale: float = 1.0) -> None:
    """All three figures."""
    with tempfile.TemporaryDirectory(prefix="proctor-bench-pool-") as folder, _metrics() as metrics:
        data = Path(folder) / "data"
        data.mkdir(mode=0o711)
        (data / "pool.ini").write_text(INI)
        with local_system(data) as system:
            async with httpx.AsyncClient(base_url=system.url, headers=system.headers, timeout=60) as http:
                await _measure_refill(report, http, Path(folder), int(DEFICIT * scale))
                await _measure_rest(report, http, metrics, REST_SECONDS * scale)
                await _measure_claims(report, http, system, int(1000 * scale))


@contextmanager
def _metrics() -> Iterator[str]:
    """An address of the controller's metrics: what `proctor up` has in its environment reaches its services."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    name = "PROCTOR_CONTROLLER_METRICS_HTTP"
    os.environ[name] = address
    try:
        yield address
    finally:
        del os.environ[name]


async def _fill(http: httpx.AsyncClient, target: int) -> float:
    """Seconds until there are so many spares."""
    begun = time.perf_counter()
    (await http.put("/v1/pools/igw", json={"target": target})).raise_for_status()
    while True:
        pool = (await http.get("/v1/pools")).json()["items"][0]
        if pool["ready"] == target and not pool["creating"]:
            return time.perf_counter() - begun
        await asyncio.sleep(0.05)


async def _measure_refill(report: Report, http: httpx.AsyncClient, folder: Path, deficit: int) -> None:
    backend = LocalBackend(folder / "floor", "bench", LocalSettings())
    gate = asyncio.Semaphore(10)

    async def make() -> None:
        async with gate:
            await backend.get(await backend.create(new_id(), "floor", "igw", 1))

    begun = time.perf_counter()
    await asyncio.gather(*(make() for _ in range(deficit)))
    floor = time.perf_counter() - begun
    seconds = await _fill(http, deficit)
    report.add(Figure(f"pool: refill of {deficit}", f"{seconds:.1f} s", f"{floor:.1f} s", seconds / floor, "", None))


async def _calls(metrics: str) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://{metrics}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("proctor_pool_backend_calls_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def _last_runs(http: httpx.AsyncClient) -> tuple[str, str]:
    """When each job began last."""
    pool = (await http.get("/v1/pools")).json()["items"][0]
    return pool["replenish"]["last"], pool["sync"]["last"]


async def _measure_rest(report: Report, http: httpx.AsyncClient, metrics: str, seconds: float) -> None:
    """Calls of each job's run, and of the time between them, put together for an hour."""
    counted = [await _calls(metrics)]
    for job in ("sync", "replenish"):
        assert (await http.post(f"/v1/pools/{job}")).json()["outcome"] == "started"
        await asyncio.sleep(3)
        counted.append(await _calls(metrics))
    sync, replenish = counted[1] - counted[0], counted[2] - counted[1]
    while True:
        # Between runs: one that the clock began meanwhile is in the figure already.
        runs, before = await _last_runs(http), await _calls(metrics)
        await asyncio.sleep(seconds)
        idle = await _calls(metrics) - before
        if await _last_runs(http) == runs:
            break
    hourly = 12 * sync + 6 * replenish + idle * 3600 / seconds
    report.add(Figure("pool: backend calls an hour at rest", f"{hourly:.0f}", "12", None, "<= 12", hourly <= 12))


async def _measure_claims(report: Report, http: httpx.AsyncClient, system: System, spares: int) -> None:
    await _fill(http, spares)
    engine = _engine(system)
    try:
        times = await _claim(engine, spares)
    finally:
        await close_sessions(engine)
        await engine.dispose()
    seconds, slow = sum(times) / CLAIMANTS, percentile(times, 0.99)
    report.add(Figure(f"pool: claims, {CLAIMANTS} at once", f"{len(times) / seconds:.0f}/s", "", None, "", None))
    report.add(Figure("pool: claim p50", f"{percentile(times, 0.5) * 1e3:.1f} ms", "", None, "", None))
    report.add(Figure("pool: claim p99", f"{slow * 1e3:.1f} ms", "", None, "<= 50 ms", slow <= 0.05))
    await _fill(http, spares)

    async def read(n: int) -> None:
        (await http.get("/v1/vnfps", params={"limit": 1})).raise_for_status()

    async def create(n: int) -> None:
        answer = await http.post("/v1/vnfps", json={"name": f"http-{n}", "type": "igw"})
        assert answer.json()["state"] == "active", answer.text

    floor, floor_rate = await _by_http(read, spares // 2)
    times, rate = await _by_http(create, spares // 2)
    name = f"pool: POST /v1/vnfps, {CLAIMANTS} at once"
    report.add(Figure(name, f"{rate:.0f}/s", f"{floor_rate:.0f}/s (GET)", rate / floor_rate, "", None))
    slow, least = percentile(times, 0.99), percentile(floor, 0.99)
    report.add(Figure(f"{name}, p99", f"{slow * 1e3:.0f} ms", f"{least * 1e3:.0f} ms", slow / least, "", None))


async def _by_http(request: Callable[[int], Awaitable[None]], count: int) -> tuple[list[float], float]:
    """The times of so many requests, a hundred at once, and how many a second."""
    gate = asyncio.Semaphore(CLAIMANTS)

    async def timed(n: int) -> float:
        async with gate:
            begun = time.perf_counter()
            await request(n)
            return time.perf_counter() - begun

    begun = time.perf_counter()
    times = await asyncio.gather(*(timed(n) for n in range(count)))
    return list(times), count / (time.perf_counter() - begun)


def _engine(system: System) -> AsyncEngine:
    settings = tomllib.loads((system.data / "controller.toml").read_text())
    password = Path(settings["database_password_file"]).read_text().strip()
    return make_engine(
        settings["database_url"], application_name="bench", password=password, server_settings=SERVER_SETTINGS
    )


async def _claim(engine: AsyncEngine, spares: int) -> list[float]:
    """A hundred claimants, each claiming again as soon as it has got one, until the spares are used up."""

    async def nobody() -> None:
        return None

    demands = Demands(engine, SystemClock(), nobody)
    # A controller has its connections already.
    for _ in range(5):
        await asyncio.gather(*(demands.claim("igw", 1, Demand(new_id(), "warm-up")) for _ in range(2)))
    times: list[float] = []

    async def claimant(n: int) -> None:
        for turn in range(spares // CLAIMANTS - 1):
            begun = time.perf_counter()
            assert await demands.claim("igw", 1, Demand(new_id(), f"vnf-{n}-{turn}"))
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(claimant(n) for n in range(CLAIMANTS)))
    return times
