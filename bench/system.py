"""A local system for one benchmark run, started as a user would, and the bare SSH connection that is its floor."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import psutil


@dataclass(frozen=True, slots=True)
class System:
    """A running local system."""

    url: str
    token: str
    data: Path
    launcher: psutil.Process
    started_in: float
    """Seconds from the call to ``ready``."""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"}

    def process(self, word: str) -> psutil.Process:
        """The launcher's child whose command line holds ``word`` (e.g. "agent")."""
        for child in self.launcher.children(recursive=True):
            if word in child.cmdline():
                return child
        raise LookupError(f"no child called {word}")


@contextmanager
def local_system(data: Path | None = None) -> Iterator[System]:
    """``proctor up`` on a free port; ended with SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="proctor-bench-") as folder:
        where = data or Path(folder) / "data"
        begun = time.monotonic()
        command = [str(Path(sys.executable).parent / "proctor"), "up", "--data", str(where), "--http", "127.0.0.1:0"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            words = child.stdout.readline().split()
            if words[:1] != ["ready"]:
                raise RuntimeError(f"proctor up said {words!r}")
            yield System(words[1], words[3], where, psutil.Process(child.pid), time.monotonic() - begun)
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()


@asynccontextmanager
async def bare_connection(system: System) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """The floor: a warm asyncssh connection to the same SSH server and account that the agent uses."""
    found = sorted((system.data / "agents").glob("*/agent.toml"))
    settings = tomllib.loads(found[0].read_text())
    target = settings["targets"][settings.get("default_target") or next(iter(settings["targets"]))]
    async with asyncssh.connect(
        target["host"],
        target["port"],
        username=target["user"],
        client_keys=[target["key_file"]],
        known_hosts=target["known_hosts_file"],
        config=None,
    ) as connection:
        yield connection


def machine() -> str:
    """The machine in one line."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"


async def settle() -> None:
    """Let the system come to rest after its start."""
    await asyncio.sleep(2)
