"""What was read a moment ago: slices of steps, the host that a method was found on, the database's clock. A cache.

A decision on a remembered slice is saved under the run's version like any other; where another controller was quicker,
or nothing follows from it, the slice is read again. A remembered host still has to give a slot: its claim asks the
agent's row again whether it may take work, and whether others wait.
"""

import time
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TypeVar

from proctor_common.states import StepState
from proctor_controller.db.hosts.candidates import Found
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.decision import Decision, Slice

T = TypeVar("T")
MAX_SLICES = 2000
MAX_AGE = 30.0
MAX_HOSTS = 1000
HOST_AGE = 1.0

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine sleeps."""

HostKey = tuple[Placement, str, str, str | None]
"""Where, which plugin and method, and the run's group."""


def _put(cache: "OrderedDict[str, T]", key: str, value: T) -> None:
    cache[key] = value
    while len(cache) > MAX_SLICES:
        cache.popitem(last=False)


def _needs_scope(part: Slice) -> bool:
    """Whether the end of the slice's step is judged by expressions, and what they read was not loaded."""
    return part.scope is None and any(node.rules is not None and node.rules.is_judging for node in part.nodes)


class Cache:
    """Remembers the slices of live steps, each until it is used."""

    def __init__(self) -> None:
        self._slices: OrderedDict[str, Slice] = OrderedDict()
        self._hosts: OrderedDict[HostKey, tuple[Found, float]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._clock: tuple[datetime, float] | None = None

    def keep(self, part: Slice) -> None:
        """Remember the slice of a run's last step while more is to come of it; several would make each other old."""
        if len(part.steps) != 1:
            return
        step = part.steps[0]
        if step.state is StepState.FINISHED:
            _put(self._ended, step.id, None)
        elif part.run.undecided == 1 and not _needs_scope(part):
            _put(self._slices, step.id, part)

    def note_ended(self, decision: Decision) -> None:
        """Remember which steps a decision has ended."""
        for step in decision.steps:
            if step.state is StepState.FINISHED:
                _put(self._ended, step.id, None)

    def has_ended(self, step: str) -> bool:
        """Whether this process has just committed the step's end, which absorbs; False says nothing."""
        return step in self._ended

    def take(self, step: str) -> tuple[Slice, datetime] | None:
        """The step's slice with the database's time now; None where either is not known."""
        part = self._slices.pop(step, None)
        now = self.now()
        return None if part is None or now is None else (part, now)

    def keep_host(self, key: HostKey, found: Found) -> None:
        """Remember the agent that a method was found on, with the method's description."""
        self._hosts[key] = (found, time.clock_gettime(_CLOCK))
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def host(self, key: HostKey) -> Found | None:
        """The agent as it was less than HOST_AGE seconds ago."""
        found, at = self._hosts.get(key, (None, 0.0))
        return found if time.clock_gettime(_CLOCK) - at < HOST_AGE else None

    def forget_host(self, key: HostKey) -> None:
        """It is not as it was."""
        self._hosts.pop(key, None)

    def set_clock(self, now: datetime) -> None:
        """The database has just said what time it is."""
        self._clock = (now, time.clock_gettime(_CLOCK))

    def now(self) -> datetime | None:
        """The database's time, as far as it was heard of lately."""
        if self._clock is None:
            return None
        told, at = self._clock
        age = time.clock_gettime(_CLOCK) - at
        return told + timedelta(seconds=age) if age < MAX_AGE else None
