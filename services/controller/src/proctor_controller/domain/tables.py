"""The transition tables as text for docs/state-machines.md: the page is made from what the engine goes by. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from proctor_controller.domain.run import RUN_TRANSITIONS
from proctor_controller.domain.step import STEP_TRANSITIONS

S = TypeVar("S", bound=StrEnum)


def render() -> str:
    """Both tables in Markdown; the states in the order in which they are declared."""
    return f"## A run\n\n{_table(RUN_TRANSITIONS)}\n## A step\n\n{_table(STEP_TRANSITIONS)}"


def _table(transitions: Mapping[S, frozenset[S]]) -> str:
    lines = ["| from | to |", "|---|---|"]
    for old in type(next(iter(transitions))):
        following = ", ".join(new.value for new in type(old) if new in transitions[old])
        lines.append(f"| {old.value} | {following or '— (absorbing)'} |")
    return "\n".join(lines) + "\n"
