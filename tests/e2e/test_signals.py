"""Signals to a command that follows a run, and outputs that take no more: what becomes of the run is told."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.system import System, local_system
from support.wait import eventually_sync

PLAN = """testplan_version: "2026-12-01"
name: long
steps:
  wait: {uses: linux_system.run_shell, runs_on: {host: local-1}, with: {command: sleep, args: ["600"]}}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with local_system("signals", tmp_path_factory.mktemp("signals")) as found:
        yield found


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(PLAN)
    return path


class Followed:
    """A command in a process of its own, following a run whose step has begun."""

    def __init__(self, system: System, said: Path, words: list[str], prepare: Callable[[], None] | None = None) -> None:
        self.system = system
        self.said = said
        with said.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proctor_cli", *words],
                env={**os.environ, **system.where},
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
            )
        eventually_sync(lambda: "running" in self.told(), 30, "the step to be followed")
        self.run = self.told().split()[1]

    def told(self) -> str:
        return self.said.read_text()

    def state(self) -> Any:
        found = self.system.get(f"/v1/runs/{self.run}").json()
        return found["state"], found["result"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_the_run_and_tells_its_end(
    system: System, plan: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    followed = Followed(system, tmp_path / "said", ["run", str(plan)])
    followed.process.send_signal(number)
    assert followed.process.wait(20) == code, followed.told()
    assert followed.told().endswith(f"{number.name}: it has ended: cancelled\n")
    assert followed.state() == ("finished", "cancelled")


def test_a_run_may_be_left_alone_instead(system: System, plan: Path, tmp_path: Path) -> None:
    followed = Followed(system, tmp_path / "said", ["run", str(plan), "--on-term", "leave"])
    followed.process.terminate()
    assert followed.process.wait(20) == 143, followed.told()
    assert f"SIGTERM: left alone; it goes on: `proctor show {followed.run}`" in followed.told()
    assert followed.state()[0] == "running"
    system.proctor("cancel", followed.run)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(system: System, plan: Path, tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    followed = Followed(system, tmp_path / "said", ["run", str(plan)], nohup)
    followed.process.send_signal(signal.SIGHUP)
    followed.process.send_signal(signal.SIGINT)
    assert followed.process.wait(20) == 130, followed.told()
    assert "SIGHUP" not in followed.told()
    assert followed.state() == ("finished", "cancelled")


def test_an_output_that_takes_no_more_leaves_the_run_alone(system: System, plan: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "proctor_cli", "run", str(plan), "--no-follow"],
            env={**os.environ, **system.where},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    told = ended.stderr.decode()
    assert ended.returncode == 3
    assert "Traceback" not in told
    assert told.endswith("proctor: cannot write: No space left on device\n")
    for run in system.get("/v1/runs?state=running").json()["items"]:
        system.proctor("cancel", run["id"])


def test_what_is_no_file_is_written_to_and_never_replaced(system: System, tmp_path: Path) -> None:
    system.proctor("case", "local-1", "linux_system.run_shell", "command=true")
    run = str(system.get("/v1/runs?limit=1").json()["items"][0]["number"])
    pipe, link, behind = tmp_path / "pipe", tmp_path / "link", tmp_path / "behind.xml"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    link.symlink_to(behind)
    system.proctor("junit", run, "--output", pipe)
    written = reader.communicate(timeout=20)[0]
    system.proctor("junit", run, "--output", link)
    assert written.startswith(b"<?xml")
    assert behind.read_bytes() == written
    assert pipe.is_fifo()
    assert link.is_symlink()
    shown = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m proctor_cli junit {run} --output /dev/stdout | cat"],
        env={**os.environ, **system.where},
        capture_output=True,
        check=True,
    )
    assert shown.stdout == written
    assert Path("/dev/stdout").is_symlink()
    refused = system.proctor("junit", run, "--output", tmp_path, code=2)
    assert refused.err.endswith("Is a directory\n")
