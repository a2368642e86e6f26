"""How client commands find the local system, and whose files they believe."""

import json
import os
from pathlib import Path

import pytest

from proctor_cli.endpoint import DEFAULT_URL, Endpoint, checked_token, default_data_dir, find_endpoint
from proctor_cli.faults import Usage
from proctor_cli.local.pointer import Pointer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "proctor"


def _pointer(folder: Path, url: str = "http://127.0.0.1:1", token: str | None = "t") -> Pointer:
    folder.mkdir(exist_ok=True)
    return Pointer(url, token, None, folder)


def test_without_anything_it_is_the_default_address() -> None:
    assert find_endpoint() == Endpoint(DEFAULT_URL, None)


def test_the_local_system_is_found_where_it_announces_itself(tmp_path: Path, home: Path) -> None:
    pointer = _pointer(tmp_path / "data")
    pointer.write()
    assert find_endpoint() == Endpoint("http://127.0.0.1:1", "t")
    assert {(p / "client.json").stat().st_mode & 0o777 for p in (home, tmp_path / "data")} == {0o600}
    pointer.remove()
    assert find_endpoint() == Endpoint(DEFAULT_URL, None)
    assert not (tmp_path / "data" / "client.json").exists()


def test_one_that_does_not_announce_itself_is_not_found(tmp_path: Path) -> None:
    _pointer(tmp_path / "data").write(announce=False)
    assert find_endpoint() == Endpoint(DEFAULT_URL, None)


def test_the_first_of_two_systems_stays_the_one_that_is_found(tmp_path: Path, home: Path) -> None:
    first, second = _pointer(tmp_path / "one"), _pointer(tmp_path / "two", "http://127.0.0.1:2")
    assert first.write() is None
    # Another launcher: the test's own parent stands for it.
    found = json.loads((home / "client.json").read_text())
    parent = os.getppid()
    started = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19])
    (home / "client.json").write_text(json.dumps({**found, "launcher": [parent, started]}))
    assert second.write() == "http://127.0.0.1:1", "who starts the second one is told"
    assert find_endpoint().url == "http://127.0.0.1:1"
    second.remove()
    assert find_endpoint().url == "http://127.0.0.1:1"
    # Its launcher is gone: the file is free.
    (home / "client.json").write_text(json.dumps({**found, "launcher": [parent, started - 1]}))
    assert second.write() is None
    assert find_endpoint().url == "http://127.0.0.1:2"


def test_the_local_token_goes_to_the_local_system_only(tmp_path: Path) -> None:
    _pointer(tmp_path / "data").write()
    assert find_endpoint("http://elsewhere.example").token is None
    assert find_endpoint("http://127.0.0.1:1/").token == "t"
    assert find_endpoint("http://127.0.0.1:1", "mine").token == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_not_believed(tmp_path: Path, home: Path) -> None:
    _pointer(tmp_path / "data").write()
    os.chown(home / "client.json", 12345, 12345)
    assert find_endpoint() == Endpoint(DEFAULT_URL, None)


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://[::1", "http://x:99999", "x", "http://x y", "http://x?a=b"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Usage, match="not a URL"):
        find_endpoint(url)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(Usage, match="holds a user or a password") as refused:
        find_endpoint("http://me:s3cret@x")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("token", ["s3cretü", "s3 cret", "s3cret\x00x", "s3cret\r\nX: y", "\udcffs3cret"])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Usage, match="PROCTOR_TOKEN holds no token: character") as refused:
        checked_token(token, "PROCTOR_TOKEN")
    assert "s3" not in str(refused.value)


def test_white_space_around_a_token_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOR_TOKEN", " \tgood\r\n")
    assert find_endpoint("http://x/ ") == Endpoint("http://x", "good")


def test_without_a_home_there_is_a_folder_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert default_data_dir() == Path("/tmp/proctor-4711")


def test_a_home_that_cannot_be_written_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert default_data_dir() == Path(f"/tmp/proctor-{os.geteuid()}")
