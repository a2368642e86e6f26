"""What a killed launcher leaves: told apart from strangers, and ended."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proctor_cli.local.recovery import (
    MARK,
    ChildRecord,
    Process,
    end,
    end_postmaster,
    find_process,
    kill_marked,
    marked,
)
from support.wait import eventually_sync


@contextmanager
def _child(*argv: str, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(argv or ("sleep", "60"), env={**os.environ, **env}, start_new_session=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _found(child: "subprocess.Popen[bytes]") -> Process:
    found = find_process(child.pid)
    assert found is not None
    return found


def test_a_zombie_is_no_process() -> None:
    with _child("true") as child:
        eventually_sync(lambda: find_process(child.pid) is None, 5, "the end")


def test_a_later_process_with_the_same_pid_is_another() -> None:
    with _child() as child:
        process = _found(child)
        assert process.is_alive
        assert not Process(process.pid, process.started - 1).is_alive


def test_the_ways_are_tried_in_turn() -> None:
    with _child("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done") as child:
        process = _found(child)
        eventually_sync(lambda: b"0000000000004000" in _ignored(child.pid), 5, "the trap")
        assert not end(process, (signal.SIGTERM, 0.2))
        assert end(process, (signal.SIGTERM, 0.1), (signal.SIGKILL, 5))


def _ignored(pid: int) -> bytes:
    status = Path(f"/proc/{pid}/status").read_bytes()
    return next(line for line in status.splitlines() if line.startswith(b"SigIgn"))


def test_recorded_children_are_ended_but_no_strangers(tmp_path: Path) -> None:
    file = tmp_path / "children.json"
    with _child() as ours, _child() as stranger:
        record = ChildRecord(file)
        record.note("api", ours.pid)
        known = json.loads(file.read_text())
        # A pid of the former life that is somebody else's by now.
        known["controller"] = [stranger.pid, _found(stranger).started - 1]
        file.write_text(json.dumps(known))
        ChildRecord(file).end_former()
        assert find_process(ours.pid) is None
        assert stranger.poll() is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"api": 1}', '{"api": ["x", 1]}'])
def test_a_damaged_record_does_not_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "children.json").write_text(content)
    ChildRecord(tmp_path / "children.json").end_former()


def test_marked_processes_are_found_through_setsid_and_killed() -> None:
    mark = f"test-{os.getpid()}"
    with _child("sh", "-c", "setsid sleep 60 & sleep 60", **{MARK: mark}), _child(**{MARK: f"{mark}-other"}) as other:
        eventually_sync(lambda: len(marked(mark)) == 3, 5, "all three")
        kill_marked(mark)
        assert marked(mark) == []
        assert other.poll() is None


def test_a_stale_pid_file_is_removed_where_it_would_mislead(tmp_path: Path) -> None:
    file = tmp_path / "postmaster.pid"
    with _child() as stranger:
        file.write_text(f"{stranger.pid}\n{tmp_path}\n")
        end_postmaster(tmp_path)
        assert stranger.poll() is None
    assert not file.exists()
    file.write_text("nonsense")
    end_postmaster(tmp_path)
    assert not file.exists()
