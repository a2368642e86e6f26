"""Whose the files of ``secrets_dir`` are."""

import os
from pathlib import Path

import pytest

from proctor_controller.db.sealing import Seal
from proctor_controller.domain.runs.order_rendering import RenderFault
from proctor_controller.engine.scopes import Scopes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    for name in ("top", "red/own", "blue/own", "blue/theirs", "shared/own"):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"of {name}\n")
    return made


async def read(folder: Path, name: str, group: str | None) -> str | None:
    """The secret; None where it is refused."""
    try:
        return await Scopes(Seal(None), folder).secret(name, group)
    except RenderFault:
        return None


async def test_files_at_the_top_are_for_runs_without_a_group_and_those_in_a_folder_for_its_group(folder: Path) -> None:
    assert [await read(folder, "top", group) for group in (None, "red", "blue")] == ["of top", None, None]
    assert [await read(folder, "own", group) for group in (None, "red", "blue")] == [None, "of red/own", "of blue/own"]
    assert [await read(folder, "theirs", group) for group in (None, "red", "green")] == [None, None, None]
    assert await read(folder, "own", "shared") == "of shared/own"


async def test_the_file_shared_names_the_groups_that_have_the_top_too(folder: Path) -> None:
    (folder / "shared/own").unlink()
    (folder / "shared").rmdir()
    (folder / "shared").write_text("red\ngreen shared\n")
    (folder / "own").write_text("of the top")
    names = ("red", "green", "shared", "blue", "re", "gree")
    assert [await read(folder, "top", group) for group in names] == ["of top"] * 3 + [None] * 3
    # A group's own goes first.
    assert [await read(folder, "own", group) for group in ("red", "green")] == ["of red/own", "of the top"]
    assert [await read(folder, "shared", group) for group in (None, "red")] == [None, None]


async def test_a_fault_does_not_tell_whether_others_have_it(folder: Path) -> None:
    said = []
    for name in ("theirs", "nobodys"):
        with pytest.raises(RenderFault) as refused:
            await Scopes(Seal(None), folder).secret(name, "red")
        said.append(str(refused.value).replace(name, "NAME"))
    assert said[0] == said[1]
    assert "red/NAME" in said[0]


async def test_no_way_leads_out_of_a_folder(folder: Path) -> None:
    (folder.parent / "outside").write_text("not yours")
    for link, target in (("a", "../blue/own"), ("b", folder / "top"), ("c", "c"), ("d", "../../outside"), ("e", "own")):
        (folder / "red" / link).symlink_to(target)
    (folder / "beside").symlink_to("../outside")
    os.mkfifo(folder / "red" / "pipe")
    for name in ("a", "b", "c", "d", "pipe", "../top", "../blue/own", "own/", "./own", "/etc/hostname", "", ".", ".."):
        assert await read(folder, name, "red") is None, name
    for name in ("beside", "red", "red/own", "blue"):
        assert await read(folder, name, None) is None, name
    for group in ("..", ".", "red/..", "", "../secrets"):
        assert await read(folder, "top", group) is None, group
    assert await read(folder, "e", "red") == "of red/own"


async def test_folders_as_a_cluster_mounts_them_are_read(folder: Path) -> None:
    for where in (folder, folder / "red"):
        (where / "..2026").mkdir()
        (where / "..2026" / "mounted").write_text(f"mounted in {where.name}")
        (where / "..data").symlink_to("..2026")
        (where / "mounted").symlink_to("..data/mounted")
    (folder / "..2026" / "green").mkdir()
    (folder / "..2026" / "green" / "own").write_text("of green/own")
    (folder / "green").symlink_to("..data/green")
    assert await read(folder, "mounted", None) == "mounted in secrets"
    assert await read(folder, "mounted", "red") == "mounted in red"
    assert await read(folder, "own", "green") == "of green/own"
