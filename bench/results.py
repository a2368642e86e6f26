"""The Test API on many results: each documented filter and their pairs, the newest twenty, pages, the whole list, POST.

Each figure stands beside the bare SQL of the same query through asyncpg, or beside a bare FastAPI route that inserts
one row, in turns with it.
"""

import asyncio
import json
import random
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import asyncpg

from bench.figures import Figure, Report, percentile
from bench.system import System

DAYS = 730
KIB = 1024
BATCH = 10_000
NEVER = datetime.min.replace(tzinfo=UTC)
COLUMNS = (
    "id, pod_name, project_name, case_name, installer, version, scenario, build_tag, criteria, start_date, stop_date,"
    " trust_indicator, details::text AS details"
)
STORED = (
    *("id", "pod_name", "project_name", "case_name", "installer", "version", "scenario", "build_tag", "criteria"),
    *("start_date", "stop_date", "start_at", "stop_at", "trust_indicator", "size", "details"),
)
ORDER = "ORDER BY start_at DESC, id DESC"


@dataclass(frozen=True, slots=True)
class Filter:
    """A documented filter: how a URL says it, and how SQL says it with its values from $1 on."""

    name: str
    params: dict[str, Any]
    sql: str
    values: tuple[Any, ...]


def filters(now: datetime) -> list[Filter]:
    """One of each kind, with a value that one result in a hundred or so has."""
    equal = {
        "project": ("project_name", "project-07"),
        "case": ("case_name", "case-0107"),
        "pod": ("pod_name", "pod-33"),
        "installer": ("installer", "installer-41"),
        "version": ("version", "version-17"),
        "scenario": ("scenario", "scenario-23"),
        "build_tag": ("build_tag", "build-123"),
        "criteria": ("criteria", "ERROR"),
    }
    found = [Filter(name, {name: value}, f"{column} = {{}}", (value,)) for name, (column, value) in equal.items()]
    found.append(Filter("trust_indicator", {"trust_indicator": "0.37"}, "trust_indicator = {}", (0.37,)))
    found.append(Filter("period", {"period": 7}, "start_at >= {}", (now - timedelta(days=7),)))
    since, before = now - timedelta(days=300), now - timedelta(days=293)
    span = {"from": f"{since:%Y-%m-%d %H:%M:%S}", "to": f"{before:%Y-%m-%d %H:%M:%S}"}
    found.append(Filter("from+to", span, "start_at >= {} AND start_at < {}", (since, before)))
    return found


def rows(count: int, now: datetime) -> Iterator[tuple[Any, ...]]:
    """Results of two years, in the order of their dates; details of 2 KiB that compress as logs and figures do."""
    chance = random.Random(20)
    details = [_details(chance) for _ in range(500)]
    step = DAYS * 86400 / count
    for number in range(count):
        case = chance.randrange(1000)
        moment = (now - timedelta(seconds=(count - number) * step)).replace(microsecond=0)
        text = details[number % len(details)]
        end = moment + timedelta(seconds=60)
        yield (
            f"{int(moment.timestamp()):08x}{'b' * 10}{number & 0xFFFFFF:06x}",
            f"pod-{chance.randrange(100)}",
            f"project-{case % 100:02d}",
            f"case-{case:04d}",
            f"installer-{chance.randrange(100)}",
            f"version-{chance.randrange(100)}",
            f"scenario-{chance.randrange(100)}",
            f"build-{number // 100}",
            chance.choices(("PASS", "FAIL", "ERROR"), (90, 9, 1))[0],
            f"{moment:%Y-%m-%d %H:%M:%S}",
            f"{end:%Y-%m-%d %H:%M:%S}",
            moment,
            end,
            chance.randrange(100) / 100,
            len(text.encode()),
            text,
        )


def _details(chance: random.Random) -> str:
    figures = [{"name": f"test_{chance.randrange(10**6)}", "ms": round(chance.random() * 1e4, 3)} for _ in range(44)]
    text = json.dumps({"duration": chance.randrange(1000), "tests": figures})
    return text[:-1] + f', "pad": "{"x" * max(0, 2 * KIB - len(text) - 11)}"}}'


