"""A command for a target and its wire form: the one line that sshd hands to the account's login shell. No I/O.

The line is ``exec /bin/sh -c SCRIPT proctor PROGRAM ARG…``. The script makes sure of a process group of its own,
prints one marker line and becomes the program, so that the exit status, the signals and the process id are the
program's own. Where there are environment values (a secret must not be seen in ``ps``), or where the line would
pass the kernel's limit for one argument, values travel on standard input instead, read by the script before it
becomes the program.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proctor_agent.attempt import ATTEMPT_ENV
from proctor_agent.ssh import faults
from proctor_agent.ssh.faults import SshFault

MAX_LINE = 96 * 1024
"""Most bytes of the line; Linux takes 128 KiB in one argument."""
MAX_ARGUMENT = 128 * 1024 - 1
MAX_HANDED = 1024
"""Most bytes that are handed to a waiting shell: a shell's ``read`` takes them one by one."""
MAX_ENV_NAMES = 100
NOT_STARTED_CODE = 125
"""Exit code of the script when it could not get as far as the program."""

_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")

# A frame is its number of further lines, then its lines; the values are any text but NUL.
_READ_VALUES = """_prv() { _prk=$1; IFS= read -r _prx || exit 125; while [ "$_prk" -gt 0 ]; do
IFS= read -r _prl || exit 125; _prx="$_prx
$_prl"; _prk=$((_prk-1)); done; }
read -r _pre _pra || exit 125
while [ "$_pre" -gt 0 ]; do read -r _prn _prk || exit 125; _prv "$_prk"; export "$_prn=$_prx"; _pre=$((_pre-1)); done
while [ "$_pra" -gt 0 ]; do read -r _prk || exit 125; _prv "$_prk"; set -- "$@" "$_prx"; _pra=$((_pra-1)); done
unset _pre _pra _prn _prk _prx _prl
"""
_READ_STAT = "read -r _pr1 _pr2 _pr3 _pr4 _pr5 _pr6 </proc/self/stat; "


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: a program and its arguments, as they are; no shell looks at them.

    env: added to the login environment · cwd: on the target; None: where the login shell starts · stdin: all that
    the program can read (None: nothing, ``/dev/null``) · marker: value of PROCTOR_ATTEMPT, by which the whole tree
    can be found; None for a command of Proctor's own · run: until whose end an output that something still holds is
    kept open; None: it is closed with the command.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: bytes | None = None
    marker: str | None = None
    run: str | None = None


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


def quote(text: str) -> str:
    """A word for any login shell: POSIX shells, and fish, to which a backslash counts inside single quotes too."""
    quoted = "'" + text.replace("'", "'\"'\"'") + "'"
    return quoted.replace("\\", "'\"\\\\\"'") if "\\" in text else quoted


def build(command: Command) -> WireCommand:
    """The wire form. Raises SshFault ``bad_command`` for what no program can be given: NUL, lone surrogates, no
    program, a name that is no name of an environment variable, an argument over 128 KiB.
    """
    _check(command)
    first, second = secrets.token_hex(4), secrets.token_hex(8)
    in_line = not command.env and sum(map(len, command.argv)) <= MAX_LINE
    if in_line:
        line = _line(command, first, second, values=False)
        in_line = len(line.encode()) <= MAX_LINE
    stdin = b""
    if not in_line:
        line = _line(command, first, second, values=True)
        stdin = _frames(command.argv, command.env)
    return WireCommand(
        line=line,
        stdin=stdin + (command.stdin or b""),
        close_stdin=command.stdin is not None,
        tag=f"{first}:{second} ".encode(),
    )


def build_waiting() -> WireCommand:
    """The wire form of a shell that waits to be told what to become (:func:`handed`)."""
    first, second = secrets.token_hex(4), secrets.token_hex(8)
    line = _line(Command(argv=()), first, second, values=True)
    return WireCommand(line=line, stdin=b"", close_stdin=False, tag=f"{first}:{second} ".encode())


def handed(command: Command) -> bytes | None:
    """What a waiting shell is told, to become the program; None for a command that needs a shell of its own: with
    input, in another folder, or long. Raises SshFault ``bad_command`` as :func:`build` does.
    """
    _check(command)
    if command.stdin is not None or command.cwd is not None:
        return None
    marker = {} if command.marker is None else {ATTEMPT_ENV: command.marker}
    told = _frames(command.argv, {**command.env, **marker})
    return told if len(told) <= MAX_HANDED else None


