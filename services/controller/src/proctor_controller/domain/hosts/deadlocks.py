"""Finds deadlocks of runs: each holds hosts that another one's nested runs or steps wait for. Pure.

A run gets all hosts of its roles at once. The hosts of its nested plans, and of steps that name a host outside of its
roles, are requested while it holds those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proctor_controller.domain.hosts.holders import Holder, name_run
from proctor_controller.domain.hosts.leasing import LeasableHost, fits
from proctor_controller.domain.hosts.requirements import HostRole


@dataclass(frozen=True, slots=True)
class Wait:
    """A nested run that waits for hosts, or a step (``step``) that waits for one while its run holds others."""

    run: str
    number: int
    """The run's number."""
    roles: tuple[HostRole, ...]
    holders: frozenset[str]
    """The runs that cannot end before it has begun: those it is nested in; for a step also its own run."""
    group: str | None = None
    step: str | None = None
    cleanup: bool = False
    """The step is one of cleanup."""


@dataclass(frozen=True, slots=True)
class HeldHost:
    """A host, and its holders: run -> whether exclusively."""

    host: LeasableHost
    holders: Mapping[str, bool]


def find_circle(waits: Sequence[Wait], hosts: Sequence[HeldHost]) -> tuple[Wait, ...]:
    """The waits for hosts that become free only after these same waits have ended; empty if there is no deadlock.

    A host that is drained or away may come back, and a holder that waits for nothing will end. What remains are waits
    for hosts whose holders all have such a wait too.
    """
    stuck = list(waits)
    while True:
        left = [wait for wait in stuck if any(_lacks(wait, role, stuck, hosts) for role in wait.roles)]
        if len(left) == len(stuck):
            return tuple(left)
        stuck = left


def youngest(circle: Sequence[Wait]) -> Wait:
    """The wait to be ended: the one that began last. Waits of cleanup come last, as cleanup is not repeated."""
    return max(circle, key=lambda wait: (not wait.cleanup, wait.number, wait.step or ""))


def describe_circle(wait: Wait, circle: Sequence[Wait], hosts: Sequence[HeldHost], runs: Mapping[str, Holder]) -> str:
    """Why it will never get its hosts."""
    blocked = [
        f"{held.host.host} is held by {name_run(runs[run], wait.group)}"
        for role in wait.roles
        for held in _fitting(wait, role, hosts)
        for run in sorted(_blockers(wait, role, held, circle))
    ]
    return f"hosts: {'; '.join(dict.fromkeys(blocked))}, which waits for what this plan's run holds: neither would end"


def _lacks(wait: Wait, role: HostRole, stuck: Sequence[Wait], hosts: Sequence[HeldHost]) -> bool:
    free = [held for held in _fitting(wait, role, hosts) if not _blockers(wait, role, held, stuck)]
    return len(free) < role.count


def _fitting(wait: Wait, role: HostRole, hosts: Sequence[HeldHost]) -> list[HeldHost]:
    return [held for held in hosts if fits(role, held.host) and (wait.group is None or wait.group in held.host.groups)]


def _blockers(wait: Wait, role: HostRole, held: HeldHost, stuck: Sequence[Wait]) -> set[str]:
    """The runs that keep the host from it and wait as well."""
    own = wait.holders | {wait.run}
    others = {run for run, alone in held.holders.items() if (alone or role.exclusive) and run not in own}
    return {run for run in others if any(run in each.holders for each in stuck)}
