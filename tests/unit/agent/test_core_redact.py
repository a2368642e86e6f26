"""Masking secrets: however a stream is cut, whatever overlaps, in documents and texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_agent.log.redact import Redactor

SMALL = st.text(alphabet="ab\n", max_size=30)
SECRETS = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=3)


def through_stream(redactor: Redactor, parts: list[bytes]) -> bytes:
    stream = redactor.stream()
    return b"".join(stream.feed(part) for part in parts) + stream.flush()


@given(SMALL, SECRETS, st.lists(st.integers(0, 6), max_size=20))
def test_the_cuts_make_no_difference(text: str, secrets: list[str], sizes: list[int]) -> None:
    data = text.encode()
    parts, rest = [], data
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    redactor = Redactor(secrets)
    assert through_stream(redactor, [*parts, rest]) == redactor.data(data)


@given(SMALL, SECRETS)
def test_exactly_the_bytes_of_secrets_are_masked(text: str, secrets: list[str]) -> None:
    hidden = [False] * len(text)
    for secret in secrets:
        for at in range(len(text) - len(secret) + 1):
            if text.startswith(secret, at):
                hidden[at : at + len(secret)] = [True] * len(secret)
    masked = Redactor(secrets).text(text)
    assert masked.replace("***", "") == "".join(char for char, hide in zip(text, hidden, strict=True) if not hide)
    assert ("***" in masked) == any(hidden)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_secret_cut_into_pieces_is_masked(size: int) -> None:
    secret = "pa$$wörd-€"
    data = f"login {secret} ok, {secret}{secret}\n".encode()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    assert through_stream(Redactor([secret]), parts) == b"login *** ok, ******\n"


def test_what_only_begins_like_a_secret_comes_out() -> None:
    stream = Redactor(["secret"]).stream()
    assert stream.feed(b"my sec") == b"my "
    assert stream.feed(b"ond") == b"second"
    assert stream.feed(b"se") == b""
    assert stream.flush() == b"se"


def test_a_run_of_overlaps_is_not_held_for_ever() -> None:
    stream = Redactor(["aa"]).stream()
    held = sum(len(stream.feed(b"a" * 1000)) for _ in range(100))
    assert held <= 10
    assert len(stream._held) <= 2


def test_other_spellings_of_a_secret() -> None:
    redactor = Redactor(['say "hi"\\now', "-----BEGIN KEY-----\nline-one-of-it\nx\n-----END KEY-----"])
    assert redactor.text('{"a": "say \\"hi\\"\\\\now"}') == '{"a": "***"}'
    assert redactor.text("> line-one-of-it\r\n") == "> ***\r\n"
    assert redactor.text("x") == "x"


def test_documents() -> None:
    redactor = Redactor(["hunter2", "4711"])
    shown = redactor.document({"a": ["x hunter2", {"hunter2": 4711, "b": 47110, "c": True, "d": None}], "e": 1.5})
    assert shown == {"a": ["x ***", {"***": "***", "b": 47110, "c": True, "d": None}], "e": 1.5}


def test_a_text_that_was_cut_through_a_secret() -> None:
    secret = "correct-horse-battery"
    redactor = Redactor([secret])
    middle = "x" * 300
    assert redactor.document({"stdout": f"battery {middle} {secret} {middle} correct-h"}) == {
        "stdout": f"*** {middle} *** {middle} ***"
    }
    assert redactor.extract(f"ery{middle}cor") == f"ery{middle}cor"
    assert redactor.extract("a correct-h") == "a correct-h"
    assert redactor.extract(secret * 20) == "***" * 20


def test_without_secrets_nothing_is_touched() -> None:
    data = b"bytes"
    assert Redactor([""]).stream().feed(data) is data


def test_it_is_linear() -> None:
    redactor = Redactor(["a" * 2000 + "b", "ab" * 500 + "c"])
    data = b"a" * 2_000_000
    begun = time.process_time()
    assert through_stream(redactor, [data[at : at + 65536] for at in range(0, len(data), 65536)]) == data
    assert time.process_time() - begun < 5