def _access(system: System) -> tuple[dict[str, Any], str]:
    """The api's settings and its password of the database."""
    settings = tomllib.loads((system.data / "api.toml").read_text())
    return settings, Path(settings["database_password_file"]).read_text().strip()


async def measure(system: System, report: Report, count: int, repeats: int = 20) -> None:
    """All figures with ``count`` results."""
    settings, password = _access(system)
    wire = Wire(system)
    connection = await asyncpg.connect(settings["database_url"], password=password, timeout=10)
    try:
        await connection.execute("SET jit = off")
        now = datetime.now(UTC).replace(microsecond=0)
        took = await _load(connection, count, now)
        print(f"{count} results stored in {took:.0f} s", flush=True)
        await _measure_filters(wire, report, connection, now, repeats)
        await _measure_last(wire, report, connection, now, repeats)
        await _measure_page(wire, report, connection, now, repeats)
        await _measure_stream(system, wire, report, count)
        await _measure_post(system, report, connection, settings["database_url"], password)
    finally:
        wire.close()
        await connection.close()


async def _load(connection: Any, count: int, now: datetime) -> float:
    begun = time.monotonic()
    about = "'{}', '2026-01-01 00:00:00.000000'"
    for table, names in (
        ("pods", [f"pod-{n}" for n in range(100)]),
        ("projects", [f"project-{n:02d}" for n in range(100)]),
    ):
        await connection.executemany(
            f"INSERT INTO catalog.{table} (id, name, body, creation_date) VALUES ($1, $1, {about})",
            [(name,) for name in names],
        )
    await connection.executemany(
        f"INSERT INTO catalog.cases (id, project_name, name, body, creation_date) VALUES ($2, $1, $2, {about})",
        [(f"project-{n % 100:02d}", f"case-{n:04d}") for n in range(1000)],
    )
    batch: list[tuple[Any, ...]] = []
    for row in rows(count, now):
        batch.append(row)
        if len(batch) == BATCH:
            await connection.copy_records_to_table("results", schema_name="catalog", columns=STORED, records=batch)
            batch.clear()
    await connection.copy_records_to_table("results", schema_name="catalog", columns=STORED, records=batch)
    await connection.execute("VACUUM (ANALYZE) catalog.results", timeout=600)
    return time.monotonic() - begun


class Wire:
    """A connection to the api that is kept alive, and as little HTTP on it as will do."""

    def __init__(self, system: System) -> None:
        self._parts = urlsplit(system.url)
        self._token = system.token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, params: dict[str, Any]) -> tuple[float, int]:
        """Seconds to the first byte of the body, and its length."""
        if self._streams is None:
            where = (self._parts.hostname, self._parts.port)
            self._streams = await asyncio.open_connection(*where, limit=4 * 1024 * KIB)
        reader, writer = self._streams
        begun = time.perf_counter()
        query = f"?{urlencode(params)}" if params else ""
        head = f"GET {path}{query} HTTP/1.1\r\nHost: {self._parts.netloc}\r\nAuthorization: Bearer {self._token}"
        writer.write(f"{head}\r\n\r\n".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not answer.startswith(b"http/1.1 200"):
            raise RuntimeError(f"GET {path}{query}: {answer.decode()}")
        if b"content-length:" in answer:
            length = int(answer.split(b"content-length:")[1].split()[0])
            first = time.perf_counter() - begun
            return first, len(await reader.readexactly(length))
        size, first = 0, 0.0
        while chunk := int(await reader.readuntil(b"\r\n"), 16):
            first = first or time.perf_counter() - begun
            size += len(await reader.readexactly(chunk + 2)) - 2
        await reader.readexactly(2)
        return first, size

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


async def _compare(
    ours: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], repeats: int
) -> tuple[float, float]:
    """p95 of each, in turns; the first round is not counted. Quick ones are asked for longer: their p95 is chance."""
    times: list[float] = []
    floors: list[float] = []
    begun = time.perf_counter()
    while len(times) <= repeats or (len(times) <= 10 * repeats and time.perf_counter() - begun < 1.0):
        start = time.perf_counter()
        await ours()
        middle = time.perf_counter()
        await bare()
        times.append(middle - start)
        floors.append(time.perf_counter() - middle)
    return percentile(times[1:], 0.95), percentile(floors[1:], 0.95)


