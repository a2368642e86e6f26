"""The backend `cinder` against a small server that answers as Cinder does, and against the faults it can have."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from proctor_common.ids import new_id
from proctor_controller.volumes.backend import (
    AnswerLost,
    BackendBusy,
    BackendDown,
    BadRequest,
    FoundState,
    FoundVolume,
    NotNow,
    QuotaRefused,
    Stuck,
)
from proctor_controller.volumes.cinder.backend import CinderBackend, open_cinder
from support.cloud import Cloud
from support.openstack import backend_on, source_of
from support.wait import eventually

HERE = "lab-1"
pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud().start()
    yield made
    made.close()


@pytest.fixture
async def backend(cloud: Cloud) -> AsyncIterator[CinderBackend]:
    made = backend_on(cloud, HERE)
    yield made
    await made.close()


async def make(backend: CinderBackend, name: str = "spare-igw", type: str = "igw") -> FoundVolume:
    volume_id = new_id()
    backend_id = await backend.create(volume_id, name, type, 10)

    async def available() -> FoundVolume | None:
        found = await backend.get(backend_id)
        return found if found is not None and found.state is not FoundState.CREATING else None

    found: FoundVolume = await eventually(available)
    assert found.volume_id == volume_id
    return found


async def test_a_volume_lives(cloud: Cloud, backend: CinderBackend) -> None:
    cloud.create_delay = 0.05
    volume_id = new_id()
    backend_id = await backend.create(volume_id, "spare-igw-1", "igw", 20)
    first = await backend.get(backend_id)
    assert first is not None and first.state is FoundState.CREATING
    assert (first.volume_id, first.name, first.type, first.size_gb) == (volume_id, "spare-igw-1", "igw", 20)
    assert first.created_at is not None and first.created_at.utcoffset() is not None

    async def available() -> bool:
        [found] = await backend.find(volume_id)
        return found.state is FoundState.AVAILABLE and found.backend_id == backend_id

    await eventually(available)
    assert await backend.rename(backend_id, "vnf-7") and await backend.rename(backend_id, "vnf-7")
    [renamed] = await backend.list_ours()
    assert (renamed.name, renamed.volume_id) == ("vnf-7", volume_id)

    cloud.delete_delay = 2
    assert await backend.delete(backend_id)
    assert await backend.delete(backend_id), "asked twice, while it is being deleted"

    async def gone() -> bool:
        return await backend.get(backend_id) is None

    await eventually(gone)
    assert not await backend.delete(backend_id)
    assert not await backend.rename(backend_id, "again")
    assert await backend.find(volume_id) == []


async def test_only_volumes_with_our_marks_are_ours(cloud: Cloud, backend: CinderBackend) -> None:
    ours = await make(backend)
    twin = cloud.add("spare-igw", proctor_installation="lab-2", proctor_volume=ours.volume_id)
    half = cloud.add("spare-igw", proctor_installation=HERE)
    cloud.add("spare-igw-old")
    assert [found.backend_id for found in await backend.list_ours()] == [ours.backend_id]
    assert [found.backend_id for found in await backend.find(ours.volume_id)] == [ours.backend_id]
    assert await backend.get(twin.id) is None and await backend.get(half.id) is None


async def test_two_volumes_with_one_id_of_ours_are_both_told(cloud: Cloud, backend: CinderBackend) -> None:
    ours = await make(backend)
    double = cloud.add("spare-igw", proctor_installation=HERE, proctor_volume=ours.volume_id)
    assert {found.backend_id for found in await backend.find(ours.volume_id)} == {ours.backend_id, double.id}


async def test_long_lists_come_in_pages(cloud: Cloud, backend: CinderBackend) -> None:
    cloud.most_at_once = 7
    made = [cloud.add(f"v{n}", proctor_installation=HERE, proctor_volume=new_id()) for n in range(30)]
    for n in range(5):
        cloud.add(f"stranger-{n}")
    assert [found.backend_id for found in await backend.list_ours()] == [volume.id for volume in made]
    assert cloud.calls["list"] == 5


async def test_a_list_whose_marker_vanishes_starts_over(cloud: Cloud, backend: CinderBackend) -> None:
    cloud.most_at_once = 5
    made = [cloud.add(f"v{n}", proctor_installation=HERE, proctor_volume=new_id()) for n in range(12)]

    def vanish(operation: str) -> None:
        if operation == "list" and cloud.calls["list"] == 2:
            del cloud.volumes[made[4].id]

    cloud.chance = vanish
    listed = [found.backend_id for found in await backend.list_ours()]
    assert listed == [volume.id for volume in made if volume is not made[4]]


@pytest.mark.parametrize("fault", ["lost", "500", "half", "garbage", "reset", "html", "503", "slow"])
async def test_a_create_without_a_clear_answer_is_lost_and_never_asked_again(
    cloud: Cloud, backend: CinderBackend, fault: str
) -> None:
    backend.storage = backend_on(cloud, HERE, call_timeout=0.2).storage
    cloud.slowness = 5
    await backend.room()
    volume_id = new_id()
    cloud.inject("create", fault)
    with pytest.raises(AnswerLost):
        await backend.create(volume_id, "spare", "igw", 10)
    assert cloud.calls["create"] == 1
    found = await backend.find(volume_id)
    assert len(found) == (0 if fault in {"reset", "html", "503"} else 1), "it is found by our id where it was made"


async def test_a_frozen_service_carries_a_create_out_afterwards(cloud: Cloud, backend: CinderBackend) -> None:
    backend.storage = backend_on(cloud, HERE, call_timeout=0.2).storage
    await backend.room()
    volume_id = new_id()
    with cloud.frozen(), pytest.raises(AnswerLost, match="no answer"):
        await backend.create(volume_id, "spare", "igw", 10)

    async def appeared() -> bool:
        return len(await backend.find(volume_id)) == 1

    await eventually(appeared)


@pytest.mark.parametrize("fault", ["reset", "half"])
async def test_what_may_be_repeated_is_repeated_once(cloud: Cloud, backend: CinderBackend, fault: str) -> None:
    ours = await make(backend)
    for operation in ("get", "list", "rename", "delete"):
        cloud.inject(operation, fault)
    assert await backend.get(ours.backend_id) is not None
    assert len(await backend.list_ours()) == 1
    assert await backend.rename(ours.backend_id, "other")
    assert await backend.delete(ours.backend_id) in {True, False}
    assert await backend.get(ours.backend_id) is None
    cloud.inject("list", fault, times=2)
    with pytest.raises(BackendDown):
        await backend.list_ours()


async def test_a_cloud_that_is_down_is_down(cloud: Cloud, backend: CinderBackend) -> None:
    await backend.room()
    cloud.down()
    for call in (backend.create(new_id(), "spare", "igw", 10), backend.list_ours(), backend.delete("x")):
        with pytest.raises(BackendDown):
            await call
    cloud.up()
    assert await backend.list_ours() == []
    assert cloud.created == 0


async def test_a_404_of_whatever_stands_before_it_ends_no_volume(cloud: Cloud, backend: CinderBackend) -> None:
    ours = await make(backend)
    for operation in ("get", "rename", "delete", "list"):
        cloud.inject(operation, "no route")
    for call in (
        backend.get(ours.backend_id),
        backend.rename(ours.backend_id, "other"),
        backend.delete(ours.backend_id),
        backend.list_ours(),
    ):
        with pytest.raises(BackendDown, match="404"):
            await call
    assert await backend.get(ours.backend_id) is not None


async def test_refusals_are_told_apart(cloud: Cloud, backend: CinderBackend) -> None:
    async def create(type: str = "igw", size: int = 10) -> str:
        return await backend.create(new_id(), "spare", type, size)

    with pytest.raises(BadRequest, match="nosuch could not be found"):
        await create(type="nosuch")
    with pytest.raises(BadRequest, match="Invalid input"):
        await create(size=0)
    cloud.quota_volumes = 1
    await create()
    assert await backend.room() == 0
    with pytest.raises(QuotaRefused, match="VolumeLimitExceeded"):
        await create()
    cloud.quota_volumes = 100
    cloud.quota_gigabytes = 15
    assert await backend.room() == 5
    with pytest.raises(QuotaRefused, match="VolumeSizeExceeds"):
        await create()
    cloud.quota_gigabytes = cloud.quota_volumes = -1
    assert await backend.room() is None
    cloud.inject("create", "429")
    with pytest.raises(BackendBusy) as busy:
        await create()
    assert busy.value.after == 1
    assert cloud.created == 1


async def test_a_failed_create_says_why(cloud: Cloud, backend: CinderBackend) -> None:
    cloud.inject("create", "error")
    failed = await make(backend)
    assert failed.state is FoundState.ERROR
    assert "weighted backend" in failed.reason
    assert await backend.delete(failed.backend_id)


async def test_what_cannot_be_deleted_yet_waits_and_what_never_can_is_stuck(
    cloud: Cloud, backend: CinderBackend
) -> None:
    cloud.inject("create", "stuck")
    stuck = await backend.create(new_id(), "spare", "igw", 10)
    with pytest.raises(NotNow, match="creating"):
        await backend.delete(stuck)
    in_use = await make(backend)
    cloud.volumes[in_use.backend_id].status = "in-use"
    with pytest.raises(NotNow, match="in_use"):
        await backend.delete(in_use.backend_id)
    cloud.volumes[in_use.backend_id].status = "maintenance"
    found = await backend.get(in_use.backend_id)
    assert found is not None and (found.state, found.reason) == (FoundState.OTHER, "maintenance")
    with pytest.raises(NotNow):
        await backend.rename(in_use.backend_id, "new")

    cloud.inject("delete", "error_deleting")
    failed = await make(backend)
    assert await backend.delete(failed.backend_id)
    with pytest.raises(Stuck, match="volume delete --force"):
        await backend.delete(failed.backend_id)
    async with asyncio.timeout(10):
        admin = open_cinder(source_of(cloud, user="admin", password="admin"), HERE)
        assert await admin.delete(failed.backend_id)
        await admin.close()
    assert await backend.get(failed.backend_id) is None


async def test_a_list_that_lags_is_not_proof(cloud: Cloud, backend: CinderBackend) -> None:
    """What the pool must know of `find`: empty means *not yet*."""
    cloud.list_lag = 0.3
    volume_id = new_id()
    backend_id = await backend.create(volume_id, "spare", "igw", 10)
    assert await backend.find(volume_id) == []
    assert await backend.get(backend_id) is not None

    async def shown() -> bool:
        return len(await backend.find(volume_id)) == 1

    await eventually(shown)


async def test_eight_creates_at_once_use_few_connections(cloud: Cloud, backend: CinderBackend) -> None:
    cloud.create_delay = 0.01
    await asyncio.gather(*(backend.create(new_id(), f"v{n}", "igw", 10) for n in range(40)))
    assert len(await backend.list_ours()) == 40
    assert cloud.connections <= 25
    assert cloud.logins == 1
