"""Thousands of claims while the cloud misbehaves and controllers die (`just soak`); a small sample otherwise."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.clock import SystemClock
from proctor_controller.db.pool.jobs import Job, load_jobs
from proctor_controller.db.pool.vnfps import load_vnfps
from proctor_controller.db.session import session
from proctor_controller.pool.pool import VolumePool
from proctor_controller.volumes.cinder.answers import VOLUME_KEY
from support.cloud import Cloud
from support.nats import NatsAccount
from support.pool_chaos import Chaos
from support.pool_process import Keepers
from support.postgres import Database
from support.wait import eventually

SETTINGS = """
[volumes]
concurrency = 10
[volumes_backup]
volume_backup_types = igw,bgw,dhcp
backup_nums_igw_bgw = 8
backup_nums_dhcp = 4
[auth_args]
auth_project = lab
auth_user = member
auth_passwd = member
auth_url = {url}
[pool]
stray_age = 0.5
"""
SAMPLE, WHOLE = 80, 3000


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud().start()
    made.create_delay, made.delete_delay, made.slowness = 0.03, 0.02, 0.8
    yield made
    made.close()


@pytest.fixture
def keepers(control_database: Database, nats: NatsAccount, cloud: Cloud, tmp_path: Path) -> Iterator[Keepers]:
    settings = tmp_path / "pool.ini"
    settings.write_text(SETTINGS.format(url=cloud.auth_url))
    made = Keepers(control_database.dsn, nats.url, settings, tmp_path / "keepers.log")
    yield made
    made.close()


@pytest.fixture
async def pool(rows: AsyncEngine, bus: Bus) -> AsyncIterator[VolumePool]:
    """A controller without the duty: it claims."""
    made = VolumePool(rows, bus, SystemClock(), file=None, folder=None)
    await made.start()
    yield made
    await made.close()


async def sweep(pool: VolumePool) -> None:
    """A run of *sync* from its beginning to its end, by a keeper that lives so long."""

    async def last() -> Job:
        async with session(pool._database) as db:
            return (await load_jobs(db))["sync"]

    before = await last()

    async def began_and_ended() -> bool:
        nonlocal before
        found = await last()
        if found.outcome == "interrupted":
            # Its keeper was killed in the middle: it has seen nothing to the end.
            before = found
        if found.asked_at is None and found.started_at == before.started_at:
            await pool.run_job("sync")
        new = found.started_at is not None and (before.started_at is None or found.started_at > before.started_at)
        return new and found.finished_at is not None and found.finished_at >= found.started_at  # type: ignore[operator]

    await eventually(began_and_ended, 30, "a sweep")


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
async def test_no_volume_is_given_twice_lost_or_taken_from_others(
    cloud: Cloud, keepers: Keepers, pool: VolumePool, rows: AsyncEngine, long_run: bool, seed: int
) -> None:
    chaos = Chaos(cloud, keepers, pool, rows, seed)
    keepers.start()

    await eventually(chaos.is_at_rest, 20, "the pool to be full")
    if not long_run:
        chaos.patience, chaos.badness = 0.5, 3.0
    await chaos.run(WHOLE if long_run else SAMPLE, pace=1.0 if long_run else 0.1)
    chaos.heal()
    await sweep(pool)
    asked = 0.0

    async def is_at_rest() -> bool:
        """A stray is deleted when a second sweep sees it: the pool itself asks for that one. What held creation back
        ends with the next run of *replenish*, which the clock brings in life.
        """
        nonlocal asked
        if time.monotonic() - asked > 2:
            asked = time.monotonic()
            await pool.run_job("replenish")
        return await chaos.is_at_rest()

    await eventually(is_at_rest, 90, "the pool to be at rest")
    await sweep(pool)
    assert await chaos.is_at_rest()
    await chaos.look()
    print(f"\nseed {seed}: {chaos.story()}")

    assert chaos.over == []
    assert not [marks for marks, count in cloud.made_for.items() if count > 1], "asked for again after a lost answer"
    assert await chaos.doubly_given() == []
    for stranger in chaos.strangers:
        assert cloud.volumes.get(stranger.id) is stranger and stranger.status == "available", "another's volume"
    marks = Counter(volume.metadata.get(VOLUME_KEY, volume.id) for volume in cloud.all())
    assert max(marks.values()) == 1, "of a volume and its double one is left at the most, whichever its row has taken"
    async with session(rows) as db:
        kept = await load_vnfps(db, list(chaos.kept))
    for row in kept:
        if row["state"] == "active":
            volume = cloud.volumes[row["v_backend_id"]]
            assert (volume.status, volume.name) == ("available", chaos.kept[str(row["id"])])
    assert {row["state"] for row in kept} <= {"active", "error"}
