"""The line that a login shell gets: whatever the words are, the program gets them byte for byte."""

import itertools
import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor_agent.ssh.command import Command, MarkerFilter, build, quote
from proctor_agent.ssh.faults import SshFault

SHELLS = [shell for shell in ("dash", "bash", "zsh", "fish", "ksh", "mksh", "busybox") if shutil.which(shell)]
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NASTY = st.sampled_from(
    [
        "",
        " ",
        "a b",
        "'",
        '"',
        "\\",
        "\\\\",
        "\n",
        "a\n",
        "$(id)",
        "`id`",
        "*",
        "~",
        "-n",
        "--",
        "!x",
        "$HOME",
        "%s",
        "ü😀",
        "\x81\x88",
        "\t",
        "\r\n",
        "#",
        ";",
        "&",
        "{a,b}",
    ]
)
WORDS = st.lists(ANY_TEXT | NASTY | st.tuples(NASTY, NASTY, ANY_TEXT).map("".join), max_size=8)


def through(shell: str, command: Command) -> tuple[bytes, MarkerFilter, "subprocess.CompletedProcess[bytes]"]:
    """What the program prints when the line goes to that login shell, as sshd would start it."""
    wire = build(command)
    start = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    done = subprocess.run(
        [*start, wire.line],
        input=wire.stdin,
        capture_output=True,
        start_new_session=True,
        timeout=20,
        env={"PATH": os.environ["PATH"], "HOME": "/"},
        check=False,
    )
    marker = MarkerFilter(wire.tag)
    noise, own = marker.feed(done.stdout)
    assert noise == b"", noise
    return own, marker, done


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words=WORDS)
def test_every_word_arrives_byte_for_byte(shell: str, words: list[str]) -> None:
    own, marker, done = through(shell, Command(["printf", "%s\\0", "first", *words]))
    assert done.returncode == 0, done.stderr
    assert own.split(b"\0")[:-1] == [word.encode() for word in ["first", *words]]
    assert marker.started is not None


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(ANY_TEXT | NASTY, min_size=1, max_size=5), words=WORDS)
def test_every_environment_value_arrives_byte_for_byte(shell: str, values: list[str], words: list[str]) -> None:
    env = {f"VALUE_{number}": value for number, value in enumerate(values)}
    script = "".join(f'printf "%s\\0" "${name}"; ' for name in env) + 'printf "%s\\0" "$@"'
    own, _, done = through(shell, Command(["sh", "-c", script, "sh", *words, "last"], env=env))
    assert done.returncode == 0, done.stderr
    assert own.split(b"\0")[:-1] == [text.encode() for text in [*values, *words, "last"]]


@pytest.mark.parametrize("shell", SHELLS)
def test_arguments_too_long_for_one_line_arrive_too(shell: str) -> None:
    words = ["'" * 60_000, "x" * 60_000 + "\n\n", "", *("\\" for _ in range(997))]
    own, _, done = through(shell, Command(["printf", "%s\\0", *words]))
    assert done.returncode == 0, done.stderr[:500]
    assert own.split(b"\0")[:-1] == [word.encode() for word in words]


def test_neither_values_nor_their_names_stand_in_the_line() -> None:
    wire = build(Command(["make"], env={"TOKEN": "s3cret-value"}))
    assert "s3cret-value" not in wire.line
    assert b"s3cret-value" in wire.stdin


def test_the_program_gets_only_its_own_standard_input() -> None:
    own, _, _ = through("sh", Command(["cat"], env={"A": "b\nc"}, stdin=b"\0mine\xff"))
    assert own == b"\0mine\xff"
    own, _, _ = through("sh", Command(["cat"], env={"A": "b\nc"}))
    assert own == b""


def test_the_command_is_the_process_that_the_marker_names_with_a_group_of_its_own() -> None:
    own, marker, done = through("sh", Command(["sh", "-c", "read -r s </proc/$$/stat; echo $$ $s"]))
    assert marker.started is not None
    fields = own.split()
    assert int(fields[0]) == marker.started.pid == marker.started.pgid == int(fields[5])
    assert int(fields[22]) == marker.started.started > 0
    assert done.returncode == 0


