"""What methods make of a target's output: pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_agent.artefacts import parse_artefacts
from proctor_agent.plugin import Completed, MethodFault, Tail, last_line
from proctor_agent.plugins.linux_system import ping_result
from proctor_agent.plugins.system import parse


@given(pieces=st.lists(st.binary(max_size=30), max_size=20), keep=st.integers(1, 40))
def test_a_tail_keeps_the_last_bytes(pieces: list[bytes], keep: int) -> None:
    tail = Tail(keep)
    for piece in pieces:
        tail.add(piece)
    whole = b"".join(pieces)
    assert tail.total == len(whole)
    assert whole.endswith(tail.data)
    if len(whole) <= keep:
        assert tail.data == whole
    else:
        assert keep - 3 <= len(tail.data) <= keep


@given(text=st.text(max_size=50), keep=st.integers(8, 60))
def test_a_tail_of_text_is_text(text: str, keep: int) -> None:
    tail = Tail(keep)
    tail.add(text.encode())
    assert text.endswith(tail.data.decode())


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("a", "a"),
        ("a\n", "a"),
        ("a\nb", "b"),
        ("a\nb\n", "b"),
        ("a\n\n \n", "a"),
        ("ready\n\x1b[0m\n", "ready"),
        ("10 %\r100 %\r\x1b[Kready", "ready"),
        ("a\r\n", "a"),
        ("x" * 9000, "x" * 4096),
    ],
)
def test_the_last_line(text: str, last: str) -> None:
    assert last_line(text) == last


def completed(out: str, err: str = "", code: int = 0) -> Completed:
    return Completed(code, None, out.encode(), err.encode(), False, 0.1)


def test_the_ping_of_busybox_is_understood() -> None:
    printed = (
        "PING 10.0.0.1 (10.0.0.1): 56 data bytes\n64 bytes from 10.0.0.1: seq=0 ttl=64 time=0.1 ms\n\n"
        "--- 10.0.0.1 ping statistics ---\n3 packets transmitted, 2 packets received, 33% packet loss\n"
        "round-trip min/avg/max = 0.100/0.200/0.300 ms\n"
    )
    found = ping_result("10.0.0.1", completed(printed))
    assert (found.sent, found.received, found.loss_percent) == (3, 2, 33.333)
    assert (found.rtt_min_ms, found.rtt_avg_ms, found.rtt_max_ms) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    "error", ["ping: nowhere: Name or service not known", "ping: permission denied (are you root?)"]
)
def test_a_ping_that_cannot_send_is_an_error(error: str) -> None:
    with pytest.raises(MethodFault, match=r"^ping nowhere: ping: ") as caught:
        ping_result("nowhere", completed("", error + "\n", 2))
    assert caught.value.kind == "ping_failed"


def test_facts_of_a_machine_that_says_little() -> None:
    printed = "=== proctor memory\nMemTotal: 10 kB\nMemFree: 4 kB\n"
    sections = ("os", "kernel", "hostname", "uptime", "load", "cpu", "disks")
    printed = "".join(f"=== proctor {name}\n" for name in sections) + printed
    assert parse(printed) is None, "it did not come to its end"
    found = parse(printed + "=== proctor end\n")
    assert found is not None
    assert (found.memory.total, found.memory.available) == (10240, 4096)
    assert (found.hostname, found.cpu.count, found.disks) == ("", 0, [])


def test_facts_survive_odd_lines() -> None:
    printed = (
        "noise\n=== proctor os\nID=x\nNAME=\"A 'b'\"\n=== proctor kernel\nLinux\n=== proctor hostname\nh\n"
        "=== proctor uptime\nnot-a-number\n=== proctor load\n0.5\n=== proctor memory\nMemTotal: 1 kB\nodd\n"
        "=== proctor cpu\nprocessor\t: 0\nprocessor\t: 1\nmodel name\t: M: x\n"
        "=== proctor disks\nFilesystem 1024-blocks Used Available Capacity Mounted on\n"
        "/dev/x 100 40 60 40% /with space\ntmpfs 1 1 1 1% /run\n/dev/y - - - - /odd\nshort\n=== proctor end\n"
    )
    found = parse(printed)
    assert found is not None
    assert found.cpu.count == 2 and found.cpu.model == "M: x"
    assert [(disk.mount, disk.size) for disk in found.disks] == [("/with space", 102400)]
    assert (found.load.one, found.load.five) == (0.5, 0.0)


def test_artefacts_are_listed_once_and_patterns_without_a_match_are_named() -> None:
    printed = b"\0" + b"a\x002\0aa\0" + b"b\x003\0bb\0" + b"\0" + b"\0" + b"a\x002\0aa\0"
    found, missing = parse_artefacts(printed, ["*", "none", "a"])
    assert [(item.path, item.size, item.sha256) for item in found] == [("a", 2, "aa"), ("b", 3, "bb")]
    assert missing == ["none"]
