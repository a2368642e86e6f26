"""A VNF gets its volume, one and no more, whatever one call to the cloud brings: a whole controller, real HTTP."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from proctor_controller.domain.volumes import breaker
from proctor_controller.pool import keeper
from proctor_controller.volumes.cinder.answers import VOLUME_KEY
from support.cloud import Cloud
from support.control import SecureNats
from support.openstack import LEGACY_TYPES, CinderCloud
from support.pool import PoolWorld, pool_world
from support.postgres import Database
from support.wait import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")
AT_ONCE = ("lost", "500", "half", "garbage", "slow", "401", "429", "error")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud().start()
    made.slowness = 0.2
    yield made
    made.close()


@pytest.fixture
async def world(
    cloud: Cloud,
    secure_nats: SecureNats,
    control_database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[PoolWorld]:
    """Pools without spares: each VNF waits for a volume of its own. What waits for minutes waits for a moment."""
    monkeypatch.setattr(breaker, "PROBE_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(keeper, "TICK", 0.1)
    shape = CinderCloud("cinder", LEGACY_TYPES, patience=15, auth_url=cloud.auth_url)
    async with pool_world(secure_nats, control_database, shape, tmp_path, shape.ini(0, 0)) as made:
        yield made


async def test_one_volume_for_each_vnf_whatever_the_answer_to_its_creation(cloud: Cloud, world: PoolWorld) -> None:
    for fault in AT_ONCE:
        cloud.inject("create", fault)
        asked = await world.create(f"vnf-{fault.replace(' ', '-')}")
        volume = (await world.active(asked["id"]))["volume"]
        assert cloud.volumes[volume["backend_id"]].status == "available", fault
        assert [v.id for v in cloud.all("available") if v.name == asked["name"]] == [volume["backend_id"]], fault
    assert set(cloud.made_for.values()) == {1}, "nothing was asked for again that may have been made"

    async def failed_one_is_gone() -> bool:
        return len(cloud.all()) == len(AT_ONCE)

    await eventually(failed_one_is_gone, 10, "the volume in error to be deleted")


async def test_a_list_that_lags_and_volumes_of_the_same_name_confuse_nobody(cloud: Cloud, world: PoolWorld) -> None:
    stranger = cloud.add("vnf-1", proctor_volume="somebody's")
    cloud.list_lag = 0.5
    cloud.inject("create", "lost")
    asked = await world.create("vnf-1")
    volume = (await world.active(asked["id"]))["volume"]
    assert cloud.volumes[volume["backend_id"]].metadata[VOLUME_KEY] == volume["id"]
    await world.call("vnfp.delete", {"vnfp": asked["id"]})

    async def only_the_stranger_is_left() -> bool:
        return [left.id for left in cloud.all()] == [stranger.id]

    await eventually(only_the_stranger_is_left, 10)


async def test_an_outage_delays_a_volume_and_its_end(cloud: Cloud, world: PoolWorld) -> None:
    cloud.down()
    asked = await world.create("vnf-1")

    async def told_why() -> bool:
        return "creation is stopped" in (await world.vnfp(asked["id"]))["reason"]

    await eventually(told_why, 10, "the VNF to say what it waits for")
    cloud.up()
    await world.active(asked["id"])
    cloud.down()
    await world.call("vnfp.delete", {"vnfp": asked["id"]})
    cloud.up()
    await eventually(lambda: not cloud.all(), 15, "the volume to go")
