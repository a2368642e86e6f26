"""A schedule: which ticks of its clock are due, which were missed, and the id of the run that a tick starts. Pure."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

MOST_TICKS = 500
"""At most so many ticks are looked at one by one; after a longer time without a controller only the last are listed."""


class TickOutcome(StrEnum):
    """The outcome of a tick."""

    FIRING = "firing"
    STARTED = "started"
    SKIPPED = "skipped"
    MISSED = "missed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A plan that runs by the clock."""

    id: str
    name: str
    cron: str
    timezone: str
    plan: Any
    """A stored plan's name, or a document as text or mapping."""
    next_at: datetime
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sealed: str | None = None
    """Plan and parameters unmasked and encrypted, if something in them is hidden."""
    overlap: str = "skip"
    group: str | None = None
    bound: bool = False
    """It was made by a token that is bound to its group."""
    created_by: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DueTicks:
    """What to do about the ticks until now."""

    fire: datetime | None
    """The tick to start a run for; None: none."""
    missed: tuple[datetime, ...]
    """Ticks for which no controller was there, oldest first."""
    next_at: datetime
    """The first tick in the future."""


def plan_ticks(
    next_at: datetime, now: datetime, following: Callable[[datetime], datetime], grace: timedelta
) -> DueTicks | None:
    """What is due at ``now``; None if nothing is. ``following``: the first tick after a moment.

    Only the newest tick is fired, and only within ``grace``: a run that starts hours late is not what was asked for.
    """
    if next_at > now:
        return None
    ticks: list[datetime] = []
    tick = next_at
    while tick <= now:
        ticks.append(tick)
        if len(ticks) == MOST_TICKS:
            tick = max(following(tick), following(now - grace))
            continue
        tick = following(tick)
        if len(ticks) > MOST_TICKS:
            del ticks[0]
    fire = ticks[-1] if now - ticks[-1] <= grace else None
    return DueTicks(fire, tuple(ticks if fire is None else ticks[:-1]), tick)


def run_of_tick(schedule: str, tick: datetime) -> str:
    """The id of the run that a tick starts, the same each time, so that starting it twice starts it once.

    A UUID of version 8: the tick's time in milliseconds (as in other ids, so that it sorts with them), then a hash of
    the schedule's id and the tick.
    """
    moment = int(tick.timestamp())
    digest = hashlib.sha256(f"{schedule} {moment}".encode()).digest()
    number = int.from_bytes((moment * 1000).to_bytes(6, "big") + digest[:10], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
