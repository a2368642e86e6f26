"""A whole local system under test: `proctor up` on a data directory of its own."""

import json
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from support.processes import VENV_BIN, Child, Processes, command_line, is_alive
from support.wait import eventually_sync

READY = re.compile(r"^ready (http://127\.0\.0\.1:\d+) token (\S+)$", re.MULTILINE)
START_SECONDS = 90.0


def running_in(folder: Path) -> dict[int, str]:
    """Whatever runs with this folder in its command line or environment, other than this test."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if os.fsencode(folder) in (entry / "cmdline").read_bytes() and is_alive(int(entry.name)):
                    found[int(entry.name)] = command_line(int(entry.name))
    return found


class Up:
    """A launcher under test with its data directory."""

    def __init__(self, processes: Processes, data: Path) -> None:
        self.data = data
        self._processes = processes
        self.env = {"XDG_DATA_HOME": str(data.parent / "xdg")}
        self.child: Child | None = None

    def start(self, *options: str, http: str = "127.0.0.1:0") -> Child:
        self.child = self._processes.proctor("up", "--data", self.data, "--http", http, *options, env=self.env)
        return self.child

    def ready(self) -> tuple[str, str]:
        child = self.child
        assert child is not None
        eventually_sync(
            lambda: "ready " in child.stdout or not child.alive, START_SECONDS, "the line ready", retry_on=()
        )
        found = READY.search(child.stdout)
        assert found, self.told()
        assert child.stdout.count("\n") == 1
        return found[1], found[2]

    def told(self) -> str:
        assert self.child is not None
        logs = "".join(f"\n== {log.name}\n{log.read_text()[-1500:]}" for log in (self.data / "logs").glob("*.log"))
        return f"{self.child.output}{logs}"

    def ask(self, *words: str) -> object:
        done = subprocess.run(
            [VENV_BIN / "proctor", *words, "-o", "json"],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.told()}"
        return json.loads(done.stdout)

    def pid(self, name: str) -> int:
        children = json.loads((self.data / "run" / "children.json").read_text())
        return int(children[name][0])

    def assert_nothing_is_left(self) -> None:
        eventually_sync(lambda: not running_in(self.data), 5, f"the end of {running_in(self.data)}")
