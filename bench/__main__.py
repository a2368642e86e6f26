"""``just bench``: run the benchmarks and print their table. ``python -m bench --help`` lists the parts."""

import argparse
import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench import dispatch, engine, logs, plans, pool, results, survival
from bench.figures import Figure, Report
from bench.system import System, local_system, machine, settle

PARTS = ("start", "engine", "dispatch", "plans", "survival", "flow", "memory", "delay", "viewers", "results", "pool")


def main() -> None:
    """Run the parts that were asked for (all without arguments)."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, to see that it runs")
    parser.add_argument(
        "--results", type=int, default=1_000_000, help="of how many results the Test API is full (two minutes)"
    )
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    report = Report()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}")
    with tempfile.TemporaryDirectory(prefix="proctor-bench-") as folder:
        data = Path(folder) / "data"
        with local_system(data) as system:
            scale = 0.1 if arguments.quick else 1.0
            asyncio.run(_measure(system, report, parts, scale))
            if "results" in parts:
                asyncio.run(results.measure(system, report, int(arguments.results * scale)))
        if "start" in parts:
            with local_system(data) as system:
                warm = system.started_in
            report.add(Figure("start, warm", f"{warm:.1f} s", "", None, "<= 5 s", warm <= 5))
    if "survival" in parts:
        survival.measure(report, 0.1 if arguments.quick else 1.0)
    if "engine" in parts:
        engine.measure(report, 0.2 if arguments.quick else 1.0)
    if "pool" in parts:
        asyncio.run(pool.measure(report, 0.2 if arguments.quick else 1.0))
    print("\n" + report.markdown())


async def _measure(system: System, report: Report, parts: tuple[str, ...] | list[str], scale: float) -> None:
    await settle()
    if "dispatch" in parts:
        await dispatch.measure(system, report, max(50, int(300 * scale)))
    if "plans" in parts:
        await plans.measure(system, report, max(40, int(200 * scale)))
    if "flow" in parts:
        await logs.measure_flow(system, report, int(100_000_000 * scale))
    if "memory" in parts:
        await logs.measure_memory(system, report, int(1_000_000_000 * scale))
    if "delay" in parts:
        await logs.measure_delay(system, report, int(10_000 * scale))
    if "viewers" in parts:
        await logs.measure_viewers(system, report)


if __name__ == "__main__":
    main()
