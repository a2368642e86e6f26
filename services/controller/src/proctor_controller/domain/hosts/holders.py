"""Sentences on the runs that hold what another run waits for. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

NAME = 60
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that others wait for. ``until``: it failed, and keeps its hosts until then."""

    number: int
    name: str
    group: str | None = None
    until: datetime | None = None


def name_run(holder: Holder, group: str | None) -> str:
    """The run, for readers of a run of ``group``: they may not see runs of other groups."""
    if group is not None and holder.group != group:
        return "a run of another group"
    return f"run {holder.number} ({holder.name[:NAME]})"


def name_runs(holders: Sequence[Holder], group: str | None, count: int | None = None) -> str:
    """Several runs; ``count``: how many there are, if not all are given."""
    names = list(dict.fromkeys(name_run(holder, group) for holder in holders[:SHOWN]))
    more = (len(holders) if count is None else count) - min(len(holders), SHOWN)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def has_alone(holder: Holder, group: str | None) -> str:
    """Why a host that a run holds exclusively is not available."""
    if holder.until is None:
        return f"{name_run(holder, group)} has it for itself"
    return _held(holder, group)


def hold_it(holders: Sequence[Holder], count: int, group: str | None) -> str:
    """Why a host that others share cannot be held exclusively; ``count``: how many share it."""
    held = next((holder for holder in holders if holder.until is not None), None)
    if held is not None:
        return _held(held, group)
    return f"{name_runs(holders, group, count)} {'holds' if count == 1 else 'hold'} it"


def _held(holder: Holder, group: str | None) -> str:
    until = f"{holder.until:%Y-%m-%d %H:%M:%S} UTC" if holder.until is not None else ""
    name = name_run(holder, group)
    sooner = f", or until `proctor cancel {holder.number}`" if name.startswith(f"run {holder.number} ") else ""
    return f"held for {name} after its failure, until {until}{sooner}"
