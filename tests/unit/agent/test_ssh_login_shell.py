"""A login shell that runs the script of a command itself does what /bin/sh does, or is not trusted to."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from proctor_agent.ssh import login_shell
from proctor_agent.ssh.command import Command, MarkerFilter, build
from proctor_agent.ssh.login_shell import LoginShell, may_export
from support.login_shells import BY_ITSELF, Ran, Way, name_of, through

BASH = Way(("bash",), LoginShell.BASH)
BY_SH_OF_BASH = Way(("bash",), None)
OTHERS = ("zsh", "fish", "ksh", "mksh", "tcsh")
FILES = {
    "plain": b'echo "plain $0 $1 ${BASH_VERSION:+bash}"\n',
    "empty": b"",
    "shebang": b'#!/bin/sh\necho "shebang $0 $1"\n',
    "spaced": b'#! \t/bin/sh -e\necho "spaced $1 $-"\n',
    "unended": b"#!/bin/echo told",
    "nobody": b"#!/no/such/interpreter\n",
    "crlf": b"#!/bin/sh\r\necho crlf\n",
    "bare": b"#!\necho bare $1\n",
    "true": b"#!/bin/sh\necho not the builtin\n",
    "torn": b"\x7fEL",
    "foreign": b"\x7fELF" + bytes(200),
    "echo": b"echo of PATH\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs of many kinds; two are no programs."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "unfit").write_bytes(b"#!/bin/sh\necho unfit\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("shebang")
    shutil.copy("/bin/echo", tmp_path / "elf")
    return tmp_path


def both(way: Way, command: Command, **given: object) -> tuple[Ran, Ran]:
    """The same by way of /bin/sh, and by the shell itself."""
    return through(Way(way.start, None), command, **given), through(way, command, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", BY_ITSELF, ids=name_of)
def test_every_kind_of_program_starts_or_fails_as_it_does_by_way_of_sh(way: Way, folder: Path) -> None:
    names = [*FILES, "unfit", "folder", "link", "elf", "gone", "cd", "if", "[", "printf", "exec", "no-such", "a b", "*"]
    # What is on PATH twice is found where it stands first, and "~" is a folder like others.
    (folder / "~").mkdir()
    shutil.copy(folder / "shebang", folder / "~" / "gone")
    usual = "/usr/bin:/bin"
    few = ["plain", "shebang", "gone", "echo", "elf", "no-such"]
    every = [*names, *(f"./{name}" for name in names), f"{folder}/elf", f"{folder}/plain"]
    for path, tried in [(f"{folder}:{usual}", every), (f"{usual}:{folder}:~", few), (f":{usual}", few), ("", few)]:
        for name in tried:
            by_sh, itself = both(way, Command([name, "one", "a  b"]), cwd=folder, env={"PATH": path, "HOME": "/root"})
            assert (itself.out, itself.code) == (by_sh.out, by_sh.code), (path, name, itself.err, by_sh.err)
            assert (itself.noise, itself.marker.started is None) == (b"", False)
            if way.kind is LoginShell.BASH and not name.endswith("foreign"):
                assert itself.err == by_sh.err
            else:  # It says its own name before the fault.
                assert (itself.err == b"") == (by_sh.err == b"")


def test_a_program_that_may_be_run_but_not_read_is_left_to_sh(folder: Path) -> None:
    if os.geteuid() == 0:
        ran = through(BASH, Command([f"{folder}/elf", "read by root"]), cwd=folder)
        assert (ran.out, ran.code) == (b"read by root\n", 0)
    (folder / "elf").chmod(stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    assert through(BASH, Command([f"{folder}/elf", "run"])).out == b"run\n"


@pytest.mark.parametrize("way", BY_ITSELF, ids=name_of)
@pytest.mark.parametrize("cwd", [None, "/usr"])
def test_a_program_is_given_what_sh_gives_it(way: Way, cwd: str | None) -> None:
    shows = "env -0; umask; ulimit -a; ls /proc/self/fd; grep -E '^Sig(Blk|Ign)|^Cpus' /proc/self/status; pwd"
    # Variables of the script's own names are those of the account only as far as the script leaves them.
    given = {"PATH": os.environ["PATH"], "SHLVL": "3", "IFS": "x", "ONE": "a\nb", "OPTIND": "7", "LC_ALL": "C.UTF-8"}
    by_sh, itself = both(way, Command(["sh", "-c", shows], {"TWO": "c"}, cwd=cwd, marker="s.1"), env=given)
    assert _without_underscore(itself.out, way) == _without_underscore(by_sh.out, way)
    assert b"TWO=c" in itself.out.split(b"\0") and b"PROCTOR_ATTEMPT=s.1" in itself.out.split(b"\0")
    assert b"_pr" not in itself.out


@pytest.mark.parametrize("way", BY_ITSELF, ids=name_of)
def test_variables_mean_nothing_to_the_shell_that_passes_them_on(way: Way) -> None:
    """Of those that do mean something to bash, the names are known, and /bin/sh exports them."""
    listed = subprocess.run(
        ["bash", "-c", "compgen -v; compgen -e"], capture_output=True, text=True, timeout=20, check=True
    ).stdout.split()
    listed += ["PWD", "OLDPWD", "HOME", "MAIL", "TZ", "TERM", "ENV", "PS1", "PS4", "CDPATH", "REPLY", "PROMPT_COMMAND"]
    names = [
        name for name in dict.fromkeys(listed) if may_export(way.kind, [name]) and name not in ("PATH", "_", "OPTIND")
    ]
    assert len(names) > 20
    names = names[:90]
    by_sh, itself = both(way, Command(["/usr/bin/env", "-0"], dict.fromkeys(names, "7 x")))
    assert _without_underscore(itself.out, way) == _without_underscore(by_sh.out, way)
    assert itself.err == by_sh.err
    assert {f"{name}=7 x".encode() for name in names} <= set(itself.out.split(b"\0"))


@pytest.mark.parametrize("name", ["UID", "SHLVL", "SECONDS", "LC_ALL", "BASH_ENV", "TMOUT", "LANG", "_"])
def test_what_means_something_to_bash_is_exported_by_sh(name: str) -> None:
    assert not may_export(LoginShell.BASH, ["A", name])
    assert may_export(LoginShell.DASH, [name]) and may_export(None, [name])
    by_sh, itself = both(BASH, Command(["/usr/bin/env", "-0"], {name: "1"}))
    assert sorted(itself.out.split(b"\0")) == sorted(by_sh.out.split(b"\0"))


# -- start-up files that have changed since the shell was asked --------------------------------------------------------

WORDS_OF_THE_SCRIPT = {*login_shell._BASH_WORDS, "setsid"} - {"if", "case", "while", "do", "done"}
CHANGED = {
    "functions": "\n".join(f"{name}() {{ echo nasty {name}; return 1; }}" for name in WORDS_OF_THE_SCRIPT),
    "aliases": "shopt -s expand_aliases\n" + "\n".join(f"alias {name}='echo nasty'" for name in WORDS_OF_THE_SCRIPT),
    "options": "set -e -u -f -a -k -C -E -T",
    "debug trap": "trap 'echo nasty $BASH_COMMAND; false' ERR RETURN",
    "exit trap": "trap 'echo nasty' EXIT",
    "separators": "IFS=0123456789abcdef:_ ",
    "positional": "set -- a b c; shopt -s execfail cdable_vars nocasematch nullglob failglob xpg_echo lastpipe",
    "hashed": "hash -p /bin/false printf; hash -p /bin/false cat; hash -p /bin/false no-such",
    "handler": "command_not_found_handle() { echo nasty; }",
    "posix": "set -o posix",
    "own names": "export _prf=/bin/false _prd=x _prh=z _prp=p _prk=y _prx=nasty _pr1=nasty; _prv() { echo nasty; }",
}


@pytest.mark.parametrize("changed", CHANGED)
def test_changed_start_up_files_change_nothing(changed: str, tmp_path: Path) -> None:
    startup = tmp_path / "rc"
    startup.write_text(CHANGED[changed] + "\n")
    words = ["", "*", "a b", "\\", "$HOME", "0:f_"]
    ran = through(BASH, Command(["printf", "%s\\0", *words], marker="s.1"), startup=startup)
    assert (ran.out.split(b"\0")[:-1], ran.code) == ([word.encode() for word in words], 0), (ran.noise, ran.err)
    assert (ran.noise, ran.err) == (b"", b"")
    ran = through(BASH, Command(["/usr/bin/env", "-0"], {"ONE": "1:a\nb"}, cwd="/usr"), startup=startup)
    assert {b"ONE=1:a\nb", b"PWD=/usr"} <= set(ran.out.split(b"\0")), (ran.noise, ran.err)
    assert (ran.code, ran.noise, ran.err, re.search(rb"(^|\0)_pr|nasty\0_", ran.out)) == (0, b"", b"", None)
    assert through(BASH, Command(["true"], cwd="HOME"), startup=startup, cwd=tmp_path).marker.no_directory
    ran = through(BASH, Command(["no-such", "x"]), startup=startup)
    assert (ran.out, ran.code, ran.err) == (b"", 127, through(BY_SH_OF_BASH, Command(["no-such", "x"])).err)


def test_a_trap_runs_no_further_than_the_marker_line(tmp_path: Path) -> None:
    (tmp_path / "rc").write_text("trap 'echo nasty' DEBUG EXIT\n")
    ran = through(BASH, Command(["printf", "mine"]), startup=tmp_path / "rc")
    assert (ran.out, ran.code) == (b"mine", 0)
    assert through(BASH, Command(["true"], cwd="/no/such"), startup=tmp_path / "rc").out == b""


@pytest.mark.parametrize("options", ["set -x", "set -v", "set -xv; PS4='$(echo trace)'"])
def test_a_start_up_file_that_traces_shows_no_values(options: str, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text(options + "\n")
    ran = through(BASH, Command(["/usr/bin/env"], {"TOKEN": "hunter2"}), startup=tmp_path / "rc")
    assert b"TOKEN=hunter2\n" in ran.out
    assert b"hunter2" not in ran.err and ran.noise == b""


@pytest.mark.parametrize(
    "changed",
    [
        "set() { :; }; unset() { :; }",
        "eval() { :; }; unset() { echo nasty; }; printf() { echo nasty; }; readonly -f printf",
        "set -n",
        "set -t",
        "set -r",
        "readonly IFS; readonly -f unset",
        "exit 3",
        "exec >&-",
        "shopt -s extdebug; trap false DEBUG",
    ],
)
def test_a_start_up_file_that_means_harm_gets_no_program_that_was_not_asked_for(changed: str, tmp_path: Path) -> None:
    """Either the command runs as it was given, or it is told that it has not been started, and was not."""
    (tmp_path / "rc").write_text(changed + "\n")
    ran = through(
        BASH,
        Command(["sh", "-c", 'printf %s "$1" >file; printf ran', "sh", "a b"]),
        startup=tmp_path / "rc",
        cwd=tmp_path,
    )
    if ran.marker.started is None:
        assert not (tmp_path / "file").exists(), (ran.noise, ran.err)
    else:
        assert (ran.out, (tmp_path / "file").read_text()) == (b"ran", "a b")


# -- the questions and what is made of the answers ---------------------------------------------------------------------


def asked(way: Way, startup: Path | None = None) -> tuple[LoginShell | None, bool, bool]:
    """What a shell is taken for, and whether it is untouched and gives programs what /bin/sh gives them."""

    def answer(question: login_shell.Question) -> tuple[bytes, bytes]:
        done = subprocess.run(
            [*way.argv, "-c", question.line],
            input=question.wire.stdin,
            capture_output=True,
            start_new_session=True,
            timeout=20,
            env={"PATH": os.environ["PATH"], "HOME": "/", **({"BASH_ENV": str(startup)} if startup else {})},
            check=False,
        )
        marker = MarkerFilter(question.wire.tag)
        return marker.feed(done.stdout)

    question = login_shell.first_question()
    noise, by_sh = answer(question)
    shell = login_shell.who_reads(question, noise)
    if way.kind is None:
        return shell, False, False
    question = login_shell.second_question(way.kind)
    noise, itself = answer(question)
    return shell, login_shell.is_untouched(way.kind, question, noise), login_shell.are_alike(by_sh, itself)


@pytest.mark.parametrize("way", BY_ITSELF, ids=name_of)
def test_a_shell_as_it_comes_is_known(way: Way) -> None:
    # busybox counts only where /bin/sh is the same.
    known = way.kind if way.kind is not LoginShell.BUSYBOX else None
    assert asked(way) == (known, True, True)


@pytest.mark.parametrize("shell", OTHERS)
def test_another_shell_takes_the_question_and_is_not_known(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert asked(Way((shell,), None)) == (None, False, False)
    question = login_shell.first_question()
    done = subprocess.run(
        [shell, "-c", question.line], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True
    )
    assert question.tag in done.stdout and question.wire.tag in done.stdout and b"Max open files" in done.stdout


@pytest.mark.parametrize(
    ("startup", "untouched", "alike"),
    [
        (
            "echo Welcome; printf no-end; echo warning >&2; alias ls='ls --color'; greet() { :; }; export LESS=R",
            True,
            True,
        ),
        *((f'{word}() {{ builtin {word} "$@"; }}', False, True) for word in ("printf", "read", "command", "cd", "[")),
        ('exec() { builtin exec "$@"; }', False, True),
        ("shopt -s expand_aliases; alias printf='printf'", False, True),
        ("trap 'echo bye' TERM", False, True),
        ("trap '' HUP", True, True),
        ("trap : DEBUG", False, True),
        ("trap : EXIT", False, True),
        ("set -e", False, True),
        ("set -u", False, True),
        ("set -x", False, True),
        ("set -f", False, True),
        ("set -a", False, True),
        ("enable -n printf", False, True),
        ("readonly IFS", False, False),
        ("greet() { :; }; export -f greet", True, False),
        ("export STARTED=$$", True, False),
        ("exit 0", False, False),
        ("exec /bin/false", False, False),
        ("set -r", False, False),
        ("export EXECIGNORE=*", False, False),
    ],
)
def test_start_up_files_are_seen_through(startup: str, untouched: bool, alike: bool, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text(startup + "\n")
    assert asked(BASH, tmp_path / "rc")[1:] == (untouched, alike)


@pytest.mark.parametrize(
    ("told", "shell"),
    [
        ("/usr/bin/bash /usr/bin/dash\n", "bash"),
        ("/bin/busybox /bin/busybox\n", "busybox"),
        ("/bin/busybox /usr/bin/dash\n", None),
        ("/usr/bin/zsh /usr/bin/dash\n", None),
        ("/usr/sbin/sshd /usr/bin/dash\n", None),
        ("/usr/bin/bash (deleted) /usr/bin/dash\n", None),
        (" /usr/bin/dash\n", None),
        ("bash dash\n", None),
        ("", None),
    ],
)
def test_only_known_shells_are_known(told: str, shell: str | None) -> None:
    question = login_shell.first_question()
    assert login_shell.who_reads(question, b"Welcome\n" + question.tag + told.encode()) == shell
    assert login_shell.who_reads(question, b"Welcome to 1234:5678 " + told.encode()) is None


def test_surroundings_that_differ_are_told_apart() -> None:
    sh = b"A=1\0B=2\0Limit\nMax open files 1024\nName:\tcat\nPid:\t7\nUmask:\t0022\nSigIgn:\t0000\n"
    tried = f"{login_shell._OWN_ENV}={login_shell._TRICKY}".encode() + b"\0"
    assert login_shell.are_alike(sh, b"_=/bin/cat\0" + tried + sh.replace(b"Pid:\t7", b"Pid:\t8"))
    for old, new in [(b"A=1", b"A=2"), (b"B=2\0", b""), (b"1024", b"99"), (b"0022", b"0077"), (b"A=", b"_pre=\0A=")]:
        assert not login_shell.are_alike(sh, tried + sh.replace(old, new)), new
    assert not login_shell.are_alike(sh, sh)
    assert not login_shell.are_alike(b"", b"")


def test_an_unknown_shell_gets_the_line_for_any() -> None:
    wire = build(Command(["true"]))
    assert login_shell.line(wire, None) == wire.line
    assert wire.line.startswith("exec /bin/sh -c ")
    for shell in LoginShell:
        assert not login_shell.line(wire, shell).startswith("exec /bin/sh")


def _without_underscore(printed: bytes, way: Way) -> list[bytes]:
    """busybox counts the shells, which are fewer."""
    unlike = (b"_=", b"SHLVL=") if way.kind is LoginShell.BUSYBOX else (b"_=",)
    return sorted(text for text in printed.split(b"\0") if not text.startswith(unlike))
