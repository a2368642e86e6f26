"""A plan of diamonds and chains whose controllers are killed on the way, beside the same plan left in peace.

Two controllers share the work: the one of ``proctor up``, which starts it again, and one more of our own. Every
command notes on the target that it started, so that an attempt that ran twice is seen, and counts its way through the
graph, so that a step that saw a wrong output is seen. Some steps fail at first and are tried again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figure, Report
from bench.system import local_system
from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from proctor_cli.faults import Refused
from proctor_cli.local.processes import Account, prepare_child

LANES = 4
MODULUS = 9973
FLAKY_EVERY = 25
"""One step in so many fails at its first attempt."""
KILLS: tuple[bool, ...] = (True, False, True, False, False)
"""Whether the controller of ``proctor up`` dies as well as our own: three times within a minute would end all."""
PATIENCE = 600.0
NOBODY_THERE = 503
SCRIPT = """\
# FOLDER NAME FAILS PAUSE INPUT...: note the start, fail FAILS times, then count on from the inputs.
cd "$1" || exit 9
echo started >>"$2"
sleep "$4"
[ "$(wc -l <"$2")" -gt "$3" ] || exit 1
shift 4
sum=1
for n; do sum=$(( (sum + n) % 9973 )); done
echo "$sum"
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """One step: what it waits for, and how often it fails before it passes."""

    name: str
    needs: tuple[str, ...]
    fails: int


