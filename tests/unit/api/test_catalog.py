"""The Test API's reading of dates, queries, bodies and lines: rules without a database."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from proctor_api.catalog.dates import NEVER, creation_date, read_date
from proctor_api.catalog.fields import is_record_id, new_record_id, refuse_infinite
from proctor_api.catalog.queries import ResultQuery, read_query
from proctor_api.catalog.record import CatalogRecord, named
from proctor_api.catalog.results import read_result
from proctor_api.catalog.sent import Dropped, trust_sent
from proctor_api.catalog.transfer import lines_of
from proctor_api.routes.testapi.base import pairs_of
from proctor_api.settings import ApiSettings
from proctor_common.errors import ProctorError

NOW = datetime(2026, 11, 21, 5, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def query(text: str = "", groups: list[str] | None = None) -> ResultQuery:
    pairs = [(part.partition("=")[0], part.partition("=")[2]) for part in text.split("&") if part]
    return read_query(pairs, NOW, UTC, groups)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-05-28 14:41:58", "2016-05-28T12:41:58+00:00"),
        ("2016-05-28 14:41:58.384", "2016-05-28T12:41:58.384000+00:00"),
        ("2016-05-28T14:41:58.384Z", "2016-05-28T14:41:58.384000+00:00"),
        ("2016-05-28T14:41:58-05:00", "2016-05-28T19:41:58+00:00"),
        ("2016-05-28T14:41:58 02:00", "2016-05-28T12:41:58+00:00"),
        ("2016-01-28", "2016-01-27T23:00:00+00:00"),
        ("2016-01-28 14:41", "2016-01-28T13:41:00+00:00"),
        ("  2016-01-28 ", "2016-01-27T23:00:00+00:00"),
    ],
)
def test_a_date_in_each_of_its_spellings(text: str, expected: str) -> None:
    found = read_date(text, BERLIN)
    assert found is not None
    assert found.isoformat() == expected


@pytest.mark.parametrize(
    "text", [None, "", "x", "20160528", "2016-W01", "2016-13-01", "1899-12-31", "9999-01-01", "1" * 65, "2016-05-28x"]
)
def test_what_is_no_date(text: str | None) -> None:
    assert read_date(text, UTC) is None


@given(st.text(max_size=70))
def test_no_text_breaks_the_reading_of_dates(text: str) -> None:
    found = read_date(text, BERLIN)
    assert found is None or found.tzinfo is UTC


def test_ids_are_24_hex_digits_and_sort_by_time() -> None:
    made = [new_record_id(NOW + timedelta(seconds=second)) for second in range(50)]
    assert all(is_record_id(each) for each in made)
    assert made == sorted(set(made))
    assert creation_date(NOW, BERLIN) == "2026-11-21 06:00:00.000000"


def test_a_query_says_its_conditions_with_values_apart() -> None:
    found = query("project=a&installer=b' OR true&trust_indicator=0.5&last=3&descend=FALSE")
    where, values = found.where()
    assert where == "project_name = $1 AND installer = $2 AND trust_indicator = $3"
    assert values == ["a", "b' OR true", 0.5]
    assert (found.last, found.order, found.page) == (3, "start_at, id", None)


def test_a_query_goes_on_behind_a_place() -> None:
    where, values = query("to=2026-01-01", groups=["g"]).where((NOW, "id"))
    assert where == (
        "start_at < $1 AND start_at > '-infinity' AND owner_group = ANY($2::text[]) AND (start_at, id) < ($3, $4)"
    )
    assert values == [datetime(2026, 1, 1, tzinfo=UTC), ["g"], NOW, "id"]


@pytest.mark.parametrize(
    "text", ["nobody=1", "trust_indicator=x", "trust_indicator=nan", "id=1", "start_at=1", "size=1"]
)
def test_what_no_result_has_finds_none(text: str) -> None:
    assert query(text).where()[0] == "false"


@pytest.mark.parametrize(("text", "days"), [("period=1", 1), ("period=7&from=2026-01-01", 7)])
def test_a_period_begins_days_ago(text: str, days: int) -> None:
    assert query(text).since == NOW - timedelta(days=days)


def test_periods_out_of_range() -> None:
    assert query("period=0").since is None
    assert query("period=-5").since is None
    for text in ("period=999999", f"period={'9' * 30}"):
        since = query(text).since
        assert since is not None
        assert since > NEVER


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_parameter_is_a_condition_or_a_refusal(name: str, value: str) -> None:
    with suppress(ProctorError):
        where, values = read_query([(name, value)], NOW, UTC, None).where()
        assert where.count("$") == len(values)


@pytest.mark.parametrize(("value", "kept"), [(None, 0), (-3, 0), (0.3, 0.3), (1, 1), (10**30, 1)])
def test_trust_is_held(value: Any, kept: float) -> None:
    assert trust_sent({"trust_indicator": value}, Dropped()) == kept


def test_numbers_beyond_float_are_found_wherever_they_are() -> None:
    refuse_infinite({"a": [1, 2.5, {"b": 10**300}], "c": True})
    for wrong in (float("inf"), [float("nan")], {"a": {"b": [-(10**309)]}}):
        with pytest.raises(ProctorError):
            refuse_infinite(wrong)


def test_a_record_says_what_has_changed() -> None:
    record = CatalogRecord("i", "a", {"description": "x"}, "d")
    assert record.changed({"description": "y", "name": "b"}).view(("description",)) == {
        "_id": "i",
        "name": "b",
        "description": "y",
        "creation_date": "d",
    }
    for nothing in ({}, {"name": "a"}, {"description": "x"}, {"url": None}):
        with pytest.raises(ProctorError):
            record.changed(dict(nothing))


@given(st.text(max_size=40))
def test_any_pattern_finds_or_is_refused(pattern: str) -> None:
    records = [CatalogRecord("i", "a" * 255, {}, "d")]
    with suppress(ProctorError):
        assert named(records, pattern) in ([], records)


def test_a_result_keeps_its_dates_as_they_are() -> None:
    body = {
        "pod_name": "p",
        "project_name": "q",
        "case_name": "c",
        "start_date": "yesterday",
        "details": {"b": 1, "a": 2},
    }
    result = read_result(body, NOW, UTC, Dropped())
    assert (result.texts["start_date"], result.start_at, result.details) == ("yesterday", NEVER, '{"b":1,"a":2}')


@given(st.lists(st.binary(max_size=20).map(lambda each: each.replace(b"\n", b"")), max_size=8), st.integers(1, 9))
async def test_lines_are_found_however_the_stream_is_cut(lines: list[bytes], size: int) -> None:
    whole = b"\n".join(lines)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    found = [(number, line) async for number, line in lines_of(chunks(), 100)]
    assert found == [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ({}, "http://127.0.0.1:8774"),
        ({"http": "[::1]:9000"}, "http://[::1]:9000"),
        ({"http": "0.0.0.0:8774", "allow_plaintext": True}, ""),
        (
            {"http": "0.0.0.0:8774", "allow_plaintext": True, "public_url": "https://p.example.org/"},
            "https://p.example.org",
        ),
    ],
)
def test_links_begin_with_an_address_that_somebody_can_open(given: dict[str, Any], base: str) -> None:
    assert ApiSettings(database_url="postgresql:///x", **given).link_base == base


@given(st.text(alphabet="ab=&+%2041;é ", max_size=30))
def test_a_query_is_split_as_the_framework_splits_it(text: str) -> None:
    scope = {"type": "http", "query_string": text.encode("utf-8"), "headers": []}
    request = Request(scope)
    assert pairs_of(request) == request.query_params.multi_items()
