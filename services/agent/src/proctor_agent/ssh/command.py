"""A command for a target and its wire form: the one line that sshd hands to the account's login shell. No I/O.

The line is ``exec /bin/sh -c SCRIPT proctor PROGRAM ARG…`` (start_script), so that the exit status, the signals and
the process id are the program's own. Where there are environment values (a secret must not be seen in ``ps``), words
that some login shell would not hand on as they are, or more than the kernel takes in one argument, values travel on
standard input instead.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from proctor_agent.attempt import ATTEMPT_ENV
from proctor_agent.ssh import faults, start_script
from proctor_agent.ssh.faults import SshFault

MAX_LINE = 96 * 1024
"""Most bytes of the line; Linux takes 128 KiB in one argument."""
MAX_ARGUMENT = 128 * 1024 - 1
MAX_HANDED = 1024
"""Most bytes that are handed to a waiting shell: a shell's ``read`` takes them one by one."""
MAX_ENV_NAMES = 100

_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: a program and its arguments, as they are; no shell looks at them."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the login environment."""
    hidden: Collection[str] = ()
    """Names in ``env`` whose values nobody may see."""
    cwd: str | None = None
    """On the target; None: where the login shell starts."""
    stdin: bytes | None = None
    """All that the program can read; None: nothing, ``/dev/null``."""
    marker: str | None = None
    """Value of PROCTOR_ATTEMPT, by which the whole tree can be found; None for a command of Proctor's own."""
    run: str | None = None
    """An output that something still holds is kept open until the end of this run; None: closed with the command."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: by an exit code, or by a signal (its name with SIG; code None). ``held``: something that it
    left still holds its output.
    """

    code: int | None
    signal: str | None
    duration_s: float
    held: bool = False


@dataclass(frozen=True, slots=True)
class WireCommand:
    """What is sent: the line; the bytes for standard input and whether it is closed after them; and the bytes with
    which the marker line starts.
    """

    line: str
    stdin: bytes
    close_stdin: bool
    tag: bytes


def build(command: Command) -> WireCommand:
    """The wire form. Raises SshFault ``bad_command`` for what no program can be given: NUL, lone surrogates, no
    program, a name that is no name of an environment variable, an argument over 128 KiB.
    """
    _check(command)
    tag = _new_tag()
    words = [*_folder(command), *command.argv]
    line, stdin = "", b""
    if not command.env and sum(map(len, words)) <= MAX_LINE and all(map(start_script.is_plain, words)):
        line = _line(command, words, tag)
    if not line or len(line.encode()) > MAX_LINE:
        line = _line(command, None, tag)
        stdin = start_script.frames(words, command.env, command.hidden)
    return WireCommand(
        line=line,
        stdin=stdin + (command.stdin or b""),
        close_stdin=command.stdin is not None,
        tag=_as_bytes(tag),
    )


def build_waiting() -> WireCommand:
    """The wire form of a shell that waits to be told what to become (:func:`handed`)."""
    tag = _new_tag()
    return WireCommand(line=_line(Command(argv=()), None, tag), stdin=b"", close_stdin=False, tag=_as_bytes(tag))


def handed(command: Command) -> bytes | None:
    """What a waiting shell is told, to become the program; None for a command that needs a shell of its own: with
    input, in another folder, or long. Raises SshFault ``bad_command`` as :func:`build` does.
    """
    _check(command)
    if command.stdin is not None or command.cwd is not None:
        return None
    marker = {} if command.marker is None else {ATTEMPT_ENV: command.marker}
    told = start_script.frames(command.argv, {**command.env, **marker}, command.hidden)
    return told if len(told) <= MAX_HANDED else None


def _new_tag() -> tuple[str, str]:
    return secrets.token_hex(4), secrets.token_hex(8)


def _as_bytes(tag: tuple[str, str]) -> bytes:
    return f"{tag[0]}:{tag[1]} ".encode()


def _folder(command: Command) -> list[str]:
    if command.cwd is None:
        return []
    return [f"./{command.cwd}" if command.cwd.startswith("-") else command.cwd]


def _line(command: Command, words: Sequence[str] | None, tag: tuple[str, str]) -> str:
    return start_script.line(
        words,
        tag,
        marker=command.marker,
        in_folder=command.cwd is not None,
        own_input=command.stdin is not None,
    )


def _check(command: Command) -> None:
    if not command.argv or not command.argv[0]:
        raise SshFault(faults.BAD_COMMAND, "no program to run: the command is empty")
    if command.argv[0].startswith("-"):
        # dash knows no "exec --", and other shells would take the name for an option of exec.
        raise SshFault(faults.BAD_COMMAND, "a program's name cannot start with a dash; write ./-name")
    if len(command.env) > MAX_ENV_NAMES:
        raise SshFault(faults.BAD_COMMAND, f"more than {MAX_ENV_NAMES} environment variables")
    for number, word in enumerate(command.argv):
        _check_text(word, "the program's name" if number == 0 else f"argument {number}")
    for name, value in command.env.items():
        if not _ENV_NAME.match(name):
            raise SshFault(faults.BAD_COMMAND, f"not a name of an environment variable: {name[:60]!r}")
        _check_name(name, command)
        _check_text(value, f"environment variable {name}")
    if command.cwd is not None:
        if not command.cwd:
            raise SshFault(faults.BAD_COMMAND, "the working directory is empty")
        _check_text(command.cwd, "the working directory")


def _check_name(name: str, command: Command) -> None:
    if name == ATTEMPT_ENV:
        raise SshFault(faults.BAD_COMMAND, f"environment variable {name}: the agent itself sets it")
    if start_script.is_own(name) and name in command.hidden:
        raise SshFault(faults.BAD_COMMAND, cannot_set(name))
    if start_script.is_special(name) and name not in command.hidden and "=" in command.argv[0]:
        raise SshFault(
            faults.BAD_COMMAND,
            f"environment variable {name}: env(1) has to set it, to which a program with '=' in its name is another",
        )


def cannot_set(name: str) -> str:
    """Why a command with such a hidden value cannot be started."""
    return (
        f"environment variable {name}: the target's /bin/sh cannot set it, and its value is hidden: it must not stand "
        "in the arguments of env, the other way"
    )


def _check_text(text: str, what: str) -> None:
    if "\0" in text:
        raise SshFault(faults.BAD_COMMAND, f"{what} holds a NUL, which no program can be given")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise SshFault(faults.BAD_COMMAND, f"{what} holds half of a surrogate pair, which is no text") from None
    if length > MAX_ARGUMENT:
        raise SshFault(faults.BAD_COMMAND, f"{what} is longer than the 128 KiB that Linux takes")
