"""Durations as people write them."""

import pytest

from proctor_common.durations import read_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1.5h", 5400.0), ("200ms", 0.2), ("30d", 2_592_000.0), ("0", 0.0), ("9" * 12, 999_999_999_999.0)],
)
def test_a_number_with_or_without_a_unit_is_so_many_seconds(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1 h", "-1", "1.", ".5", "1w", "1e3", "0.1234567", "9" * 13, "1s\n", "²"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert read_duration(text) is None
