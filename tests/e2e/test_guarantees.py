"""The promises of docs/architecture.md, tried on a whole local system whose processes are killed."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import survival

from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from proctor_cli.tail import follow
from support.folders import remove_tree, short_dir
from support.processes import Processes
from support.up import Up, running_in
from support.wait import eventually_sync

pytestmark = pytest.mark.timeout(240)
VIEWERS = 50


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = short_dir("sure")
    processes = Processes(tmp_path_factory.mktemp("sure"))
    up = Up(processes, folder / "data")
    up.start()
    up.ready()
    yield up
    processes.end_all()
    eventually_sync(lambda: not running_in(folder), 10, "the end of the system")
    remove_tree(folder)


@pytest.fixture
def client(system: Up) -> Iterator[Client]:
    url, token = system.ready()
    with Client(Endpoint(url, token)) as client:
        yield client


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file whose name marks the commands of one test, and which they append a line to when they start."""
    return tmp_path / "started"


def _start(client: Client, mark: Path, script: str, **more: Any) -> str:
    """A test case on local-1 that notes its start in the mark, then runs the script."""
    shell = f'echo started >>"$1"; {script}'
    body = {
        "plugin": "linux_system",
        "method": "run_shell",
        "host": "local-1",
        "parameters": {"shell": True, "command": shell, "args": [str(mark)]},
        **more,
    }
    return str(client.post("/v1/testcases", body, starts=True)["id"])


def _idle(mark: Path) -> str:
    """A command that does nothing for long and can be found by the mark in its command line."""
    return f"sh -c 'sleep 600; :' '{mark}'"


def _ended(client: Client, run: str, timeout: float = 60.0) -> dict[str, Any]:
    def finished() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/runs/{run}")
        return found if found["state"] == "finished" else None

    found: dict[str, Any] = eventually_sync(finished, timeout, "the end of the run")
    return found


def _starts(mark: Path) -> int:
    return mark.read_text().count("\n") if mark.exists() else 0


