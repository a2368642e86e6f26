"""What people type and read: names for ids, times as durations, reasons counted, methods explained."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_cli.commands.agents import parameter_lines
from proctor_cli.commands.results import refusal_lines
from proctor_cli.faults import Usage
from proctor_cli.inputs import read_moment
from proctor_cli.naming import find_named, short_id

ONE, TWO = "01a22eeb-2d57-7564-a3af-d68c271e5e03", "01a22eeb-2d57-7564-a3af-d68c271e5e04"
ROWS = [{"id": ONE, "name": "twin"}, {"id": TWO, "name": "twin"}, {"id": "x" * 36, "name": "ci"}]


@pytest.mark.parametrize("word", ["ci", "x" * 36, "x" * 12])
def test_a_thing_is_found_by_name_and_id(word: str) -> None:
    assert find_named(ROWS, word, "token") == ROWS[2]


def test_twins_are_asked_for_by_id() -> None:
    with pytest.raises(Usage, match=f"2 VNFs are called twin: name one by its id: {ONE}, {TWO}"):
        find_named(ROWS, "twin", "VNF")
    assert find_named(ROWS, short_id(TWO), "VNF")["id"] == TWO


@pytest.mark.parametrize("word", ["", "5e03", "nobody"])
def test_what_is_not_there(word: str) -> None:
    with pytest.raises(Usage, match=f"no such token: {word}"):
        find_named(ROWS, word, "token")


def test_a_time_may_be_a_duration() -> None:
    def off(moment: str, expected: datetime) -> float:
        return abs((datetime.fromisoformat(moment) - expected).total_seconds())

    now = datetime.now(UTC)
    assert off(read_moment("1h", "--since"), now - timedelta(hours=1)) < 10
    assert off(read_moment("1.5d", "--expires", ahead=True), now + timedelta(days=1.5)) < 10
    assert read_moment("2026-12-01T08:00:00Z", "--since") == "2026-12-01T08:00:00+00:00"
    assert read_moment("2026-12-01", "--since") == "2026-12-01T00:00:00+00:00"


@pytest.mark.parametrize("text", ["", "yesterday", "1y", "-1h", "999999999999d", "12", "2026-13-01"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(Usage, match="--since: neither a time nor a duration"):
        read_moment(text, "--since")


def refusals(*messages: str, refused: int = 0) -> dict[str, Any]:
    errors = [{"line": n, "message": message} for n, message in enumerate(messages, 1)]
    return {"errors": errors, "refused": refused or len(errors)}


def test_a_reason_is_told_once_with_its_count() -> None:
    report = refusals("no such pod: a", "no such pod: a", "bad", "no such pod: a", refused=9)
    told = ["line 1 and 2 more: no such pod: a", "line 3: bad", "5 more were refused that are not listed"]
    assert refusal_lines(report, declare=True) == told
    declares = "--declare declares the pods, projects and test cases that are missing"
    assert refusal_lines(report, declare=False) == [*told, declares]
    assert refusal_lines(refusals("bad"), declare=False) == ["line 1: bad"]


def test_a_methods_parameters_in_words() -> None:
    schema = {
        "required": ["command"],
        "properties": {
            "args": {"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}], "default": None},
            "mode": {"enum": ["a", "b"], "default": "a", "description": "how\nto"},
            "command": {"type": "string", "description": "a program"},
            "any": {},
        },
    }
    assert parameter_lines(schema) == [
        "command: string (required): a program",
        "args: string | array",
        'mode: "a" | "b" = "a": how to',
        "any: any",
    ]
