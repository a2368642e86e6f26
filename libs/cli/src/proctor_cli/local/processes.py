"""Child processes that end with this one: how they start, with which account, and how their end is noticed."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

NOBODY = 65534
NAMESPACE_UID = 1000
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


class Account(Enum):
    """The account of a child. Only root needs another than OWN, for PostgreSQL, which refuses root."""

    OWN = "own"
    NOBODY = "nobody"
    NAMESPACE = "namespace"
    """A user namespace in which our uid has another number: the child's files stay ours."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is started and ended."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    account: Account = Account.OWN
    cwd: Path = Path("/")
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when this process dies."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 2.0
    """Seconds between the stop signal and SIGKILL."""


class Child:
    """A started child in its own session. ``ended`` is set when it is gone."""

    def __init__(self, spec: ChildSpec) -> None:
        """Start it, from the main thread: the kernel ends it when the thread that started it ends. Raises OSError."""
        self.spec = spec
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        with spec.log.open("ab") as log:
            self._process = subprocess.Popen(
                spec.argv,
                cwd=spec.cwd,
                env=dict(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=prepare_child(spec.account, spec.death_signal),  # noqa: PLW1509 - nothing else can set it
            )
        self._descriptor = os.pidfd_open(self.pid)
        self._loop.add_reader(self._descriptor, self._on_end)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int:
        """Exit code, or the negative number of the signal that ended it; valid after its end."""
        return self._process.returncode if self._process.returncode is not None else 0

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it still runs."""
        if not self.ended.is_set():
            self._process.send_signal(number)

    def kill_session(self) -> None:
        """SIGKILL to it and its process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.signal(signal.SIGKILL)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._process.wait()
        self.ended.set()


class Helpers:
    """Programs that run to their end in threads, and can be ended from outside."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def run(self, spec: ChildSpec, *, text: str = "", timeout: float = 60.0) -> tuple[int, str]:
        """Exit code and output with ``text`` as input. Raises OSError, subprocess.TimeoutExpired."""
        with subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            env=dict(spec.env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=prepare_child(spec.account, spec.death_signal),  # noqa: PLW1509 - nothing else can set it
        ) as process:
            self._running.add(process)
            try:
                if self._ended:
                    _kill_group(process)
                said, _ = process.communicate(text, timeout)
            finally:
                _kill_group(process)
                self._running.discard(process)
        return process.returncode, said

    def end(self) -> None:
        """End all, and all that start later."""
        self._ended = True
        for process in list(self._running):
            _kill_group(process)


def _kill_group(process: "subprocess.Popen[str]") -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def has_namespaces() -> bool:
    """Whether this machine supports Account.NAMESPACE."""
    try:
        spec = ChildSpec("probe", ("/bin/sh", "-c", "exit 0"), Path(os.devnull), account=Account.NAMESPACE)
        return Helpers().run(spec, timeout=10)[0] == 0
    except (OSError, subprocess.SubprocessError):
        return False


def program(name: str) -> str | None:
    """A program that was installed beside this Python; None if there is none."""
    path = Path(sys.executable).parent / name
    return str(path) if os.access(path, os.X_OK) else None


def proctor_command(words: Sequence[str]) -> tuple[str, ...]:
    """The argv of a ``proctor`` command of this installation."""
    script = program("proctor")
    return (script, *words) if script else (sys.executable, "-m", "proctor_cli", *words)


def prepare_child(account: Account, death_signal: int) -> Callable[[], None]:
    """The child's work between fork and exec: as little as possible, no imports, no locks."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent, uid, gid = os.getpid(), os.geteuid(), os.getegid()

    def apply() -> None:
        if account is Account.NOBODY:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        elif account is Account.NAMESPACE:
            if libc.unshare(_CLONE_NEWUSER) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            _write("/proc/self/setgroups", b"deny")
            _write("/proc/self/uid_map", b"%d %d 1" % (NAMESPACE_UID, uid))
            _write("/proc/self/gid_map", b"%d %d 1" % (NAMESPACE_UID, gid))
        # After the change of user, which clears it.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return apply


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, content)
    os.close(descriptor)
