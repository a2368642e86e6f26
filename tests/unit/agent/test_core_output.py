"""What an end may carry: at most 64 KiB of JSON, the end of the texts, nothing that JSON cannot hold."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proctor_agent.attempts.output import CUT, fit, shorten
from proctor_common.limits import MAX_OUTPUT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


@given(st.dictionaries(st.text(st.characters()), VALUES, max_size=5), st.integers(200, 3000), st.integers(0, 5000))
def test_it_always_fits(output: dict[str, Any], most: int, blow: int) -> None:
    output = {**output, "stdout": 'x"é' * blow}
    shown = fit(output, most)
    assert size(shown) <= most or set(shown) <= {"truncated"}
    if size(output) <= most:
        assert shown == output


def test_stdout_loses_its_beginning_and_the_rest_stays() -> None:
    output = {"exit_code": 0, "stderr_last_line": "e" * 3000, "stdout": '"' * 60_000 + "the end"}
    shown = fit(output)
    assert shown["stdout"].startswith(CUT)
    assert shown["stdout"].endswith('"the end')
    assert (shown["exit_code"], shown["stderr_last_line"]) == (0, "e" * 3000)
    assert MAX_OUTPUT - 100 < size(shown) <= MAX_OUTPUT


def test_what_cannot_be_cut_is_left_out_and_named() -> None:
    shown = fit({"rows": list(range(50_000)), "ok": True})
    assert shown == {"ok": True, "truncated": ["rows"]}


def test_half_characters_become_whole() -> None:
    shown = fit({"a\ud800": ["\udfff", {"b": "c\ud800"}]})
    assert shown == {"a?": ["?", {"b": "c?"}]}
    assert shorten("x\ud800" * 10, 5) == "x?x …"
