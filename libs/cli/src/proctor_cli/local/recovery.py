"""What a killed launcher may have left: found by a record on disk and by a mark, verified, and ended."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proctor_cli.init.files import CannotKeep, replace

MARK = "PROCTOR_LOCAL_SSHD"
"""Environment variable of every command of the loopback SSH server; its value identifies the data directory."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, safe against reuse of its pid. ``started``: the kernel's clock ticks."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether this same process still runs (a zombie does not)."""
        return find_process(self.pid) == self


def find_process(pid: int) -> Process | None:
    """The process that has this pid now; None for a zombie or none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else Process(pid, int(fields[19]))


class ChildRecord:
    """The launcher's children on disk, for the next launcher."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._children: dict[str, Process] = {}

    def note(self, name: str, pid: int) -> None:
        """Store a child's current process."""
        found = find_process(pid)
        if found is not None:
            self._children[name] = found
            # A full disk must not end the system. Without the record the kernel still ends the children with this
            # process.
            with contextlib.suppress(CannotKeep):
                replace(self._file, json.dumps({n: [p.pid, p.started] for n, p in self._children.items()}))

    def clear(self) -> None:
        """Nothing is left."""
        self._file.unlink(missing_ok=True)

    def end_former(self) -> None:
        """End the recorded processes of a former launcher. For use in a thread: takes up to a few seconds."""
        try:
            known = json.loads(self._file.read_text())
            former = [Process(int(pid), int(started)) for pid, started in known.values()]
        except (OSError, ValueError, AttributeError, TypeError):
            return
        postgres = known.get("postgres")
        for process in former:
            if postgres is None or process.pid != postgres[0]:
                end(process, (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0))


def end(process: Process, *ways: tuple[signal.Signals, float]) -> bool:
    """Send the signals in turn, each with its seconds to wait; whether the process is gone."""
    for number, seconds in ways:
        if not process.is_alive:
            return True
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        if wait_until(lambda: not process.is_alive, seconds):
            return True
    return not process.is_alive


def end_postmaster(data: Path) -> None:
    """End a PostgreSQL server that runs on this data, and remove the pid file of a dead one.

    If its pid belongs to another program by now, ``postmaster.pid`` would keep PostgreSQL from starting.
    """
    file = data / "postmaster.pid"
    try:
        lines = file.read_text().splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        file.unlink(missing_ok=True)
        return
    process = find_process(pid)
    if process is not None and _serves(pid, data):
        end(process, (signal.SIGINT, 5.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 2.0))
    elif process is not None or not file.exists():
        file.unlink(missing_ok=True)


def _serves(pid: int, data: Path) -> bool:
    """Whether the process is a postmaster on this data."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return Path(words[0]).name == "postgres" and str(data) in words


def marked(value: str) -> list[Process]:
    """The processes that have the mark with this value, without this one and those of other users."""
    needle = f"{MARK}={value}".encode()
    found = []
    for entry in (int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()):
        try:
            words = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if needle in words and (process := find_process(entry)) is not None:
            found.append(process)
    return found


def kill_marked(value: str) -> None:
    """SIGKILL to all marked processes, repeated until there is none: each may have started another."""
    for _ in range(20):
        left = marked(value)
        if not left:
            return
        for process in left:
            end(process, (signal.SIGKILL, 0.5))


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Poll in a thread for up to ``seconds``; whether it became true."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
