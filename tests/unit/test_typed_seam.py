"""From route to handler: every operation is carried out, and mypy refuses what does not fit it on either side."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proctor_common.messages.calls import OPERATIONS
from proctor_controller.handlers.table import HANDLERS

ROOT = Path(__file__).resolve().parents[2]
API = """
from proctor_api.controller_client import SELF, ControllerClient
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.runs import GET_RUN, LIST_RUNS, RunList, RunRef
from proctor_common.messages.pages import RunPage
from proctor_common.messages.views import RunView


async def ask(client: ControllerClient) -> tuple[str, Encoded[RunPage]]:
    run = await client.ask(GET_RUN, SELF, RunRef(run="1"))
    runs = await client.ask_encoded(LIST_RUNS, SELF, RunList())
    return run.id, runs
"""
HANDLER = """
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import GET_RUN, LIST_RUNS, RunList, RunRef
from proctor_common.messages.pages import RunPage
from proctor_common.messages.views import RunView
from proctor_controller.context import ProcessContext
from proctor_controller.handlers.calls import on


async def get_run(context: ProcessContext, actor: Actor, body: RunRef) -> RunView:
    raise NotImplementedError


async def list_runs(context: ProcessContext, actor: Actor, body: RunList) -> Encoded[RunPage]:
    return RunPage.of([], body.limit, lambda run: run.id)


HANDLERS = (on(GET_RUN, get_run), on(LIST_RUNS, list_runs))
"""
SNIPPETS = {
    "right_in_the_api": API,
    "right_handler": HANDLER,
    "wrong_request_in_the_api": API.replace('RunRef(run="1")', "RunList()"),
    "wrong_answer_in_the_api": API.replace("run.id, runs", "run.items, runs"),
    "wrong_encoded_answer_in_the_api": API.replace("Encoded[RunPage]]", "Encoded[RunView]]"),
    "handler_of_a_wrong_request": HANDLER.replace("body: RunRef", "body: RunList"),
    "handler_of_a_wrong_answer": HANDLER.replace("RunRef) -> RunView", "RunRef) -> RunPage"),
    "handler_of_a_wrong_encoded_answer": HANDLER.replace("Encoded[RunPage]:", "Encoded[RunView]:").replace(
        "    return RunPage.of([], body.limit, lambda run: run.id)", "    raise NotImplementedError"
    ),
}


def test_every_operation_has_its_handler() -> None:
    assert {name: each.operation for name, each in HANDLERS.items()} == OPERATIONS


@pytest.mark.timeout(180)
def test_mypy_refuses_what_does_not_fit_an_operation(tmp_path: Path) -> None:
    for name, text in SNIPPETS.items():
        (tmp_path / f"{name}.py").write_text(text)
    sources = [str(path) for path in sorted(ROOT.glob("*/*/src"))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            ROOT / "pyproject.toml",
            "--cache-dir",
            tmp_path / "cache",
            *sorted(tmp_path.glob("*.py")),
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.pathsep.join(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    told = {line.partition(".py:")[0] for line in done.stdout.splitlines() if ": error:" in line}
    assert told == {name for name in SNIPPETS if "wrong" in name}, done.stdout + done.stderr