def _statement(chosen: tuple[Filter, ...], tail: str) -> tuple[str, list[Any]]:
    values: list[Any] = []
    parts = []
    for each in chosen:
        parts.append(each.sql.format(*(f"${len(values) + place}" for place in range(1, len(each.values) + 1))))
        values += each.values
    return f"SELECT {COLUMNS} FROM catalog.results WHERE {' AND '.join(parts) or 'true'} {ORDER} {tail}", values


def _params(chosen: tuple[Filter, ...]) -> dict[str, Any]:
    return {key: value for each in chosen for key, value in each.params.items()}


def _combinations(now: datetime) -> list[tuple[Filter, ...]]:
    """Each filter alone, and each pair but that of two ranges of dates."""
    single = filters(now)
    pairs = [pair for pair in combinations(single, 2) if {each.name for each in pair} != {"period", "from+to"}]
    return [*((each,) for each in single), *pairs]


async def _measure_filters(wire: Wire, report: Report, connection: Any, now: datetime, repeats: int) -> None:
    ratios: list[tuple[float, str, float, float]] = []
    for chosen in _combinations(now):
        statement, values = _statement(chosen, "")
        ours, bare = await _compare(
            lambda: wire.get("/api/v1/results", _params(chosen)),  # noqa: B023 - called in this turn
            lambda: connection.fetch(statement, *values),  # noqa: B023
            repeats,
        )
        ratios.append((ours / bare, " & ".join(each.name for each in chosen), ours, bare))
    singles = [each for each in ratios if "&" not in each[1]]
    pairs = [each for each in ratios if "&" in each[1]]
    for each in sorted(ratios, reverse=True):
        print(f"  {each[1]}: {each[2] * 1e3:.1f} ms, bare {each[3] * 1e3:.1f} ms, ratio {each[0]:.2f}", flush=True)
    for name, some in (("filters", singles), ("pairs of filters", pairs)):
        ratio, which, ours, bare = max(some)
        middle = sorted(each[0] for each in some)[len(some) // 2]
        title = f"{name} ({len(some)}), p95, the worst: {which} (median ratio {middle:.2f})"
        report.add(Figure(title, f"{ours * 1e3:.1f} ms", f"{bare * 1e3:.1f} ms", ratio, "<= 3 times", ratio <= 3))


async def _measure_last(wire: Wire, report: Report, connection: Any, now: datetime, repeats: int) -> None:
    worst: tuple[float, str, float] = (0.0, "", 0.0)
    for chosen in [(), *_combinations(now)]:
        statement, values = _statement(chosen, "LIMIT 20")
        ours, bare = await _compare(
            lambda: wire.get("/api/v1/results", {**_params(chosen), "last": 20}),  # noqa: B023
            lambda: connection.fetch(statement, *values),  # noqa: B023
            repeats,
        )
        name = " & ".join(each.name for each in chosen) or "no filter"
        if not chosen:
            report.add(
                Figure(
                    "last=20, p95",
                    f"{ours * 1e3:.1f} ms",
                    f"{bare * 1e3:.1f} ms",
                    ours / bare,
                    "<= 20 ms",
                    ours <= 0.02,
                )
            )
        worst = max(worst, (ours, name, bare))
    ours, name, bare = worst
    title = f"last=20 with every filter and pair, p95, the worst: {name}"
    report.add(Figure(title, f"{ours * 1e3:.1f} ms", f"{bare * 1e3:.1f} ms", ours / bare, "<= 20 ms", ours <= 0.02))


async def _measure_page(wire: Wire, report: Report, connection: Any, now: datetime, repeats: int) -> None:
    for name, params, chosen in (
        ("page=1", {"page": 1}, ()),
        ("page=1 & project", {"page": 1}, (filters(now)[0],)),
    ):
        statement, values = _statement(chosen, "LIMIT 20")
        counting = statement.replace(COLUMNS, "count(*)").partition("ORDER")[0]

        async def bare(statement: str = statement, counting: str = counting, values: list[Any] = values) -> None:
            await connection.fetch(counting, *values)
            await connection.fetch(statement, *values)

        ours, floor = await _compare(
            lambda: wire.get("/api/v1/results", {**_params(chosen), **params}),  # noqa: B023
            bare,
            repeats,
        )
        ratio = ours / floor
        report.add(
            Figure(f"{name}, p95", f"{ours * 1e3:.1f} ms", f"{floor * 1e3:.1f} ms", ratio, "<= 3 times", ratio <= 3)
        )


async def _measure_stream(system: System, wire: Wire, report: Report, count: int) -> None:
    api = system.process("api")
    before = peak = api.memory_info().rss
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, api.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    begun = time.perf_counter()
    first, size = await wire.get("/api/v1/results", {})
    took = time.perf_counter() - begun
    done.set()
    await watching
    growth = (peak - before) / 2**20
    report.add(Figure("whole list: memory growth of the api", f"{growth:.0f} MiB", "", None, "< 64 MB", growth < 61))
    report.add(Figure("whole list: first byte", f"{first * 1e3:.0f} ms", "", None, "<= 200 ms", first <= 0.2))
    rate = f"{size / 1e6:.0f} MB in {took:.1f} s, {count / took:.0f} results/s"
    report.add(Figure("whole list: all of it", rate))


async def _measure_post(system: System, report: Report, connection: Any, dsn: str, password: str) -> None:
    chance = random.Random(7)
    body = {
        "pod_name": "pod-1",
        "project_name": "project-01",
        "case_name": "case-0101",
        "installer": "fuel",
        "version": "master",
        "scenario": "os-nosdn",
        "build_tag": "jenkins-108",
        "criteria": "PASS",
        "start_date": "2026-11-21 05:11:12",
        "stop_date": "2026-11-21 05:11:42",
        "details": json.loads(_details(chance)),
    }
    await connection.execute("CREATE TABLE IF NOT EXISTS catalog.bare (id bigserial PRIMARY KEY, body json)")
    content = json.dumps(body).encode()
    async with _bare_route(dsn, password) as port:
        bare_url = f"http://127.0.0.1:{port}"
        rates: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(5):
            rates["bare"].append(await _post_rate(bare_url, "/rows", content, {}))
            rates["ours"].append(await _post_rate(system.url, "/api/v1/results", content, system.headers))
    await connection.execute("DROP TABLE catalog.bare")
    ours, bare = (sorted(rates[name])[2] for name in ("ours", "bare"))
    report.add(
        Figure(
            "POST of a result, 8 in flight", f"{ours:.0f}/s", f"{bare:.0f}/s", ours / bare, ">= 0.3", ours / bare >= 0.3
        )
    )


async def _post_rate(url: str, path: str, content: bytes, headers: dict[str, str], count: int = 400) -> float:
    parts = urlsplit(url)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{more}"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in range(count // 8):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.splitlines()[0]:
                raise RuntimeError(answer.decode())
            length = int(answer.lower().split(b"content-length:")[1].split()[0])
            await reader.readexactly(length)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(8)))
    return count / (time.perf_counter() - begun)


BARE = """
import asyncio, json, os, socket, sys
import asyncpg, uvicorn
from fastapi import FastAPI

app = FastAPI()
pool = None

@app.post("/rows")
async def add(body: dict):
    row = await pool.fetchval("INSERT INTO catalog.bare (body) VALUES ($1) RETURNING id", json.dumps(body))
    return {"id": row}

async def main():
    global pool
    dsn, password = sys.stdin.readline().strip(), sys.stdin.readline().strip()
    pool = await asyncpg.create_pool(dsn, password=password, min_size=8, max_size=8)
    # asyncio sets TCP_NODELAY only where the protocol is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve([listening])

asyncio.run(main())
"""


@asynccontextmanager
async def _bare_route(dsn: str, password: str) -> AsyncIterator[int]:
    """A FastAPI app of one route that inserts one row, in a process of its own; its port."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", BARE, stdin=pipe, stdout=pipe)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{dsn}\n{password}\n".encode())
        yield int(await asyncio.wait_for(child.stdout.readline(), 20))
    finally:
        child.terminate()
        await child.wait()
