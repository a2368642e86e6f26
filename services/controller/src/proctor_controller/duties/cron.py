"""Cron expressions of crontab(5); APScheduler computes when they are due.

APScheduler counts the days of the week from Monday and requires the day of the month *and* the day of the week; cron
counts from Sunday, and if both are given, either is enough. Both are corrected here. APScheduler also fails across a
night in which clocks are changed (``0 0 1 * *`` in Berlin skips 1 April), so it computes local times, and they are
converted to UTC here.
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
"""The search ends so far in the future: from one 29 February to the next are eight years at most."""
NEAR = timedelta(hours=3)
"""No zone changes its clocks by more than this at once."""
_FIELD = re.compile(r"^[0-9a-z*,/-]{1,100}\Z")
_DAY = re.compile(r"^(\*|[0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?(?:/([0-9]{1,2}))?\Z")


class BadCron(ValueError):
    """A fault of an expression or a time zone, in one sentence; ``path``: cron or timezone."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Cron:
    """When a schedule is due."""

    def __init__(self, expression: str, timezone: str) -> None:
        """``expression``: five fields or an alias such as ``@daily``; ``timezone``: an IANA name. Raises BadCron."""
        self._zone = _zone(timezone)
        self._triggers = [_trigger(fields) for fields in _fields(expression)]
        self.next_after(datetime.now(UTC))  # so that a fault shows at once

    def next_after(self, moment: datetime) -> datetime:
        """The first matching minute after ``moment``, in UTC. Raises BadCron if there is none in nine years.

        A minute that comes twice is due twice; one that is left out is due later, by the time of the change.
        """
        wall = self._wall(moment)
        if not self._changes(moment):
            due = self._instants(self._shown_after(wall))[0]
            if not self._changes(due):
                return due
        # Near a change, local times are not in the order of time: look at all of them around it.
        shown = self._shown_after(wall - NEAR)
        found: datetime | None = None
        while found is None or shown <= self._wall(found) + NEAR:
            for each in self._instants(shown):
                if each > moment and (found is None or each < found):
                    found = each
            shown = self._shown_after(shown)
        return found

    def _wall(self, moment: datetime) -> datetime:
        """The local time in the zone, without the zone."""
        return moment.astimezone(self._zone).replace(tzinfo=None, fold=0)

    def _instants(self, shown: datetime) -> list[datetime]:
        """When the zone has this local time, in UTC: once or twice. A time that is left out comes later."""
        first = shown.replace(tzinfo=self._zone).astimezone(UTC)
        second = shown.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return [first, second] if second > first else [first]

    def _changes(self, moment: datetime) -> bool:
        """Whether the zone's clocks are changed near that moment."""
        return len({each.astimezone(self._zone).utcoffset() for each in (moment - NEAR, moment, moment + NEAR)}) > 1

    def _shown_after(self, shown: datetime) -> datetime:
        """The first matching minute after ``shown``, as local time. Raises BadCron."""
        start = shown.replace(tzinfo=UTC) + timedelta(microseconds=1)
        found: list[datetime] = []
        for trigger in self._triggers:
            trigger.end_date = start + HORIZON
            due = trigger.get_next_fire_time(None, start)
            if due is not None:
                found.append(due.replace(tzinfo=None))
        if not found:
            raise BadCron("cron", "is never due")
        return min(found)


def _trigger(fields: dict[str, str]) -> CronTrigger:
    try:
        return CronTrigger(**fields, timezone=UTC)
    except ValueError as fault:
        raise BadCron("cron", f"is no cron expression: {fault}") from None


def find_faults(expression: str, timezone: str) -> list[BadCron]:
    """All faults of an expression and its time zone."""
    found: list[BadCron] = []
    # Check the expression in UTC too, as its zone may be invalid.
    for zone in (timezone, "UTC"):
        try:
            Cron(expression, zone)
        except BadCron as fault:
            found += [] if fault.path in [each.path for each in found] else [fault]
    return found


def _zone(name: str) -> ZoneInfo:
    if name in {"localtime", "posixrules"} or name.startswith(("posix/", "right/")):
        # The first two depend on the controller's host; in the last, minutes do not begin at :00.
        raise BadCron("timezone", "is no time zone that is the same everywhere: give an IANA name")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadCron("timezone", "is no time zone: give an IANA name as UTC or Europe/Berlin") from None


def _fields(expression: str) -> list[dict[str, str]]:
    text = expression.strip().lower()
    words = ALIASES.get(text, text).split()
    if len(expression) > MAX_LENGTH or len(words) != 5:
        raise BadCron("cron", "must have five fields: minute, hour, day of month, month, day of week (or be @daily …)")
    if wrong := [word for word in words if not _FIELD.match(word)]:
        raise BadCron("cron", f"{wrong[0]!r}: a field is made of numbers, names, and * , - /")
    minute, hour, day, month, weekday = words
    days = _weekdays(weekday)
    every = {"minute": minute, "hour": hour, "month": month, "second": "0"}
    if day.startswith("*") or weekday.startswith("*"):
        return [{**every, "day": day, "day_of_week": days}]
    return [{**every, "day": day, "day_of_week": "*"}, {**every, "day": "*", "day_of_week": days}]


def _weekdays(field: str) -> str:
    """The field with names instead of numbers."""
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