class Viewer(threading.Thread):
    """Follows a run as `proctor logs -f` does and keeps all that it is shown."""

    def __init__(self, endpoint: Endpoint, run: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._run = run
        self.text = ""
        self.gaps: list[dict[str, Any]] = []
        self.result = ""
        self.fault: Exception | None = None

    def run(self) -> None:
        try:
            for frame in follow(self._endpoint, self._run):
                if frame["type"] == "chunk":
                    self.text += frame["text"]
                elif frame["type"] == "gap":
                    self.gaps.append(frame)
                elif frame["type"] == "end":
                    self.result = frame["result"]
        except Exception as fault:
            self.fault = fault


def _kill_and_wait(system: Up, name: str) -> None:
    former = system.pid(name)
    os.kill(former, signal.SIGKILL)
    eventually_sync(lambda: system.pid(name) != former, 30, f"a new {name}")


def test_a_run_and_its_viewers_outlive_the_death_of_every_server(system: Up, client: Client, mark: Path) -> None:
    """SIGKILL of api, nats-server, controller and PostgreSQL under fifty tails: each line once, in order."""
    count = 240
    run = _start(client, mark, f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep 0.05; done")
    viewers = [Viewer(client.endpoint, run) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    eventually_sync(lambda: all("line 1\n" in v.text for v in viewers), 60, "the first line at every viewer")
    for name in ("api", "nats-server", "controller", "postgres"):
        _kill_and_wait(system, name)
    for viewer in viewers:
        viewer.join(120)
    wanted = "".join(f"line {n}\n" for n in range(1, count + 1))
    for viewer in viewers:
        assert viewer.fault is None, viewer.fault
        assert (viewer.result, viewer.gaps) == ("passed", [])
        assert viewer.text == wanted
    assert _starts(mark) == 1


def test_an_agent_killed_in_the_middle_of_a_step(system: Up, client: Client, mark: Path) -> None:
    """It kills what it left on the target and reports the attempt lost; nothing runs a second time."""
    run = _start(client, mark, f"{_idle(mark)} & echo up; {_idle(mark)}")
    viewer = Viewer(client.endpoint, run)
    viewer.start()
    eventually_sync(lambda: "up\n" in viewer.text, 30, "the step's first line")
    assert running_in(mark)
    os.kill(system.pid("local-1"), signal.SIGKILL)
    ended = _ended(client, run)
    assert ended["result"] == "error"
    assert "agent_restarted" in ended["reason"]
    eventually_sync(lambda: not running_in(mark), 10, "the end of what the step left")
    (step,) = client.get(f"/v1/runs/{run}/steps")["items"]
    assert (step["result"], step["attempt"], step["tree_gone"]) == ("lost", 1, True)
    viewer.join(30)
    assert viewer.result == "error"
    assert _starts(mark) == 1
    eventually_sync(lambda: client.get("/v1/agents/local-1")["ready"], 30, "the agent to be ready again")


def test_a_cancelled_steps_process_tree_is_gone(system: Up, client: Client, mark: Path) -> None:
    """Also the part that ignores TERM and the part that left its session."""
    stubborn = f"trap '' TERM; setsid {_idle(mark)} & echo up; while :; do {_idle(mark)}; done"
    run = _start(client, mark, stubborn)
    viewer = Viewer(client.endpoint, run)
    viewer.start()
    eventually_sync(lambda: "up\n" in viewer.text, 30, "the step's first line")
    eventually_sync(lambda: len(running_in(mark)) >= 3, 10, "the step's whole tree")
    first = client.post(f"/v1/runs/{run}/cancel")
    assert client.post(f"/v1/runs/{run}/cancel")["id"] == first["id"]
    assert _ended(client, run)["result"] == "cancelled"
    assert not running_in(mark)
    (step,) = client.get(f"/v1/runs/{run}/steps")["items"]
    assert step["tree_gone"] is True


def test_a_timeout_belongs_to_the_attempt(system: Up, client: Client, mark: Path) -> None:
    run = _start(client, mark, _idle(mark), timeout=1)
    assert _ended(client, run)["result"] in {"timed_out", "failed"}
    (step,) = client.get(f"/v1/runs/{run}/steps")["items"]
    assert step["result"] == "timed_out"
    assert not running_in(mark)


def test_a_paused_controller_does_no_harm(system: Up, client: Client, mark: Path, processes: Processes) -> None:
    """Two controllers, one stopped in the middle of a run and let go after its end: one start, one end."""
    second = processes.proctor("controller", "--config", system.data / "controller.toml")
    second.wait_for_line("controller_ready", 30)
    run = _start(client, mark, "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done")
    eventually_sync(lambda: _starts(mark) == 1, 30, "the start")
    first = system.pid("controller")
    os.kill(first, signal.SIGSTOP)
    try:
        ended = _ended(client, run, 90)
    finally:
        os.kill(first, signal.SIGCONT)
    assert ended["result"] == "passed"
    events = client.get(f"/v1/runs/{run}/events")["items"]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert sum(e["to"] == "finished" for e in events if e["kind"] == "run") == 1
    assert _starts(mark) == 1
    again = _start(client, mark, "true")
    assert _ended(client, again)["result"] == "passed"


def test_a_plan_outlives_its_controllers(system: Up, client: Client, tmp_path: Path) -> None:
    """A sample of test_survival.py: for a moment there is no controller; no attempt twice, nothing untold."""
    graph = survival.pieces(32)
    script, marks = tmp_path / "noted.sh", tmp_path / "marks"
    script.write_text(survival.SCRIPT)
    with survival.two_controllers(system.data) as controllers:
        document = survival.plan(graph, script, marks, 0.02)
        told = survival.run_through(client, controllers, document, marks, kills=(True,))
    assert survival.faults(graph, told) == []


def test_words_arrive_as_they_are(client: Client, tmp_path: Path) -> None:
    """A list goes to the program as it is; a value never becomes two words and never meets a shell."""
    words = ["two words", "$(touch pwned)", "`id`", "*", "'\"", "\u00fc\u20ac\U0001f600", "line\nbreak", "-n", ""]
    seen = tmp_path / "seen"
    script = "import sys; open(sys.argv[1], 'wb').write(b'\\0'.join(a.encode() for a in sys.argv[2:]))"
    body = {
        "plugin": "linux_system",
        "method": "run_shell",
        "host": "local-1",
        "parameters": {"command": "python3", "args": ["-c", script, str(seen), *words]},
    }
    run = client.post("/v1/testcases", body)["id"]
    assert _ended(client, run)["result"] == "passed"
    assert seen.read_bytes().split(b"\0") == [word.encode() for word in words]