def _line(command: Command, first: str, second: str, *, values: bool) -> str:
    # The tag is put together on the target, so that a login shell that prints its command line prints no tag.
    show = f'printf "%s:%s %s %s %s\\n" {first} {second} $$ "$_pr5" "$_pr6"; '
    become = (
        "unset _pr1 _pr2 _pr3 _pr4 _pr5 _pr6; " + 'exec "$@"' + ("" if command.stdin is not None else " </dev/null")
    )
    again = quote(_READ_STAT + show + become)
    script = ""
    if command.marker is not None:
        script += f"{ATTEMPT_ENV}={quote(command.marker)}; export {ATTEMPT_ENV}; "
    if command.cwd is not None:
        folder = command.cwd if not command.cwd.startswith("-") else f"./{command.cwd}"
        script += f"CDPATH= cd -- {quote(folder)} >/dev/null || "
        script += f'{{ printf "%s:%s cwd\\n" {first} {second}; exit {NOT_STARTED_CODE}; }}; '
    if values:
        script += _READ_VALUES
    script += _READ_STAT
    script += (
        f'if [ "$_pr5" != $$ ] && command -v setsid >/dev/null; then exec setsid /bin/sh -c {again} proctor "$@"; fi; '
    )
    script += show + become
    words = "" if values else " " + " ".join(quote(word) for word in command.argv)
    return f"exec /bin/sh -c {quote(script)} proctor{words}"


def _frames(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    parts = [f"{len(env)} {len(argv)}\n"]
    for name, value in env.items():
        parts.append(f"{name} {value.count(chr(10))}\n{value}\n")
    for word in argv:
        parts.append(f"{word.count(chr(10))}\n{word}\n")
    return "".join(parts).encode()


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
        _check_text(value, f"environment variable {name}")
    if command.cwd is not None:
        if not command.cwd:
            raise SshFault(faults.BAD_COMMAND, "the working directory is empty")
        _check_text(command.cwd, "the working directory")


def _check_text(text: str, what: str) -> None:
    if "\0" in text:
        raise SshFault(faults.BAD_COMMAND, f"{what} holds a NUL, which no program can be given")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise SshFault(faults.BAD_COMMAND, f"{what} holds half of a surrogate pair, which is no text") from None
    if length > MAX_ARGUMENT:
        raise SshFault(faults.BAD_COMMAND, f"{what} is longer than the 128 KiB that Linux takes")


@dataclass(frozen=True, slots=True)
class Started:
    """What a marker line says: the process, its group, and its start time in clock ticks (0: unknown)."""

    pid: int
    pgid: int
    started: int


class MarkerFilter:
    """Takes the marker line out of the first bytes of standard output, wherever a login shell's start-up files put
    their own output. What precedes the line is ``noise``.
    """

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._held = b""
        self.found = False
        self.started: Started | None = None
        self.no_directory = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Noise and the program's own bytes, as far as they can be told apart yet."""
        if self.found:
            return b"", data
        held = self._held + data
        at = held.find(self._tag)
        if at < 0:
            keep = min(len(held), len(self._tag) - 1)
            self._held = held[len(held) - keep :]
            return held[: len(held) - keep], b""
        end = held.find(b"\n", at)
        if end < 0:
            self._held = held[at:]
            return held[:at], b""
        self._held, self.found = b"", True
        self._read(held[at + len(self._tag) : end])
        return held[:at], held[end + 1 :]

    def rest(self) -> bytes:
        """What was held back when the stream ended: noise."""
        held, self._held = self._held, b""
        return held

    def _read(self, line: bytes) -> None:
        if line == b"cwd":
            self.no_directory = True
            return
        fields = line.split()
        if len(fields) > 1 and all(number.isdigit() for number in fields[:2]):
            # Fields 6 and up of /proc/<pid>/stat follow the group; field 22 is the start time.
            started = int(fields[18]) if len(fields) > 18 and fields[18].isdigit() else 0
            self.started = Started(int(fields[0]), int(fields[1]), started)
        elif fields and fields[0].isdigit():
            self.started = Started(int(fields[0]), int(fields[0]), 0)
