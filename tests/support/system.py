"""A local system as `proctor up` starts it, and a user with its commands."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from proctor_cli.app import run_app
from support.folders import remove_tree, short_dir
from support.processes import Processes
from support.up import Up, running_in
from support.wait import eventually_sync


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class System:
    """A local system and its user."""

    def __init__(self, up: Up) -> None:
        self.up = up
        up.start()
        self.url, self.token = up.ready()

    @property
    def where(self) -> dict[str, str]:
        """What a command's environment says of this system."""
        return {"PROCTOR_URL": self.url, "PROCTOR_TOKEN": self.token}

    def proctor(self, *words: str | Path, code: int = 0) -> Done:
        """A command in this process: starting a Python for each takes longer than what most of them do."""
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.where), redirect_stdout(out), redirect_stderr(err):
            ended = run_app([str(word) for word in words])
        assert ended == code, f"{words}: {out.getvalue()}{err.getvalue()}{self.up.told()}"
        return Done(ended, out.getvalue(), err.getvalue())

    def ask(self, *words: str | Path, code: int = 0) -> Any:
        return self.proctor(*words, "-o", "json", code=code).json()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=20)

    def until(self, run: str, state: str) -> Any:
        def there() -> Any:
            found = self.get(f"/v1/runs/{run}").json()
            assert found["state"] == state, found
            return found

        return eventually_sync(there, 30, f"run {run} to be {state}")

    def steps(self, run: str) -> dict[str, Any]:
        rows = self.get(f"/v1/runs/{run}/steps?limit=1000").json()["items"]
        return {f"{row['step']}[{row['instance']}]" if row["instance"] else row["step"]: row for row in rows}


@contextmanager
def local_system(name: str, logs: Path) -> Iterator[System]:
    """A system of its own, ended with all its processes."""
    folder = short_dir(name)
    processes = Processes(logs)
    try:
        yield System(Up(processes, folder / "data"))
    finally:
        processes.end_all()
        eventually_sync(lambda: not running_in(folder), 10, f"the end of {running_in(folder)}")
        remove_tree(folder)
