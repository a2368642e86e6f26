"""Cron expressions as crontab(5) has them; when they are due is APScheduler's to work out.

APScheduler counts the days of the week from Monday and wants the day of the month *and* the day of the week to fit;
cron counts from Sunday, and where both are given either will do. Both are put right here.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MAX_LENGTH = 200
HORIZON = timedelta(days=9 * 366)
"""Further ahead nothing is looked for: from one 29 February to the next are eight years at most."""
_FIELD = re.compile(r"^[0-9a-z*,/-]{1,100}\Z")
_DAY = re.compile(r"^(\*|[0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?(?:/([0-9]{1,2}))?\Z")


class BadCron(ValueError):
    """What is wrong with an expression or a time zone, in one sentence; ``path``: cron or timezone."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Cron:
    """When a schedule is due."""

    def __init__(self, expression: str, timezone: str) -> None:
        """Five fields or an alias as ``@daily``; an IANA name. Raises BadCron."""
        self._zone = _zone(timezone)
        self._fields = _fields(expression)
        self.next_after(datetime.now(UTC))  # so that a fault shows at once

    def next_after(self, moment: datetime) -> datetime:
        """The first minute behind ``moment`` that fits, in UTC. Raises BadCron where there is none in nine years."""
        # Added in UTC: where clocks are put back, arithmetic on local time would land in the former hour.
        start = (moment.astimezone(UTC) + timedelta(microseconds=1)).astimezone(self._zone)
        found = [
            due
            for fields in self._fields
            if (due := self._trigger(fields, start).get_next_fire_time(None, start)) is not None
        ]
        if not found:
            raise BadCron("cron", "is never due")
        earliest: datetime = min(found)
        return earliest.astimezone(UTC)

    def _trigger(self, fields: dict[str, str], start: datetime) -> CronTrigger:
        try:
            return CronTrigger(**fields, timezone=self._zone, end_date=start + HORIZON)
        except ValueError as fault:
            raise BadCron("cron", f"is no cron expression: {fault}") from None


def find_faults(expression: str, timezone: str) -> list[BadCron]:
    """All that is wrong with an expression and its time zone."""
    found: list[BadCron] = []
    # An expression is looked at in UTC too, as its zone may be none.
    for zone in (timezone, "UTC"):
        try:
            Cron(expression, zone)
        except BadCron as fault:
            found += [] if fault.path in [each.path for each in found] else [fault]
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadCron("timezone", "is no time zone: give an IANA name as UTC or Europe/Berlin") from None


def _fields(expression: str) -> list[dict[str, str]]:
    text = expression.strip().lower()
    words = ALIASES.get(text, text).split()
    if len(expression) > MAX_LENGTH or len(words) != 5 or not all(_FIELD.match(word) for word in words):
        raise BadCron("cron", "must have five fields: minute, hour, day of month, month, day of week (or be @daily …)")
    minute, hour, day, month, weekday = words
    days = _weekdays(weekday)
    every = {"minute": minute, "hour": hour, "month": month, "second": "0"}
    if day.startswith("*") or weekday.startswith("*"):
        return [{**every, "day": day, "day_of_week": days}]
    return [{**every, "day": day, "day_of_week": "*"}, {**every, "day": "*", "day_of_week": days}]


def _weekdays(field: str) -> str:
    """The field with names for numbers."""
    if field == "*":
        return "*"
    found = {day % 7 for part in field.split(",") for day in _days(part)}
    return ",".join(DAYS[day] for day in sorted(found))


def _days(part: str) -> Iterator[int]:
    match = _DAY.match(part)
    if match is None:
        raise BadCron("cron", f"day of week {part}: 0 to 7 (0 and 7 are Sunday) or sun to sat")
    first, last, step = match[1], match[2], int(match[3] or 1)
    if step == 0 or (first == "*" and last is not None):
        raise BadCron("cron", f"day of week {part}: not a range")
    start = 0 if first == "*" else _day(first)
    end = _day(last) if last is not None else 6 if first == "*" or match[3] else start
    if end < start:
        end += 7
    yield from range(start, end + 1, step)


def _day(word: str) -> int:
    if word.isdecimal():
        return int(word)
    if word not in DAYS:
        raise BadCron("cron", f"day of week {word}: sun, mon, tue, wed, thu, fri or sat")
    return DAYS.index(word)
