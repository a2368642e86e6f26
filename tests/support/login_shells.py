"""The line of a command given to real shells, as sshd gives it to an account's login shell."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proctor_agent.ssh.command import Command, MarkerFilter, WireCommand, build
from proctor_agent.ssh.login_shell import LoginShell, line

LOGIN_SHELLS = ("dash", "bash", "zsh", "fish", "ksh", "mksh", "busybox")
"""They take any word; csh takes none with a line's end."""


@dataclass(frozen=True)
class Way:
    """How a command comes to run: what the login shell is started as, and whether it runs the script itself."""

    start: tuple[str, ...]
    kind: LoginShell | None

    @property
    def name(self) -> str:
        return f"{'-'.join(self.start)}{'-itself' if self.kind else ''}"

    def line(self, wire: WireCommand) -> str:
        """A host whose login shell is busybox has it for /bin/sh too."""
        text = line(wire, self.kind)
        return text.replace("/bin/sh -c", f"{self.argv[0]} sh -c") if self.start[0] == "busybox" else text

    @property
    def argv(self) -> list[str]:
        return [shutil.which(self.start[0]) or self.start[0], *self.start[1:]]


def _installed(ways: list[Way]) -> list[Way]:
    return [way for way in ways if shutil.which(way.start[0])]


BY_SH = _installed([Way((shell, "sh") if shell == "busybox" else (shell,), None) for shell in LOGIN_SHELLS])
BY_ITSELF = _installed(
    [
        Way(("dash",), LoginShell.DASH),
        Way(("bash",), LoginShell.BASH),
        Way(("bash", "--posix"), LoginShell.BASH),
        Way(("busybox", "sh"), LoginShell.BUSYBOX),
    ]
)


def name_of(way: Way) -> str:
    """Of a test's parameter."""
    return way.name


@dataclass(frozen=True)
class Ran:
    """What came of it: what the program printed, and what others had printed before."""

    out: bytes
    noise: bytes
    err: bytes
    code: int
    marker: MarkerFilter


def through(
    way: Way,
    command: Command,
    *,
    startup: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """The command's line given to the shell. startup: a file that bash reads first."""
    wire = build(command)
    given = {"PATH": os.environ["PATH"], "HOME": "/", **(env or {})}
    if startup is not None:
        given["BASH_ENV"] = str(startup)
    done = subprocess.run(
        [*way.argv, "-c", way.line(wire)],
        input=wire.stdin,
        capture_output=True,
        start_new_session=True,
        timeout=20,
        env=given,
        cwd=cwd,
        check=False,
    )
    marker = MarkerFilter(wire.tag)
    noise, own = marker.feed(done.stdout)
    return Ran(own, noise + marker.rest(), done.stderr, done.returncode, marker)
