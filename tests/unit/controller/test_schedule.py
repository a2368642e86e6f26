"""Cron as crontab has it, ticks that are due or missed, and the ids of the runs they start."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_common.ids import is_id, new_id
from proctor_controller.domain.schedule import MOST_TICKS, plan_ticks, run_of_tick
from proctor_controller.duties.cron import BadCron, Cron

NOW = datetime(2026, 11, 21, 4, 30, tzinfo=UTC)  # a Saturday
MINUTE = timedelta(minutes=1)


def next_of(expression: str, timezone: str = "UTC", count: int = 1, start: datetime = NOW) -> list[str]:
    cron, moment, found = Cron(expression, timezone), start, []
    for _ in range(count):
        moment = cron.next_after(moment)
        found.append(f"{moment:%a %F %R}")
    return found


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("* * * * *", "Sat 2026-11-21 04:31"),
        ("*/5 8-18 * * mon-fri", "Mon 2026-11-23 08:00"),
        ("0 0 * * 0", "Sun 2026-11-22 00:00"),
        ("0 0 * * 7", "Sun 2026-11-22 00:00"),
        ("0 0 * * 1", "Mon 2026-11-23 00:00"),
        ("0 0 * * SUN", "Sun 2026-11-22 00:00"),
        ("0 0 * * fri-mon", "Sun 2026-11-22 00:00"),
        ("0 0 29 2 *", "Tue 2028-02-29 00:00"),
        ("0 0 13 * 5", "Fri 2026-11-27 00:00"),  # the 13th, or a Friday
        ("@daily", "Sun 2026-11-22 00:00"),
        ("@Yearly", "Fri 2027-01-01 00:00"),
        ("15,45 4 * * *", "Sat 2026-11-21 04:45"),
    ],
)
def test_an_expression_means_what_crontab_means(expression: str, due: str) -> None:
    assert next_of(expression) == [due]


def test_either_day_will_do_where_both_are_given() -> None:
    assert next_of("0 0 13 * 5", count=4)[2:] == ["Fri 2026-12-11 00:00", "Sun 2026-12-13 00:00"]


def test_the_hour_that_comes_twice_is_not_an_endless_one() -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert next_of("30 2 * * *", "Europe/Berlin", 3, start) == [
        "Sun 2026-10-25 00:30", "Sun 2026-10-25 01:30", "Mon 2026-10-26 01:30"
    ]  # fmt: skip


def test_what_is_left_out_comes_as_much_later() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert next_of("30 2 * * *", "Europe/Berlin", 2, start) == ["Sun 2026-03-29 01:30", "Mon 2026-03-30 00:30"]
    assert next_of("0 * * * *", "Europe/Berlin", 2, start + timedelta(hours=12)) == [
        "Sun 2026-03-29 01:00", "Sun 2026-03-29 02:00"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "due"),
    [
        ("@monthly", "Europe/Berlin", datetime(2026, 3, 1), "Tue 2026-03-31 22:00"),
        ("0 0 * * 1", "Europe/Berlin", datetime(2026, 3, 23), "Sun 2026-03-29 22:00"),
        ("0 0 1 * *", "America/New_York", datetime(2026, 3, 2), "Wed 2026-04-01 04:00"),
        ("0 0 1 11 *", "America/New_York", datetime(2026, 10, 2), "Sun 2026-11-01 04:00"),
        ("30 0 4 10 *", "Australia/Lord_Howe", datetime(2026, 5, 2), "Sat 2026-10-03 14:00"),
    ],
)
def test_a_night_of_changed_clocks_takes_no_tick(expression: str, timezone: str, start: datetime, due: str) -> None:
    assert next_of(expression, timezone, 1, start.replace(tzinfo=UTC)) == [due]


@pytest.mark.parametrize(
    ("timezone", "start"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, 20)),
        ("Europe/Berlin", datetime(2026, 10, 24, 20)),
        ("America/St_Johns", datetime(2026, 3, 7, 20)),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 8)),
        ("Asia/Kolkata", datetime(2026, 12, 30, 8)),
    ],
)
@pytest.mark.parametrize(
    ("expression", "hours", "minutes"),
    [
        ("*/20 * * * *", range(24), range(0, 60, 20)),
        ("5,35 0-1,3-23/2 * * *", [0, *range(1, 2), *range(3, 24, 2)], [5, 35]),
        ("0 0,22 * * *", [0, 22], [0]),
    ],
)
def test_a_clock_on_the_wall_shows_each_tick(
    expression: str, hours: Sequence[int], minutes: Sequence[int], timezone: str, start: datetime
) -> None:
    zone, start = ZoneInfo(timezone), start.replace(tzinfo=UTC)
    shown = [(start + minute * MINUTE, (start + minute * MINUTE).astimezone(zone)) for minute in range(1, 3000)]
    wanted = [moment for moment, wall in shown if wall.hour in hours and wall.minute in minutes]
    cron, found, moment = Cron(expression, timezone), [], start
    for _ in wanted:
        moment = cron.next_after(moment)
        found.append(moment)
    assert found == wanted


@pytest.mark.parametrize(
    ("expression", "timezone", "path"),
    [
        ("* * * *", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("*/0 * * * *", "UTC", "cron"),
        ("0 0 30 2 *", "UTC", "cron"),
        ("0 0 * * 8", "UTC", "cron"),
        ("0 0 * * xyz", "UTC", "cron"),
        ("0 0 * * */0", "UTC", "cron"),
        ("* * * * " + "*" * 500, "UTC", "cron"),
        ("", "UTC", "cron"),
        ("* * * * *", "Mars/Olympus", "timezone"),
        ("* * * * *", "../../etc/passwd", "timezone"),
        ("* * * * *", "", "timezone"),
        ("* * * * *", "localtime", "timezone"),
        ("* * * * *", "right/UTC", "timezone"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: str, timezone: str, path: str) -> None:
    with pytest.raises(BadCron) as fault:
        Cron(expression, timezone)
    assert fault.value.path == path


@given(st.text(alphabet="0123456789*/,-adefhmnorstu ", max_size=30))
def test_no_text_does_harm(text: str) -> None:
    try:
        due = Cron(text, "Europe/Berlin").next_after(NOW)
    except BadCron:
        return
    assert due > NOW and due.second == 0


def each_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) + MINUTE


def test_what_is_due_is_fired_and_what_is_late_is_missed() -> None:
    grace = timedelta(seconds=60)
    assert plan_ticks(NOW + MINUTE, NOW, each_minute, grace) is None

    due = plan_ticks(NOW, NOW + timedelta(seconds=2), each_minute, grace)
    assert due is not None
    assert (due.fire, due.missed, due.next_at) == (NOW, (), NOW + MINUTE)

    due = plan_ticks(NOW, NOW + timedelta(minutes=3, seconds=5), each_minute, grace)
    assert due is not None
    assert (due.fire, due.missed) == (NOW + 3 * MINUTE, (NOW, NOW + MINUTE, NOW + 2 * MINUTE))

    due = plan_ticks(NOW, NOW + timedelta(hours=3), lambda tick: tick + timedelta(days=1), grace)
    assert due is not None
    assert (due.fire, due.missed, due.next_at) == (None, (NOW,), NOW + timedelta(days=1))


def test_a_year_without_a_controller_is_told_briefly() -> None:
    now = NOW + timedelta(days=365, seconds=5)
    due = plan_ticks(NOW, now, each_minute, timedelta(seconds=60))
    assert due is not None
    assert due.fire == NOW + timedelta(days=365)
    assert len(due.missed) <= MOST_TICKS + 2
    assert due.next_at == due.fire + MINUTE


def test_a_tick_starts_one_run() -> None:
    one, other = new_id(), new_id()
    run = run_of_tick(one, NOW)
    assert is_id(run)
    assert run == run_of_tick(one, NOW.astimezone())
    assert len({run, run_of_tick(other, NOW), run_of_tick(one, NOW + MINUTE)}) == 3
    assert run < run_of_tick(one, NOW + MINUTE)
    assert run[:13] <= new_id()[:13] or datetime.now(UTC) < NOW
