"""Made-up results of two years, and the database full of them."""

import json
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

DAYS = 730
KIB = 1024
BATCH = 10_000
STORED = (
    *("id", "pod_name", "project_name", "case_name", "installer", "version", "scenario", "build_tag", "criteria"),
    *("start_date", "stop_date", "start_at", "stop_at", "trust_indicator", "size", "details"),
)


def rows(count: int, now: datetime) -> Iterator[tuple[Any, ...]]:
    """Results of two years, in the order of their dates; details of 2 KiB that compress as logs and figures do."""
    chance = random.Random(20)
    all_details = [details_text(chance) for _ in range(500)]
    step = DAYS * 86400 / count
    for number in range(count):
        case = chance.randrange(1000)
        moment = (now - timedelta(seconds=(count - number) * step)).replace(microsecond=0)
        text = all_details[number % len(all_details)]
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


def details_text(chance: random.Random) -> str:
    figures = [{"name": f"test_{chance.randrange(10**6)}", "ms": round(chance.random() * 1e4, 3)} for _ in range(44)]
    text = json.dumps({"duration": chance.randrange(1000), "tests": figures})
    return text[:-1] + f', "pad": "{"x" * max(0, 2 * KIB - len(text) - 11)}"}}'


async def load(connection: Any, count: int, now: datetime) -> float:
    """Fill the catalog; the seconds that it took."""
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
