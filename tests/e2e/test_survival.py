"""What takes minutes to see (`just soak`): a plan of a thousand steps whose controllers die on the way, and a plugin
that holds its agent's loop longer than an agent may be silent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench import survival
from bench.figures import Report

from proctor_cli.client import Client
from proctor_cli.endpoint import Endpoint
from support.agent import install_trial
from support.folders import remove_tree, short_dir
from support.processes import Processes
from support.up import Up, running_in
from support.wait import eventually_sync

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
BLOCKED = 90
"""Seconds; an agent that is silent for 60 is lost."""


@contextmanager
def system(processes: Processes, **env: str) -> Iterator[Up]:
    folder = short_dir("long")
    up = Up(processes, folder / "data")
    up.env |= env
    up.start()
    up.ready()
    yield up
    processes.end_all()
    eventually_sync(lambda: not running_in(folder), 10, "the end of the system")
    remove_tree(folder)


def test_a_thousand_steps_whose_controllers_are_killed_five_times() -> None:
    report = Report()
    survival.measure(report)
    assert [figure.met for figure in report.figures] == [True, True]


def test_a_plugin_that_blocks_the_agents_loop_loses_nothing(processes: Processes, tmp_path: Path) -> None:
    """The agent is neither suspect nor lost meanwhile; what was asked of it in between is done once, afterwards."""
    mark = tmp_path / "started"
    states: set[str] = set()
    with system(processes, PYTHONPATH=str(install_trial(tmp_path / "plugins"))) as up:
        url, token = up.ready()
        with Client(Endpoint(url, token)) as client:

            def start(plugin: str, method: str, parameters: dict[str, Any]) -> str:
                body = {"plugin": plugin, "method": method, "host": "local-1", "parameters": parameters}
                return str(client.post("/v1/testcases", body, starts=True)["id"])

            def finished(run: str) -> bool:
                states.add(client.get("/v1/agents/local-1")["state"])
                return bool(client.get(f"/v1/runs/{run}")["state"] == "finished")

            blocking = start("trial", "block", {"seconds": BLOCKED})
            said = f"/v1/runs/{blocking}/logs"
            eventually_sync(lambda: b"blocking" in b"".join(client.stream(said)), 30, "the begin of the block")
            note = {"shell": True, "command": 'echo started >>"$1"', "args": [str(mark)]}
            between = start("linux_system", "run_shell", note)
            eventually_sync(lambda: finished(blocking), BLOCKED + 60, "the end of the block")
            eventually_sync(lambda: finished(between), 60, "the end of the other")
            for run in (blocking, between):
                *before, last = client.get(f"/v1/runs/{run}/steps", attempts="all")["items"]
                assert last["result"] == "passed"
                # What was ordered during the block came too late, was buried and ordered anew.
                assert all(step["reason"].startswith("never started") for step in before), before
                changes = [event["to"] for event in client.get(f"/v1/runs/{run}/events")["items"]]
                assert "lost" not in changes
            assert states == {"online"}
            assert mark.read_text() == "started\n"
