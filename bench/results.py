"""The Test API on many results: each documented filter and their pairs, the newest twenty, pages, the whole list, POST.

Each figure stands beside the bare SQL of the same query through asyncpg, or beside a bare FastAPI route that inserts
one row, in turns with it.
"""

import asyncio
import json
import random
import time
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import asyncpg

from bench.figures import Figure, Report, percentile
from bench.result_rows import details_text, load
from bench.system import System
from bench.wire import Wire, bare_route, post_rate

COLUMNS = (
    "id, pod_name, project_name, case_name, installer, version, scenario, build_tag, criteria, start_date, stop_date,"
    " trust_indicator, details::text AS details"
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
        took = await load(connection, count, now)
        print(f"{count} results stored in {took:.0f} s", flush=True)
        await _measure_filters(wire, report, connection, now, repeats)
        await _measure_last(wire, report, connection, now, repeats)
        await _measure_page(wire, report, connection, now, repeats)
        await _measure_stream(system, wire, report, count)
        await _measure_post(system, report, connection, settings["database_url"], password)
    finally:
        wire.close()
        await connection.close()


async def _compare(ours: Callable[[], Any], bare: Callable[[], Awaitable[Any]], repeats: int) -> tuple[float, float]:
    """p95 of each, in turns; the first round is not counted. Quick ones are asked for longer: their p95 is chance."""
    times: list[float] = []
    floors: list[float] = []
    begun = time.perf_counter()
    while len(times) <= repeats or (len(times) <= 10 * repeats and time.perf_counter() - begun < 1.0):
        start = time.perf_counter()
        ours()
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
    first, size = await asyncio.to_thread(wire.get, "/api/v1/results", {})
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
        "details": json.loads(details_text(chance)),
    }
    await connection.execute("CREATE TABLE IF NOT EXISTS catalog.bare (id bigserial PRIMARY KEY, body json)")
    content = json.dumps(body).encode()
    async with bare_route(dsn, password) as port:
        bare_url = f"http://127.0.0.1:{port}"
        rates: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(5):
            rates["bare"].append(await post_rate(bare_url, "/rows", content, {}))
            rates["ours"].append(await post_rate(system.url, "/api/v1/results", content, system.headers))
    await connection.execute("DROP TABLE catalog.bare")
    ours, bare = (sorted(rates[name])[2] for name in ("ours", "bare"))
    report.add(
        Figure(
            "POST of a result, 8 in flight", f"{ours:.0f}/s", f"{bare:.0f}/s", ours / bare, ">= 0.3", ours / bare >= 0.3
        )
    )
