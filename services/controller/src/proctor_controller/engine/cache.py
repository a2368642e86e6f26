"""What was read or written a moment ago: the host that a method was found on, which steps have ended, the database's
clock. A cache.

A remembered host still has to give a slot: its claim asks the agent's row again whether it may take work, and whether
others wait.
"""

import time
from collections import OrderedDict
from datetime import datetime, timedelta

from proctor_common.states import StepState
from proctor_controller.db.hosts.candidates import FoundCandidate
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.decision import Decision

MAX_ENDED = 2000
MAX_AGE = 30.0
MAX_HOSTS = 1000
HOST_AGE = 1.0

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine sleeps."""

HostKey = tuple[Placement, str, str, str | None]
"""Where, which plugin and method, and the run's group."""


class Cache:
    """Bounded; nothing in it that cannot be lost."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[HostKey, tuple[FoundCandidate, float]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._clock: tuple[datetime, float] | None = None

    def note_ended(self, decision: Decision) -> None:
        """Remember which steps a decision has ended."""
        for step in decision.steps:
            if step.state is StepState.FINISHED:
                self._ended[step.id] = None
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def has_ended(self, step: str) -> bool:
        """Whether this process has just committed the step's end, which absorbs; False says nothing."""
        return step in self._ended

    def keep_host(self, key: HostKey, found: FoundCandidate) -> None:
        """Remember the agent that a method was found on, with the method's description."""
        self._hosts[key] = (found, time.clock_gettime(_CLOCK))
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def host(self, key: HostKey) -> FoundCandidate | None:
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
        moment, at = self._clock
        age = time.clock_gettime(_CLOCK) - at
        return moment + timedelta(seconds=age) if age < MAX_AGE else None