def pieces(size: int, lanes: int = LANES) -> list[Piece]:
    """``size`` steps in lanes; each lane is a chain of two, a diamond of five, a chain of two and so on."""
    found: list[Piece] = []
    tails: list[tuple[str, ...]] = [()] * lanes
    place = 0
    while len(found) < size:
        lane = place % lanes
        # head of the chain, its end, the diamond's top, three sides, its bottom
        width = 3 if (place // lanes) % 5 == 3 else 1
        made = []
        for _ in range(min(width, size - len(found))):
            fails = 1 if len(found) % FLAKY_EVERY == FLAKY_EVERY - 1 else 0
            made.append(Piece(f"s{len(found)}", tails[lane], fails))
            found.append(made[-1])
        tails[lane] = tuple(each.name for each in made)
        place += 1
    return found


def sums(graph: Sequence[Piece]) -> dict[str, int]:
    """What each step has to print."""
    found: dict[str, int] = {}
    for each in graph:
        found[each.name] = (1 + sum(found[need] for need in each.needs)) % MODULUS
    return found


def plan(graph: Sequence[Piece], script: Path, marks: Path, pause: float) -> dict[str, Any]:
    """The document; ``marks`` is where the commands note their starts."""
    return {
        "testplan_version": "2026-12-01",
        "name": "survival",
        "steps": {
            each.name: {
                "uses": "linux_system.run_shell",
                "runs_on": {"host": "local-1"},
                "with": {
                    "command": "sh",
                    "args": [
                        *(str(script), str(marks), each.name, str(each.fails), str(pause)),
                        *(f"${{{{ steps.{need}.outputs.sum }}}}" for need in each.needs),
                    ],
                },
                "outputs": {"sum": "${{ result.stdout_last_line }}"},
                **({"retry": {"attempts": each.fails + 1, "delay": "100ms"}} if each.fails else {}),
            }
            for each in graph
        },
        "outputs": {"sum": f"${{{{ steps.{graph[-1].name}.outputs.sum }}}}"},
    }


class Controllers:
    """The controller of ``proctor up`` and a second one, which is started again by :meth:`kill`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._log = (data / "logs" / "second-controller.log").open("ab")
        self._second = self._start()
        self.killed = 0

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [str(Path(sys.executable).parent / "proctor"), "controller"]
        command += ["--config", str(self._data / "controller.toml")]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=prepare_child(Account.OWN, signal.SIGKILL),  # noqa: PLW1509 - nothing else can set it
        )

    def _first(self) -> int:
        children = json.loads((self._data / "run" / "children.json").read_text())
        return int(children["controller"][0])

    def kill(self, *, both: bool) -> None:
        """SIGKILL, without waiting for the successors. ``both``: no controller is left for a moment."""
        first = self._first() if both else None
        self._second.kill()
        self.killed += 1
        if first is not None:
            os.kill(first, signal.SIGKILL)
            self.killed += 1
        self._second.wait(10)
        self._second = self._start()

    def close(self) -> None:
        """End the second one."""
        self._second.terminate()
        try:
            self._second.wait(10)
        except subprocess.TimeoutExpired:
            self._second.kill()
            self._second.wait(10)
        self._log.close()


@contextmanager
def two_controllers(data: Path) -> Iterator[Controllers]:
    """A second controller beside that of a local system's; ended in the end."""
    controllers = Controllers(data)
    try:
        yield controllers
    finally:
        controllers.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a run that has ended."""

    result: str
    outputs: dict[str, Any]
    steps: list[dict[str, Any]]
    """Every attempt."""
    events: list[dict[str, Any]]
    seconds: float
    marks: dict[str, int]
    """How often each step's command was started on the target."""

    @property
    def started(self) -> list[dict[str, Any]]:
        """The attempts that began. On a busy machine an agent buries some that it was told of too late."""
        return [row for row in self.steps if not (row["reason"] or "").startswith("never started")]

    @property
    def gist(self) -> tuple[Any, ...]:
        """What must be the same for two runs of one plan."""
        wanted = ("step", "instance", "state", "result", "exit_code", "outputs")
        rows = sorted(json.dumps([row[name] for name in wanted], sort_keys=True) for row in self.started)
        return self.result, self.outputs, rows, sorted(self.marks.items())


def run_through(
    client: Client, controllers: Controllers, document: dict[str, Any], marks: Path, kills: Sequence[bool] = ()
) -> Told:
    """Run the plan to its end, with kills spread over the way. Raises TimeoutError."""
    marks.mkdir()
    total = len(document["steps"])
    begun = time.monotonic()
    run = client.post("/v1/runs", {"plan": document}, starts=True)["id"]
    for number, both in enumerate(kills, start=1):
        goal = total * number // (len(kills) + 1)
        _wait(lambda goal=goal: len(os.listdir(marks)) >= goal, f"{goal} steps")  # type: ignore[misc]
        controllers.kill(both=both)
    ended: dict[str, Any] = {}

    def finished() -> bool:
        try:
            ended.update(client.get(f"/v1/runs/{run}"))
        except Refused as fault:
            # On a busy machine a controller that starts again keeps callers waiting for longer than a client waits.
            if fault.status != NOBODY_THERE:
                raise
            return False
        return bool(ended["state"] == "finished")

    _wait(finished, "the end of the run")
    seconds = time.monotonic() - begun
    steps = list(client.items(f"/v1/runs/{run}/steps", attempts="all"))
    counted = {path.name: path.read_text().count("\n") for path in marks.iterdir()}
    return Told(ended["result"], ended["outputs"], steps, _events(client, run), seconds, counted)


def faults(graph: Sequence[Piece], told: Told) -> list[str]:
    """What is wrong with a run's story; empty when all is well."""
    wanted, found = sums(graph), list[str]()
    if told.result != "passed" or told.outputs != {"sum": str(wanted[graph[-1].name])}:
        found.append(f"the run ended as {told.result} with {told.outputs}")
    attempts = Counter(row["step"] for row in told.started)
    last = {row["step"]: row for row in sorted(told.steps, key=lambda row: row["attempt"])}
    for each in graph:
        starts, noted = told.marks.get(each.name, 0), attempts[each.name]
        if not starts == noted == each.fails + 1:
            found.append(f"{each.name}: {starts} starts on the target, {noted} attempts, {each.fails + 1} wanted")
        row = last.get(each.name, {})
        if (row.get("result"), row.get("outputs")) != ("passed", {"sum": str(wanted[each.name])}):
            found.append(f"{each.name}: {row.get('result')} with {row.get('outputs')}, wanted {wanted[each.name]}")
    if [event["seq"] for event in told.events] != list(range(1, len(told.events) + 1)):
        found.append("the events have gaps or doubles")
    changes = Counter(
        (event["step_id"], event["attempt"], event["to"]) for event in told.events if event["kind"] == "step"
    )
    found += [f"told twice: {change}" for change, times in changes.items() if times > 1 and change[2] == "finished"]
    ends = sum(event["kind"] == "run" and event["to"] == "finished" for event in told.events)
    if ends != 1:
        found.append(f"the run's end is told {ends} times")
    return found


def measure(report: Report, scale: float = 1.0, size: int = 1000, pause: float = 0.1) -> None:
    """The plan in peace, then with controllers dying; on a system of its own, because they may die only so often."""
    graph = pieces(max(50, int(size * scale)))
    with local_system() as system, Client(Endpoint(system.url, system.token)) as client:
        script = system.data / "noted.sh"
        script.write_text(SCRIPT)
        with two_controllers(system.data) as controllers:
            ways: list[Told] = []
            for name, kills in (("peace", ()), ("kills", KILLS)):
                marks = system.data / name
                ways.append(run_through(client, controllers, plan(graph, script, marks, pause), marks, kills))
            killed = controllers.killed
    peace, killed_way = ways
    wrong = [*faults(graph, peace), *faults(graph, killed_way)]
    if peace.gist != killed_way.gist:
        wrong.append("the two runs differ")
    for line in wrong[:20]:
        print(f"survival: {line}", flush=True)
    name = f"plan of {len(graph)} steps, {len(KILLS)} times without controllers or with one less ({killed} killed)"
    ratio = killed_way.seconds / peace.seconds
    report.add(Figure(name, f"{killed_way.seconds:.1f} s", f"{peace.seconds:.1f} s", ratio, "same result", not wrong))
    wanted = sum(each.fails + 1 for each in graph)
    starts = sum(killed_way.marks.values())
    exact = starts == wanted == len(killed_way.started)
    report.add(Figure("attempts started on the target", f"{starts}", f"{wanted}", starts / wanted, "no more", exact))


def _events(client: Client, run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = client.get(f"/v1/runs/{run}/events", after=found[-1]["seq"] if found else 0, limit=1000)
        found += page["items"]
        if page["next"] is None:
            return found


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.1)
