"""The clock as a parameter, so that only the entry points use the machine's. No I/O."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """The wall clock with time zone, in UTC. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only increase, from an arbitrary start; for durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
