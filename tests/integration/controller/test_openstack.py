"""The backend `cinder` on a real cloud: the one that OS_* or clouds.yaml name (`just openstack`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from proctor_common.ids import new_id
from proctor_controller.volumes.backend import AnswerLost, BadRequest, FoundState, FoundVolume, NotNow
from proctor_controller.volumes.cinder import backend as cinder
from proctor_controller.volumes.cinder.answers import INSTALLATION_KEY, VOLUME_KEY
from proctor_controller.volumes.cinder.backend import CinderBackend
from support.openstack import named_cloud, volume_types
from support.wait import eventually

pytestmark = [
    pytest.mark.openstack,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Support for InfluxDB"),
]
PATIENCE = 60.0


@pytest.fixture
async def backend() -> AsyncIterator[CinderBackend]:
    async with named_cloud(f"proctor-test-{new_id()}") as made:
        yield made


@pytest.fixture
async def kind(backend: CinderBackend) -> str:
    return (await volume_types(backend))[0]


async def settled(backend: CinderBackend, backend_id: str) -> FoundVolume:
    async def no_longer_creating() -> FoundVolume | None:
        found = await backend.get(backend_id)
        return found if found is not None and found.state is not FoundState.CREATING else None

    found: FoundVolume = await eventually(no_longer_creating, PATIENCE)
    return found


async def gone(backend: CinderBackend, backend_id: str) -> None:
    async def is_gone() -> bool:
        return await backend.get(backend_id) is None

    await eventually(is_gone, PATIENCE)


async def test_a_volume_lives(backend: CinderBackend, kind: str) -> None:
    before = await backend.room()
    volume_id = new_id()
    backend_id = await backend.create(volume_id, "proctor test", kind, 1)
    found = await settled(backend, backend_id)
    assert (found.state, found.volume_id, found.type, found.size_gb) == (FoundState.AVAILABLE, volume_id, kind, 1)
    assert found.created_at is not None
    assert [one.backend_id for one in await backend.find(volume_id)] == [backend_id]
    after = await backend.room()
    assert before is None or (after is not None and after < before)
    assert await backend.rename(backend_id, "proctor test: a VNF's")
    [renamed] = await backend.list_ours()
    assert renamed.name == "proctor test: a VNF's" and renamed.volume_id == volume_id
    assert await backend.delete(backend_id)
    assert await backend.delete(backend_id) in {True, False}, "asked again"
    await gone(backend, backend_id)
    assert not await backend.delete(backend_id)
    assert not await backend.rename(backend_id, "too late")
    assert await backend.find(volume_id) == []


async def test_strangers_are_not_seen(backend: CinderBackend, kind: str) -> None:
    volume_id = new_id()
    async with named_cloud(f"proctor-test-{new_id()}") as other:
        theirs = await other.create(volume_id, "proctor test", kind, 1)
        ours = await backend.create(volume_id, "proctor test", kind, 1)
        assert [found.backend_id for found in await backend.list_ours()] == [ours]
        assert [found.backend_id for found in await backend.find(volume_id)] == [ours]
        assert await backend.get(theirs) is None


async def test_two_volumes_of_one_name_and_one_id(backend: CinderBackend, kind: str) -> None:
    volume_id = new_id()
    made = [await backend.create(volume_id, "proctor test", kind, 1) for _ in range(2)]
    assert {found.backend_id for found in await backend.find(volume_id)} == set(made)


async def test_pages(backend: CinderBackend, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cinder, "PAGE", 2)
    made = await asyncio.gather(*(backend.create(new_id(), f"proctor test {n}", kind, 1) for n in range(5)))
    assert {found.backend_id for found in await backend.list_ours()} == set(made)


async def test_ten_renames_at_once_all_succeed(backend: CinderBackend, kind: str) -> None:
    """Why a rename is never the claim."""
    backend_id = await backend.create(new_id(), "proctor test", kind, 1)
    await settled(backend, backend_id)
    renamed = await asyncio.gather(*(backend.rename(backend_id, f"proctor test {n}") for n in range(10)))
    assert renamed == [True] * 10


async def test_a_lost_answer_is_found_by_our_id(backend: CinderBackend, kind: str) -> None:
    await backend.room()
    storage = backend.storage
    hasty = CinderBackend(type(storage)(replace(storage._source, call_timeout=0.005)), "x")
    hasty._installation, hasty.storage.identity = backend._installation, storage.identity
    hasty.storage._version = storage._version
    volume_id = new_id()
    try:
        with pytest.raises(AnswerLost):
            await hasty.create(volume_id, "proctor test", kind, 1)
    finally:
        await hasty.storage.close()

    async def found() -> bool:
        return len(await backend.find(volume_id)) == 1

    await eventually(found, PATIENCE)


async def test_refusals(backend: CinderBackend, kind: str) -> None:
    with pytest.raises(BadRequest, match="could not be found"):
        await backend.create(new_id(), "proctor test", "no-such-type", 1)
    with pytest.raises(BadRequest):
        await backend.create(new_id(), "proctor test", kind, 0)
    assert await backend.list_ours() == []
    assert await backend.get("00000000-0000-4000-8000-000000000000") is None


async def test_a_refused_token_is_renewed_once_for_all(backend: CinderBackend) -> None:
    await backend.room()
    identity = backend.storage.identity
    assert identity._access is not None
    identity._access = replace(identity._access, token="gAAAAAB-no-such-token")
    before = identity.logins
    await asyncio.gather(*(backend.room() for _ in range(8)))
    assert identity.logins == before + 1


async def test_a_version_that_is_too_old_would_ignore_filters(backend: CinderBackend) -> None:
    """Why below 3.31 nothing is done at all."""
    await backend.room()
    assert backend.storage._version is not None
    base, version = backend.storage._version
    assert tuple(map(int, version.split("."))) >= (3, 31)
    backend.storage._version = (base, "3.99")
    with pytest.raises(BadRequest, match="406"):
        await backend.room()
    await backend.room()


async def test_a_deletion_while_creating_waits_or_is_taken(backend: CinderBackend, kind: str) -> None:
    backend_id = await backend.create(new_id(), "proctor test", kind, 1)
    with suppress(NotNow):
        await backend.delete(backend_id)
        await gone(backend, backend_id)
        return
    await settled(backend, backend_id)
    assert await backend.delete(backend_id)
    await gone(backend, backend_id)


async def test_our_marks_are_in_the_cloud_for_all_to_see(backend: CinderBackend, kind: str) -> None:
    volume_id = new_id()
    backend_id = await backend.create(volume_id, "proctor test", kind, 1)
    answer = await backend.storage.call("GET", f"/volumes/{backend_id}", doing="look")
    assert answer.body["volume"]["metadata"] == {INSTALLATION_KEY: backend._installation, VOLUME_KEY: volume_id}
