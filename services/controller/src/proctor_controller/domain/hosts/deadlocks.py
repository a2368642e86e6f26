"""Finds deadlocks of runs: each holds hosts that another one's nested runs or steps wait for. Pure.

A run gets all hosts of its roles at once. The hosts of its nested plans, and of steps that name a host outside of its
roles, are asked for while it holds those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proctor_controller.domain.hosts.holders import Holder, name_run
from proctor_controller.domain.hosts.leasing import LeasableHost, fits
from proctor_controller.domain.hosts.requirements import HostRole


@dataclass(frozen=True, slots=True)
class Wait:
    """A nested run that waits for hosts, or a step (``step``) that waits for one while its run holds others.

    ``number``: of the run · ``holders``: the runs that cannot end before it has begun: those it is nested in, and of a
    step its own · ``cleanup``: the step cleans up after the others.
    """

    run: str
    number: int
    roles: tuple[HostRole, ...]
    holders: frozenset[str]
    group: str | None = None
    step: str | None = None
    cleanup: bool = False


@dataclass(frozen=True, slots=True)
class HeldHost:
    """A host, and who holds it: run -> whether alone."""

    host: LeasableHost
    holders: Mapping[str, bool]


def find_circle(waits: Sequence[Wait], hosts: Sequence[HeldHost]) -> tuple[Wait, ...]:
    """The waits for hosts that become free only after these very waits have ended; empty where there is no deadlock.

    A host that is drained or away may come back, and whoever holds one and waits for nothing ends some day: what is
    left are waits for hosts that are all held by runs with such a wait of their own.
    """
    stuck = list(waits)
    while True:
        left = [wait for wait in stuck if any(_lacks(wait, role, stuck, hosts) for role in wait.roles)]
        if len(left) == len(stuck):
            return tuple(left)
        stuck = left


def youngest(circle: Sequence[Wait]) -> Wait:
    """The wait to be ended: the one that began last. Waits of cleanup are ended last, as cleanup is not repeated."""
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
    """Who keeps the host from it, and waits as well."""
    own = wait.holders | {wait.run}
    others = {run for run, alone in held.holders.items() if (alone or role.exclusive) and run not in own}
    return {run for run in others if any(run in each.holders for each in stuck)}
