"""The legacy framework's table of ten test cases, each by its own words, on a real backend behind a whole controller.

On the local backend always; on any OpenStack that ``OS_*`` or clouds.yaml names with ``just openstack``; on a small
server that answers as Cinder does with ``just soak``.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proctor_controller.domain.volumes.settings import parse_pool
from proctor_controller.pool.timers import Timers, trigger
from support.cloud import Cloud as CloudServer
from support.control import SecureNats
from support.openstack import LEGACY_TYPES, CinderCloud, named_cloud, named_types
from support.pool import Cloud, LocalCloud, PoolWorld, pool_world
from support.postgres import Database
from support.wait import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")
Start = Callable[..., AbstractAsyncContextManager[PoolWorld]]


@pytest.fixture(
    params=[
        "local",
        pytest.param("cinder", marks=pytest.mark.soak),
        pytest.param("openstack", marks=[pytest.mark.openstack, pytest.mark.timeout(300)]),
    ]
)
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    if request.param == "local":
        yield LocalCloud()
    elif request.param == "openstack":
        yield CinderCloud("openstack", await named_types(), patience=60)
    else:
        server = CloudServer().start()
        server.create_delay = 0.05
        yield CinderCloud("cinder", LEGACY_TYPES, patience=10, auth_url=server.auth_url)
        server.close()


@pytest.fixture
async def start(
    secure_nats: SecureNats, control_database: Database, cloud: Cloud, tmp_path: Path
) -> AsyncIterator[Start]:
    def begin(first: int = 3, second: int = 1, extra: str = "") -> AbstractAsyncContextManager[PoolWorld]:
        return pool_world(secure_nats, control_database, cloud, tmp_path, cloud.ini(first, second, extra))

    yield begin
    if cloud.name == "openstack":
        # Leaving it deletes what is left of this installation.
        async with named_cloud(control_database.psql("SELECT installation FROM control.pool_settings")):
            pass


@pytest.fixture
async def world(start: Start) -> AsyncIterator[PoolWorld]:
    """Pools of 3, 3, 1 and 1, full."""
    async with start() as made:
        await made.full()
        yield made


async def test_row_1_an_empty_table_is_filled_by_the_settings(start: Start, cloud: Cloud) -> None:
    """将backup_volumes数据库表清空，模拟首次备盘 → 数据库表新增数据，根据配置文件创建volume"""
    async with start(3, 1) as world:
        pools = await world.full()
        assert {type: pool["ready"] for type, pool in pools.items()} == dict(
            zip(cloud.types, (3, 3, 1, 1), strict=True)
        )
        rows = {row["id"]: row for row in await world.volumes()}
        there = await world.at_backend()
        assert set(rows) == set(there)
        assert all(rows[each].items() >= {"state": "ready", "from_pool": True, "vnfp": None}.items() for each in rows)
        assert {found.backend_id for found in there.values()} == {row["backend_id"] for row in rows.values()}


async def test_row_2_a_full_pool_is_left_as_it_is(world: PoolWorld) -> None:
    """备盘池的volume已经满足了预期需求且无人使用备盘，再次备盘 → 数据库表中不会新增数据，备盘池无变化"""
    before, there = await world.volumes(), await world.at_backend()
    run = await world.job("replenish")
    assert run["outcome"] == "nothing to do: every pool is full"
    assert await world.volumes() == before
    assert await world.at_backend() == there


async def test_row_3_what_was_used_is_made_again(world: PoolWorld) -> None:
    """有人使用了备盘，再次备盘。 → 数据库表新增数据，新建备盘，补充备盘池"""
    before = {row["id"] for row in await world.volumes()}
    used = await world.create("vnf-1")
    assert used["volume"]["id"] in before
    await world.full()
    now = {row["id"]: row for row in await world.volumes()}
    assert len(now) == len(before) + 1
    (fresh,) = set(now) - before
    assert now[fresh]["state"] == "ready"


async def test_row_4_sync_updates_what_was_creating_and_drops_what_went_wrong(world: PoolWorld) -> None:
    """check_volume_state：检查所有数据库中状态为creating的volume的状态变化 →
    数据库表会更新volume状态，如果不是creating，available就从数据库中删除
    """
    first, second, *_ = [row for row in await world.volumes(state="ready") if row["type"] == world.cloud.types[0]]
    # One whose creator died before it was available; one that is gone from the backend behind our back.
    await world.alter(
        f"UPDATE control.volumes SET state = 'creating', version = version + 1 WHERE id = '{first['id']}'"
    )
    async with world.backend() as backend:
        await backend.delete(second["backend_id"])

        async def is_gone() -> bool:
            return await backend.get(second["backend_id"]) is None

        await eventually(is_gone, world.cloud.patience, "the volume to be gone")
    await world.job("sync")
    states = {row["id"]: row["state"] for row in await world.volumes()}
    assert (states[first["id"]], states[second["id"]]) == ("ready", "failed")
    await world.full()
    assert second["id"] not in await world.at_backend()


async def test_row_5_the_jobs_run_every_ten_and_every_five_minutes(cloud: Cloud) -> None:
    """周期任务执行，看运行的时间是否符合预期，这里频率使用默认值 →
    每10分钟执行backup_volume任务，每5分钟执行check_volume_state任务
    """
    settings = parse_pool(cloud.ini(3, 1))
    assert (settings.backup_frequency_minute, settings.check_state_frequency_minute) == (10, 5)

    def times(minutes: int) -> list[str]:
        clock, moment = trigger(minutes), datetime(2026, 1, 1, 9, 58, 30, tzinfo=UTC)
        found: list[str] = []
        while len(found) < 7:
            fired: datetime = clock.get_next_fire_time(None, moment)
            found.append(fired.strftime("%H:%M:%S"))
            moment = fired + timedelta(seconds=1)
        return found

    assert times(10) == ["10:00:00", "10:10:00", "10:20:00", "10:30:00", "10:40:00", "10:50:00", "11:00:00"]
    assert times(5)[:4] == ["10:00:00", "10:05:00", "10:10:00", "10:15:00"]

    async def run(name: str) -> None:
        return None

    timers = Timers(run)
    timers.apply(settings)
    timers.start()
    due = timers.next_runs()
    timers.close()
    assert {name: (at.minute % 10, at.second) for name, at in due.items() if name == "replenish"} == {
        "replenish": (0, 0)
    }
    assert due["sync"].minute % 5 == 0


async def test_row_6_a_run_that_overlaps_does_nothing_and_says_so(start: Start) -> None:
    """周期任务重叠 → 判断为同一个周期任务则不执行"""
    async with start(3, 1, "create_volume_time_interval_second = 0.5") as world:

        async def at_work() -> bool:
            return all(pool["replenish"]["outcome"] == "at work" for pool in (await world.pools()).values())

        await eventually(at_work, world.cloud.patience, "the first run")
        began = world.sql("SELECT started_at FROM control.pool_jobs WHERE name = 'replenish'")
        answer = await world.call("pool.replenish")
        assert answer["outcome"] == "skipped"
        assert "still at work" in answer["reason"]
        assert world.sql("SELECT started_at FROM control.pool_jobs WHERE name = 'replenish'") == began
        skipped = [pool["replenish"]["skipped"] for pool in (await world.pools()).values()]
        assert all("still at work" in why for why in skipped)


async def test_row_7_without_a_spare_the_volume_is_made_and_waited_for(start: Start) -> None:
    """创建vnfp的时候备盘的volume不足时 → 创建vnfp成功，正常的创建顺序，需要等待创盘时间"""
    async with start(0, 0) as world:
        asked = await world.create("vnf-1")
        assert (asked["state"], asked["volume"]["state"]) == ("creating", "intent")
        done = await world.active(asked["id"])
        assert done["volume"]["id"] == asked["volume"]["id"]
        assert done["volume"]["from_pool"] is False
        assert (await world.at_backend())[done["volume"]["id"]].name == "vnf-1"
        pool = (await world.pools())[world.cloud.types[0]]
        assert (pool["claims"], pool["hit_rate"]) == (1, 0.0)


async def test_row_8_with_a_spare_the_vnf_has_its_volume_at_once(world: PoolWorld) -> None:
    """创建vnfp的时候备盘的volume足够 → 创建vnfp成功，无需等待创盘时间。
    创建vnfp的时候选择备盘，对备盘进行修改名称，并且从数据库表中删除该条目。
    """
    ready = [row for row in await world.volumes(state="ready") if row["type"] == world.cloud.types[0]]
    oldest = min(ready, key=lambda row: (row["created_at"], row["id"]))
    made = await world.create("vnf-1")
    assert made["state"] == "active"
    volume = made["volume"]
    assert (volume["id"], volume["name"], volume["from_pool"]) == (oldest["id"], "vnf-1", True)
    assert oldest["id"] not in {row["id"] for row in await world.volumes(state="ready")}

    async def renamed() -> bool:
        found = (await world.at_backend())[volume["id"]]
        return found.name == "vnf-1" and (await world.vnfp(made["id"]))["volume"]["state"] == "in_use"

    await eventually(renamed, world.cloud.patience, "the backend to show the name")
    pool = (await world.pools())[world.cloud.types[0]]
    assert (pool["claims"], pool["hit_rate"]) == (1, 1.0)
    assert pool["claim_p99"] < 1.0


async def test_row_9_the_volume_goes_with_its_vnf(world: PoolWorld) -> None:
    """删除对应的vnfp → 删除vnfp成功，流程无改变，直接删除对应的volume"""
    made = await world.create("vnf-1")
    volume = made["volume"]["id"]
    await world.call("vnfp.delete", {"vnfp": made["id"]})

    async def is_deleted() -> bool:
        return (await world.vnfp(made["id"]))["state"] == "deleted"

    await eventually(is_deleted, world.cloud.patience, "the VNF to be deleted")
    assert volume not in await world.at_backend()
    assert volume not in {row["id"] for row in await world.volumes()}
    assert volume in {row["id"] for row in await world.volumes(state="deleted")}
    assert made["id"] not in {row["id"] for row in (await world.call("vnfp.list"))["items"]}


async def test_row_10_changed_settings_take_effect(world: PoolWorld) -> None:
    """修改配置文件中的参数，看是否生效 →
    对应不同的参数设置，备盘频率，备盘个数等等，看实际备盘的动作，与配置文件一致
    """
    world.file.write_text(
        world.cloud.ini(4, 2, "").replace("backup_frequency_minute = 10", "backup_frequency_minute = 20")
    )
    os.kill(os.getpid(), signal.SIGHUP)

    async def targets() -> bool:
        return [pool["target"] for pool in (await world.pools()).values()].count(4) == 2

    await eventually(targets, 5, "the new targets")
    pools = await world.full()
    assert {type: pool["ready"] for type, pool in pools.items()} == dict(
        zip(world.cloud.types, (4, 4, 2, 2), strict=True)
    )

    world.file.write_text(world.cloud.ini(3, 1))
    await world.call("pool.reload")
    pools = await world.full()
    assert {type: pool["ready"] for type, pool in pools.items()} == dict(
        zip(world.cloud.types, (3, 3, 1, 1), strict=True)
    )

    async def trimmed() -> bool:
        return len(await world.at_backend()) == 8

    await eventually(trimmed, world.cloud.patience, "what is too much to be gone from the backend")
