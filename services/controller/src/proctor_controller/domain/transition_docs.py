"""The transition tables as text for docs/state-machines.md, made from the tables of engine and pool. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from proctor_controller.domain.runs.run import RUN_TRANSITIONS
from proctor_controller.domain.runs.step import STEP_TRANSITIONS
from proctor_controller.domain.volumes.volume import VNFP_TRANSITIONS, VOLUME_TRANSITIONS

S = TypeVar("S", bound=StrEnum)


def render() -> str:
    """All tables in Markdown; the states in the order in which they are declared."""
    tables = (
        f"## A run\n\n{_table(RUN_TRANSITIONS)}",
        f"## A step\n\n{_table(STEP_TRANSITIONS)}",
        f"## A volume\n\n{_table(VOLUME_TRANSITIONS)}",
        f"## A VNF\n\n{_table(VNFP_TRANSITIONS)}",
    )
    return "\n".join(tables)


def _table(transitions: Mapping[S, frozenset[S]]) -> str:
    lines = ["| from | to |", "|---|---|"]
    for old in type(next(iter(transitions))):
        following = ", ".join(new.value for new in type(old) if new in transitions[old])
        lines.append(f"| {old.value} | {following or '— (absorbing)'} |")
    return "\n".join(lines) + "\n"
