"""The cursor as text: what it survives, what it refuses, how long it gets."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_api.logs.cursor import MAX_LINE, MAX_SEQ, MAX_TEXT, OPEN_LIMIT, BadCursor, Cursor, binding, decode, encode

BOUND = binding("run-1", None)
places = st.dictionaries(
    st.integers(1, 20_000), st.tuples(st.integers(1, MAX_SEQ), st.integers(1, MAX_LINE)), max_size=OPEN_LIMIT
)


@given(st.integers(1, 2**62), st.integers(0, 2**50), places)
def test_it_comes_back_as_it_was(base: int, event: int, open_: dict[int, tuple[int, int]]) -> None:
    cursor = Cursor(base, event, max(open_, default=0), open_)
    text = encode(cursor, BOUND)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert decode(text, BOUND) == cursor


def test_the_longest_one_is_within_4_kib() -> None:
    numbers = [*range(20_000 - OPEN_LIMIT + 1, 20_001)]
    cursor = Cursor(2**62, 2**50, 20_000, {number: (MAX_SEQ, MAX_LINE) for number in numbers})
    assert len(encode(cursor, BOUND)) <= MAX_TEXT


def test_one_of_another_run_or_step_is_refused() -> None:
    text = encode(Cursor(5, 1, 1, {1: (2, 3)}), BOUND)
    for other in (binding("run-2", None), binding("run-1", "build")):
        with pytest.raises(BadCursor, match="another"):
            decode(text, other)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        decode(text, BOUND)


@given(st.binary(max_size=60))
def test_no_bytes_behind_the_binding_do_more_than_be_refused(data: bytes) -> None:
    import base64

    text = base64.urlsafe_b64encode(b"\x01" + BOUND + data).rstrip(b"=").decode()
    try:
        decode(text, BOUND)
    except BadCursor:
        return


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(BadCursor):
        decode("A" * (MAX_TEXT + 1), BOUND)
