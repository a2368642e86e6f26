"""The line that a login shell gets: whatever the words are, the program gets them byte for byte."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor_agent.ssh.command import Command, build
from proctor_agent.ssh.faults import SshFault
from proctor_agent.ssh.marker import MarkerFilter
from proctor_agent.ssh.start_script import quote

SHELLS = [
    shell
    for shell in ("dash", "bash", "zsh", "fish", "ksh", "mksh", "busybox", "tcsh", "bsd-csh")
    if shutil.which(shell)
]
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


NAMES = [
    "IFS", "UID", "EUID", "PPID", "OPTIND", "OPTARG", "LINENO", "RANDOM", "SECONDS", "SHLVL", "PWD", "OLDPWD",
    "_", "TMOUT", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "BASHPID", "BASH_XTRACEFD", "GROUPS", "DIRSTACK",
    "EPOCHSECONDS", "FUNCNAME", "FUNCNEST", "EXECIGNORE", "POSIXLY_CORRECT", "PGRP", "USER_ID", "COLUMNS",
    "LC_ALL", "ENV", "PS4", "CDPATH", "HOME", "_prx", "_prw", "_pr5", "_prn", "PATH_INFO", "x", "KSHUID",
]  # fmt: skip
INNER = [shell for shell in ("dash", "bash", "mksh", "busybox", "zsh") if shutil.which(shell)]


def as_sh(shell: str, folder: Path) -> str:
    """That shell under the name of sh, as it is where it is the system's."""
    (folder / "sh").symlink_to(shutil.which(shell) or shell)
    return str(folder / "sh")


def environment_of(inner: str, command: Command) -> tuple[dict[bytes, bytes], MarkerFilter]:
    """What `env -0` as the command prints where /bin/sh is another shell."""
    wire = build(command)
    done = subprocess.run(
        ["/bin/sh", "-c", wire.line.replace("/bin/sh", inner)],
        input=wire.stdin,
        capture_output=True,
        start_new_session=True,
        timeout=20,
        check=False,
    )
    marker = MarkerFilter(wire.tag)
    _, own = marker.feed(done.stdout)
    assert done.stderr == b""
    return dict(each.split(b"=", 1) for each in own.split(b"\0") if each), marker


@pytest.mark.parametrize("shell", INNER)
@pytest.mark.parametrize("value", ["x", ",", "1000", "", "a b\n\n"])
def test_any_legal_name_reaches_the_program(shell: str, value: str, tmp_path: Path) -> None:
    inner = as_sh(shell, tmp_path)
    wanted = dict.fromkeys(NAMES, value)
    found, marker = environment_of(inner, Command(["/usr/bin/env", "-0"], env=wanted))
    assert marker.started is not None
    assert {name: found.get(name.encode()) for name in NAMES} == dict.fromkeys(NAMES, value.encode())


@pytest.mark.parametrize("shell", INNER)
@pytest.mark.parametrize("name", NAMES)
def test_a_hidden_value_reaches_the_program_or_is_refused_by_name(shell: str, name: str, tmp_path: Path) -> None:
    command = Command(["/usr/bin/env", "-0"], env={name: "s3cret", "AFTER": "b c"}, hidden=[name])
    if name.startswith("_pr") or name == "SHLVL":
        with pytest.raises(SshFault, match=f"variable {name}: .*cannot set it, and its value is hidden"):
            build(command)
        return
    found, marker = environment_of(as_sh(shell, tmp_path), command)
    if marker.refused_name:
        assert marker.refused_name == name and not found
        assert name not in {"IFS", "HOME", "LC_ALL", "x"}
    else:
        assert (found[name.encode()], found[b"AFTER"]) == (b"s3cret", b"b c")


def test_no_hidden_value_stands_in_any_arguments(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    spy = tmp_path / "env"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{seen}\nexec /usr/bin/env "$@"\n')
    spy.chmod(0o755)
    wire = build(Command(["true"], env={"UID": "7", "TOKEN": "s3cret"}, hidden=["TOKEN"]))
    line = wire.line.replace("/usr/bin/env", str(spy))
    subprocess.run(["sh", "-c", line], input=wire.stdin, capture_output=True, check=True, timeout=20)
    assert seen.read_text() == "UID=7\ntrue\n"


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
        (Command(["a"], env={"PROCTOR_ATTEMPT": "x"}), "the agent itself sets it"),
        (Command(["./a=b"], env={"UID": "1"}), "a program with '=' in its name"),
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
    stream = noise + tag + b"42 42 0a1b-2c 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 99\n" + own
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
