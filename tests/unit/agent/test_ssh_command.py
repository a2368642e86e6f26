"""The line that a login shell gets: whatever the words are, the program gets them byte for byte."""

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor_agent.ssh.command import Command, MarkerFilter, build, quote
from proctor_agent.ssh.faults import SshFault
from support.login_shells import BY_ITSELF, BY_SH, Way, name_of, through

WAYS = [*BY_SH, *BY_ITSELF]
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
        "\x01\x7f",
    ]
)
WORDS = st.lists(ANY_TEXT | NASTY | st.tuples(NASTY, NASTY, ANY_TEXT).map("".join), max_size=8)


@pytest.mark.parametrize("way", WAYS, ids=name_of)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(words=WORDS)
def test_every_word_arrives_byte_for_byte(way: Way, words: list[str]) -> None:
    ran = through(way, Command(["printf", "%s\\0", "first", *words]))
    assert (ran.code, ran.noise) == (0, b""), ran.err
    assert ran.out.split(b"\0")[:-1] == [word.encode() for word in ["first", *words]]
    assert ran.marker.started is not None


@pytest.mark.parametrize("way", WAYS, ids=name_of)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(ANY_TEXT | NASTY, min_size=1, max_size=5), words=WORDS)
def test_every_environment_value_arrives_byte_for_byte(way: Way, values: list[str], words: list[str]) -> None:
    env = {f"VALUE_{number}": value for number, value in enumerate(values)}
    script = "".join(f'printf "%s\\0" "${name}"; ' for name in env) + 'printf "%s\\0" "$@"'
    ran = through(way, Command(["sh", "-c", script, "sh", *words, "last"], env=env))
    assert (ran.code, ran.noise) == (0, b""), ran.err
    assert ran.out.split(b"\0")[:-1] == [text.encode() for text in [*values, *words, "last"]]


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_arguments_too_long_for_one_line_arrive_too(way: Way) -> None:
    words = ["'" * 60_000, "x" * 60_000 + "\n\n", "", *("\\" for _ in range(997))]
    ran = through(way, Command(["printf", "%s\\0", *words]))
    assert (ran.code, ran.noise) == (0, b""), ran.err[:500]
    assert ran.out.split(b"\0")[:-1] == [word.encode() for word in words]


def test_neither_values_nor_their_names_stand_in_the_line() -> None:
    wire = build(Command(["make"], env={"TOKEN": "s3cret-value"}))
    assert "s3cret-value" not in wire.line
    assert b"s3cret-value" in wire.stdin


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_the_program_gets_only_its_own_standard_input(way: Way) -> None:
    assert through(way, Command(["cat"], env={"A": "b\nc"}, stdin=b"\0mine\xff")).out == b"\0mine\xff"
    assert through(way, Command(["cat"], env={"A": "b\nc"})).out == b""
    assert through(way, Command(["cat"], stdin=b"mine")).out == b"mine"


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_the_command_is_the_process_that_the_marker_names_with_a_group_of_its_own(way: Way) -> None:
    ran = through(way, Command(["sh", "-c", "read -r s </proc/$$/stat; echo $$ $s"]))
    started = ran.marker.started
    assert started is not None
    fields = ran.out.split()
    assert int(fields[0]) == started.pid == started.pgid == int(fields[5])
    assert int(fields[22]) == started.started > 0
    assert ran.code == 0


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_without_a_group_of_its_own_it_gets_a_session(way: Way) -> None:
    wire = build(Command(["sh", "-c", "read -r s </proc/$$/stat; echo $s"], env={"X": "y"}, stdin=b""))
    # The outer shell keeps the group; its child, as with a server that starts commands in its own group, has none.
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(way.start)} -c {quote(way.line(wire))}; true"],
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


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_a_missing_folder_is_told_apart_from_a_failing_program(way: Way) -> None:
    marker = through(way, Command(["true"], cwd="/no/such")).marker
    assert marker.found and marker.no_directory and marker.started is None


@pytest.mark.parametrize("way", WAYS, ids=name_of)
@pytest.mark.parametrize("cwd", ["/tmp", "/", "-", "--", "HOME"])
def test_a_folder_is_a_folder_whatever_its_name(way: Way, cwd: str, tmp_path: Path) -> None:
    (tmp_path / cwd.lstrip("/")).mkdir(exist_ok=True)
    ran = through(way, Command(["pwd", "-P"], cwd=cwd), cwd=tmp_path)
    assert ran.out.decode() == f"{tmp_path / cwd}\n"


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