def test_without_a_group_of_its_own_it_gets_a_session() -> None:
    wire = build(Command(["sh", "-c", "read -r s </proc/$$/stat; echo $s"], env={"X": "y"}, stdin=b""))
    # The outer shell keeps the group; its child, as with a server that starts commands in its own group, has none.
    done = subprocess.run(
        ["sh", "-c", f"sh -c {quote(wire.line)}; true"],
        input=wire.stdin,
        capture_output=True,
        timeout=20,
        check=True,
    )
    marker = MarkerFilter(wire.tag)
    _, own = marker.feed(done.stdout)
    assert marker.started is not None
    fields = own.split()
    assert int(fields[0]) == int(fields[4]) == int(fields[5]) == marker.started.pid == marker.started.pgid


def test_a_missing_folder_is_told_apart_from_a_failing_program() -> None:
    wire = build(Command(["true"], cwd="/no/such"))
    done = subprocess.run(["sh", "-c", wire.line], capture_output=True, timeout=20, check=False)
    marker = MarkerFilter(wire.tag)
    marker.feed(done.stdout)
    assert marker.found and marker.no_directory and marker.started is None


@pytest.mark.parametrize("cwd", ["/tmp", "/", "-", "--"])
def test_a_folder_is_a_folder_whatever_its_name(cwd: str, tmp_path: object) -> None:
    root = str(tmp_path)
    os.makedirs(os.path.join(root, cwd.lstrip("/")), exist_ok=True)
    inner = f"cd {quote(root)} && " + build(Command(["pwd", "-P"], cwd=cwd)).line
    done = subprocess.run(["sh", "-c", inner], capture_output=True, timeout=20, check=True)
    expected = cwd if cwd.startswith("/") else os.path.join(root, cwd)
    assert done.stdout.splitlines()[-1].decode() == os.path.realpath(expected)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (Command([]), "no program"),
        (Command([""]), "no program"),
        (Command(["-c"]), "dash"),
        (Command(["a\0b"]), "NUL"),
        (Command(["a", "b\0"]), "argument 1 holds a NUL"),
        (Command(["a", "\ud800"]), "surrogate"),
        (Command(["a", "x" * 200_000]), "128 KiB"),
        (Command(["a"], env={"1X": ""}), "not a name"),
        (Command(["a"], env={"X=Y": ""}), "not a name"),
        (Command(["a"], env={"X\n": ""}), "not a name"),
        (Command(["a"], env={"X": "\0"}), "variable X holds a NUL"),
        (Command(["a"], cwd=""), "empty"),
        (Command(["a"], env={f"V{n}": "" for n in range(101)}), "more than 100"),
    ],
)
def test_what_no_program_can_be_given_is_refused_by_name(command: Command, says: str) -> None:
    with pytest.raises(SshFault, match=says) as caught:
        build(command)
    assert caught.value.kind == "bad_command"


@given(noise=st.binary(max_size=60), own=st.binary(max_size=60), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_the_marker_is_found_wherever_the_stream_is_cut(noise: bytes, own: bytes, cuts: list[int]) -> None:
    tag = b"0a1b2c3d:00112233 "
    stream = noise + tag + b"42 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 99\n" + own
    marker = MarkerFilter(tag)
    before, after = b"", b""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        first, second = marker.feed(stream[start:end])
        before, after = before + first, after + second
    assert (before, after) == (noise, own)
    assert marker.started is not None
    assert (marker.started.pid, marker.started.started) == (42, 777)


def test_a_stream_without_a_marker_is_all_noise() -> None:
    marker = MarkerFilter(b"tag:tag ")
    noise, own = marker.feed(b"This account is not available.\n")
    assert noise + marker.rest() == b"This account is not available.\n"
    assert own == b"" and not marker.found
