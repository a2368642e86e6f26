"""`proctor demo`: what a newcomer sees first."""

import re
import signal
from pathlib import Path

from support.processes import Child, Processes, command_line, is_alive
from support.wait import eventually_sync

ROOT = Path(__file__).resolve().parents[2]


def _folder(child: Child) -> Path:
    found = re.search(r"^demo: starting the local system in (\S+)$", child.stderr, re.MULTILINE)
    assert found, child.output
    return Path(found[1])


def _running(folder: Path) -> list[str]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [line for pid in pids if str(folder) in (line := command_line(pid)) and is_alive(pid)]


def test_demo_shows_a_run_live_and_leaves_nothing(processes: Processes, tmp_path: Path) -> None:
    child = processes.proctor("demo", cwd=ROOT, env={"XDG_DATA_HOME": str(tmp_path), "HOME": ""})
    assert child.wait(100) == 0, child.output
    assert [f"line {n} of 5" for n in range(1, 6)] == [line for line in child.stdout.splitlines() if "of 5" in line]
    assert child.stdout.splitlines()[-1] == "done"
    assert "smoke passed" in child.stderr
    folder = _folder(child)
    assert not folder.exists()
    assert _running(folder) == []
    assert not list(tmp_path.rglob("client.json"))


def test_ctrl_c_ends_the_demo_and_leaves_nothing(processes: Processes, tmp_path: Path) -> None:
    child = processes.proctor("demo", cwd=ROOT, env={"XDG_DATA_HOME": str(tmp_path)})
    eventually_sync(lambda: "line 1 of 5" in child.stdout, 100, "the first line of the log")
    child.signal(signal.SIGINT)
    assert child.wait(10) == 130
    folder = _folder(child)
    assert not folder.exists()
    eventually_sync(lambda: _running(folder) == [], 5, "the end of everything")
