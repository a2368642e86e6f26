"""Child processes of a test: started in sessions of their own, their output kept, none outliving the test.

Every child carries a mark in its environment, and its children inherit it; so whatever a test started,
even through double forks and setsid, is found in /proc and ended. A child also dies with this process
(PR_SET_PDEATHSIG), so that nothing is left when pytest itself is killed.
"""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from proctor_cli.local.processes import Account, prepare_child
from proctor_cli.local.recovery import find_process
from support.folders import run_folder
from support.wait import NeverHappenedError, eventually_sync

MARK_NAME = "TEST_SESSION_MARK"
VENV_BIN = Path(sys.executable).parent

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port between
# the death of a server and its restart, or connects to itself while it retries.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            # A server that was killed leaves its port in TIME_WAIT; servers bind with SO_REUSEADDR too.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def marked_pids(mark: str) -> list[int]:
    """Live processes (no zombies) whose environment holds `mark`, this one excepted."""
    needle = f"{MARK_NAME}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if needle in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "(gone)"


def is_alive(pid: int) -> bool:
    """Whether process `pid` runs; a zombie does not."""
    return find_process(pid) is not None


class Child:
    """One child process; standard output and error go to files, so that it never blocks on a full pipe."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", stdout: Path, stderr: Path) -> None:
        self.name = name
        self.process = process
        self.stdout_path = stdout
        self.stderr_path = stderr

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    @property
    def output(self) -> str:
        return f"--- {self.name}: stdout\n{self.stdout}--- {self.name}: stderr\n{self.stderr}"

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to this process alone (its own children are the business of the code under test)."""
        if self.alive:
            self.signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout: float = 10.0) -> int:
        """SIGTERM, then the exit code. Fails when the process has not ended after `timeout` seconds."""
        if self.alive:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 10.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NeverHappenedError(f"{self.name} did not end within {timeout:g} s\n{self.output}") from None

    def wait_for_line(self, text: str, timeout: float = 20.0) -> str:
        """The first line of standard output (else error) that contains `text`; fails early when it ends."""

        def find() -> str | None:
            ended = not self.alive
            for line in (*self.stdout.splitlines(), *self.stderr.splitlines()):
                if text in line:
                    return line
            if ended:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode} before {text!r}\n{self.output}")
            return None

        try:
            line = eventually_sync(find, timeout, f"{text!r} from {self.name}")
        except NeverHappenedError as error:
            raise NeverHappenedError(f"{error}\n{self.output}") from None
        assert line is not None
        return line


class Processes:
    """Starts children and ends them; used as the fixture `processes`, or by a server of this package."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid4().hex
        self.folder = folder
        self._children: list[Child] = []

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        clean_env: bool = False,
        cwd: Path | None = None,
        account: Account = Account.OWN,
        death_signal: int = signal.SIGKILL,
        stdin: bytes | None = None,
    ) -> Child:
        """Start `argv`. `env` is added to this process's environment (to almost none with `clean_env`)."""
        name = name or Path(argv[0]).name
        measured = {name: value for name, value in os.environ.items() if name == "COVERAGE_PROCESS_CONFIG"}
        inherited = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **measured} if clean_env else dict(os.environ)
        number = len(self._children)
        stdout, stderr = self.folder / f"{number}-{name}.out", self.folder / f"{number}-{name}.err"
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                [os.fspath(part) for part in argv],
                env={**inherited, "TMPDIR": str(run_folder()), **(env or {}), MARK_NAME: self.mark},
                cwd=cwd,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=prepare_child(account, death_signal),  # noqa: PLW1509  nothing else can set it
            )
        child = Child(name, process, stdout, stderr)
        self._children.append(child)
        if stdin is not None:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(stdin)
                process.stdin.close()
        return child

    def proctor(self, *args: str | Path, **options: object) -> Child:
        """Start the command `proctor` of this environment."""
        return self.start([VENV_BIN / "proctor", *args], name=f"proctor-{args[0]}", **options)  # type: ignore[arg-type]

    def running(self) -> dict[int, str]:
        """Everything alive that was started here, with its descendants: pid to command line."""
        return {pid: command_line(pid) for pid in marked_pids(self.mark) if is_alive(pid)}

    def assert_no_leftovers(self, timeout: float = 5.0) -> None:
        """Fails, naming them, when processes started here are still alive after `timeout` seconds."""
        with suppress(NeverHappenedError):
            eventually_sync(lambda: not self.running(), timeout, "the end of every process")
        left = self.running()
        assert not left, f"left running: {left}"

    def end_all(self) -> None:
        """SIGKILL to every child and descendant, until none is left."""
        for child in self._children:
            if child.alive:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)

        def none_left() -> bool:
            left = marked_pids(self.mark)
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for child in self._children:
                child.process.poll()
            return not any(is_alive(pid) for pid in left)

        eventually_sync(none_left, 10, f"the end of {self.running()}")

    def outputs(self) -> str:
        return "\n".join(child.output for child in self._children)
