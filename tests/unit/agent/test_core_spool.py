"""The spool on disk: frames come back as they went in, limits hold, a new life finds what the old one left."""

import os
from pathlib import Path

import pytest

from proctor_agent.log import spool as spool_module
from proctor_agent.log.spool import AttemptSpool, FramePosition, Spool, SpoolFullError
from proctor_common.messages.log import Chunk, decode_chunk
from proctor_common.states import Source

MIB = 1024 * 1024


def payload(seq: int, data: bytes = b"line\n", line: int = 0) -> bytes:
    return Chunk(seq, line or seq, 1.0, Source.STDOUT, data).encode()


def fill(spool: AttemptSpool, count: int, data: bytes = b"line\n") -> list[tuple[FramePosition, bytes]]:
    written = []
    for seq in range(1, count + 1):
        one = payload(seq, data)
        written.append((spool.append(seq, one, (seq - 1) * len(data)), one))
    return written


def read_all(spool: AttemptSpool, place: FramePosition) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            one, place = spool.read(place)
        except LookupError:
            return found
        found.append(one)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1000)


def test_frames_are_read_back_over_segments(tmp_path: Path, small_segments: None) -> None:
    spool = Spool(tmp_path / "spool", limit=MIB, attempt_limit=MIB)
    written = fill(spool.attempt("step", 1), 100)
    assert len(list((tmp_path / "spool").iterdir())) > 3
    assert read_all(spool.attempt("step", 1), written[0][0]) == [one for _, one in written]
    assert spool.used == sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "spool").iterdir())


def test_room_is_made_by_what_is_acknowledged_only(tmp_path: Path, small_segments: None) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=3000)
    mine = spool.attempt("step", 1)
    with pytest.raises(SpoolFullError):
        fill(mine, 1000)
    used = mine.used
    frames = read_all(mine, FramePosition(1, 24))
    with pytest.raises(SpoolFullError):
        mine.append(60, payload(60), 0)
    first, after = mine.read(FramePosition(1, 24))
    place = FramePosition(1, 24)
    while after.segment == 1:
        length = len(first)
        mine.acknowledge(place, length)
        place = after
        first, after = mine.read(after)
    mine.append(len(frames) + 1, payload(len(frames) + 1), 0)
    assert mine.used <= 3000
    assert used <= 3000
    assert not (tmp_path / "step.1.1.spool").exists()


def test_the_agents_limit_takes_from_the_acknowledged_of_others(tmp_path: Path, small_segments: None) -> None:
    spool = Spool(tmp_path, limit=6000, attempt_limit=5000)
    mine, other = spool.attempt("mine", 1), spool.attempt("other", 1)
    written = fill(other, 100)
    with pytest.raises(SpoolFullError, match="agent"):
        fill(mine, 1000)
    place, one = written[-1]
    other.acknowledge(place, len(one))
    before = mine.used
    mine.append(1000, payload(1000), 0)
    assert mine.used > before
    assert spool.used <= 6000


def test_a_new_life_finds_where_the_old_one_stopped(tmp_path: Path, small_segments: None) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    written = fill(spool.attempt("step", 2), 50)
    place, one = written[29]
    spool.attempt("step", 2).acknowledge(place, len(one))
    spool.close()

    again = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    assert again.left() == {("step", 2)}
    found = again.attempt("step", 2).recover()
    assert found is not None
    assert (found.last_seq, found.line, found.bytes, found.unsent_seq) == (50, 51, 250, 31)
    assert found.unsent is not None
    assert [decode_chunk(x).seq for x in read_all(again.attempt("step", 2), found.unsent)] == list(range(31, 51))
    again.attempt("step", 2).append(51, payload(51), 250)
    again.forget("step", 2)
    assert list(tmp_path.iterdir()) == []
    assert again.used == 0


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_torn_last_frame_is_cut_off(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    fill(spool.attempt("step", 1), 3)
    spool.close()
    path = tmp_path / "step.1.1.spool"
    os.truncate(path, path.stat().st_size - cut)
    again = Spool(tmp_path, limit=MIB, attempt_limit=MIB).attempt("step", 1)
    found = again.recover()
    assert found is not None
    assert (found.last_seq, found.bytes) == (2, 10)
    again.append(3, payload(3, b"new\n"), 10)
    assert decode_chunk(read_all(again, FramePosition(1, 24))[2]).data == b"new\n"


def test_all_acknowledged_is_nothing_to_send(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    place, one = fill(spool.attempt("step", 1), 5)[-1]
    spool.attempt("step", 1).acknowledge(place, len(one))
    spool.close()
    found = Spool(tmp_path, limit=MIB, attempt_limit=MIB).attempt("step", 1).recover()
    assert found is not None
    assert (found.last_seq, found.unsent) == (5, None)


def test_nothing_on_disk_before_the_first_byte(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=MIB)
    assert spool.attempt("step", 1).recover() is None
    spool.forget("step", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_no_half_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, limit=MIB, attempt_limit=MIB).attempt("step", 1)
    fill(spool, 2)
    size = (tmp_path / "step.1.1.spool").stat().st_size
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda file, parts, at: real(file, [parts[0]], at))
    with pytest.raises(SpoolFullError):
        spool.append(3, payload(3), 10)
    assert (tmp_path / "step.1.1.spool").stat().st_size == size
    monkeypatch.undo()
    spool.append(3, payload(3), 10)
    assert len(read_all(spool, FramePosition(1, 24))) == 3


def test_what_waits_for_its_confirmation_keeps_no_file_open(tmp_path: Path, small_segments: None) -> None:
    spool = Spool(tmp_path / "spool", limit=MIB, attempt_limit=MIB)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        mine = spool.begin(f"s{number}", 1)
        place, one = fill(mine, 30)[-1]
        mine.acknowledge(place, len(one))
        mine.seal()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(spool.left()) == 20
    for number in range(20):
        spool.forget(f"s{number}", 1)
    assert (spool.used, list((tmp_path / "spool").iterdir())) == (0, [])
