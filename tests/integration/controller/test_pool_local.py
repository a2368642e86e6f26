"""The local backend: files of its own in a private folder, states as a cloud has them, several processes at once."""

import asyncio
import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from proctor_common.ids import new_id
from proctor_controller.domain.volumes.settings import LocalSettings
from proctor_controller.volumes.backend import BackendDown, BadRequest, FoundState, QuotaRefused
from proctor_controller.volumes.local import LocalBackend
from support.wait import eventually


def backend(folder: Path, qemu_img: str = "", **settings: float) -> LocalBackend:
    return LocalBackend(folder / "volumes", "here", LocalSettings(**settings), qemu_img=qemu_img)  # type: ignore[arg-type]


async def test_a_volume_from_its_creation_to_its_end(tmp_path: Path) -> None:
    here = backend(tmp_path)
    ours = new_id()
    made = await here.create(ours, "spare", "igw", 3)
    found = await here.get(made)
    assert found is not None
    assert (found.volume_id, found.name, found.type, found.size_gb) == (ours, "spare", "igw", 3)
    assert found.state is FoundState.AVAILABLE
    disk = Path(found.path)
    assert disk.stat().st_size == 3 * 1024**3
    assert disk.stat().st_blocks == 0, "sparse"
    assert stat.S_IMODE(disk.parent.stat().st_mode) == 0o700
    assert await here.rename(made, "vnf-1")
    assert await here.rename(made, "vnf-1")
    assert [each.name for each in await here.find(ours)] == ["vnf-1"]
    assert await here.delete(made)
    assert not await here.delete(made)
    assert not await here.rename(made, "late")
    assert await here.get(made) is None
    assert [path.name for path in disk.parent.iterdir()] == [".lock"]


async def test_it_imitates_a_slow_and_a_failing_cloud(tmp_path: Path) -> None:
    slow, failing = backend(tmp_path, create_delay=0.2), backend(tmp_path, fail_rate=1)
    made = await slow.create(new_id(), "a", "igw", 1)

    async def state(backend_id: str) -> FoundState:
        found = await slow.get(backend_id)
        assert found is not None
        return found.state

    assert await state(made) is FoundState.CREATING

    async def available() -> bool:
        return await state(made) is FoundState.AVAILABLE

    await eventually(available, 5, "the volume")
    assert await state(await failing.create(new_id(), "b", "igw", 1)) is FoundState.ERROR


async def test_its_quota_holds_for_all_who_share_the_folder(tmp_path: Path) -> None:
    several = [backend(tmp_path, quota=3) for _ in range(4)]
    answers = await asyncio.gather(
        *(each.create(new_id(), "a", "igw", 1) for each in several for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(answer, QuotaRefused) for answer in answers) == 5
    assert await several[0].room() == 0
    assert await backend(tmp_path).room() is None


async def test_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    here = backend(tmp_path)
    with pytest.raises(BadRequest, match="1 to 1024 GB"):
        await here.create(new_id(), "a", "igw", 5000)
    assert await here.get("../../etc/passwd") is None
    made = await here.create(new_id(), "a", "igw", 1)
    (tmp_path / "volumes" / f"{made}.json").write_text("{}")
    with pytest.raises(BackendDown, match="not what was written"):
        await here.list_ours()


async def test_a_volume_whose_maker_was_killed_is_in_error_after_a_while(tmp_path: Path) -> None:
    here = backend(tmp_path)
    made = await here.create(new_id(), "a", "igw", 1)
    card = tmp_path / "volumes" / f"{made}.json"
    (tmp_path / "volumes" / f"{made}.raw").unlink()
    found = await here.get(made)
    assert found is not None
    assert found.state is FoundState.CREATING
    old = {**json.loads(card.read_text()), "created_at": "2020-01-01T00:00:00+00:00"}
    card.write_text(json.dumps(old))
    found = await here.get(made)
    assert found is not None
    assert (found.state, found.reason) == (FoundState.ERROR, "it has no disk")


async def test_with_qemu_img_a_disk_is_qcow2(tmp_path: Path) -> None:
    qemu_img = shutil.which("qemu-img")
    if qemu_img is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    here = backend(tmp_path, qemu_img)
    found = await here.get(await here.create(new_id(), "a", "igw", 2))
    assert found is not None
    command = [qemu_img, "info", "--output=json", found.path]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert json.loads(told.stdout).items() >= {"format": "qcow2", "virtual-size": 2 * 1024**3}.items()


async def test_a_qemu_img_that_fails_leaves_a_volume_in_error(tmp_path: Path) -> None:
    broken = tmp_path / "qemu-img"
    broken.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    broken.chmod(0o700)
    here = backend(tmp_path, str(broken))
    found = await here.get(await here.create(new_id(), "a", "igw", 2))
    assert found is not None
    assert (found.state, found.reason) == (FoundState.ERROR, "qemu-img: no space left")
    (tmp_path / "volumes" / f".{found.backend_id}.disk").write_text("what it left")
    assert await here.delete(found.backend_id)
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == [".lock"]
