"""The two state machines, word for word, and as docs/state-machines.md shows them."""

from pathlib import Path

from proctor_common.states import RunState, StepState
from proctor_controller.domain.runs.run import RUN_TRANSITIONS
from proctor_controller.domain.runs.step import STEP_TRANSITIONS
from proctor_controller.domain.transition_docs import render

RUN = """
queued: allocating finished
allocating: running queued finished
running: pausing cancelling rolling_back finalizing
pausing: paused running cancelling rolling_back finalizing
paused: running cancelling
cancelling: rolling_back finalizing
rolling_back: finalizing
finalizing: finished
finished:
"""
STEP = """
pending: ready finished
ready: waiting dispatched running finished
waiting: ready finished
dispatched: running ready retry_wait lost cancelling finished
running: finished retry_wait lost cancelling
lost: running finished retry_wait cancelling
cancelling: finished
retry_wait: ready finished
finished:
"""


def table(text: str) -> dict[str, set[str]]:
    lines = (line.partition(":") for line in text.strip().splitlines())
    return {state: set(following.split()) for state, _, following in lines}


def test_runs_move_only_as_the_table_says() -> None:
    assert {old.value: {new.value for new in allowed} for old, allowed in RUN_TRANSITIONS.items()} == table(RUN)
    assert set(RUN_TRANSITIONS) == set(RunState)


def test_steps_move_only_as_the_table_says() -> None:
    assert {old.value: {new.value for new in allowed} for old, allowed in STEP_TRANSITIONS.items()} == table(STEP)
    assert set(STEP_TRANSITIONS) == set(StepState)


def test_the_page_shows_the_tables_that_the_engine_goes_by() -> None:
    page = Path(__file__).parents[3] / "docs" / "state-machines.md"
    assert render() in page.read_text()
