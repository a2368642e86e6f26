"""A run over time in plain characters, and what commands make of a plan's text and faults."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_cli.commands.plans import fault_line
from proctor_cli.commands.runs import called_line, values_line
from proctor_cli.gantt import draw
from proctor_cli.render import cells, padded, table

START = datetime(2026, 12, 1, tzinfo=UTC)


def at(seconds: float | None) -> str | None:
    return None if seconds is None else (START + timedelta(seconds=seconds)).isoformat()


def row(
    step: str, begin: float | None, end: float | None, result: str | None = "passed", **more: Any
) -> dict[str, Any]:
    values = {
        "id": step, "step": step, "instance": "", "attempt": 1, "result": result, "waiting_for": None,
        "state": "finished" if result else "pending", "started_at": at(begin), "finished_at": at(end),
    }  # fmt: skip
    return {**values, **more}


RUN = {"started_at": at(0), "created_at": at(0), "finished_at": at(100)}


def test_bars_stand_where_the_steps_were(capsys: pytest.CaptureFixture[str]) -> None:
    draw(
        RUN,
        [
            row("build", 0, 50),
            row("flaky", 50, 60, "failed"),
            row("flaky", 70, 100, attempt=2),
            row("later", None, None, None, waiting_for="a slot\x1b[2J on h1", instance="x"),
        ],
    )
    head, build, flaky, later = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "0100.00" or "1 m 40 s" in head
    room = build.count("#") * 2 - 2
    assert build.startswith("build") and build.endswith("50.00 s  passed")
    assert flaky.endswith("30.00 s  passed  attempt 2")
    bars = flaky[10 : 10 + room]
    assert bars.index("#") == pytest.approx(room / 2, abs=1)
    assert bars.index("=") == pytest.approx(room * 0.7, abs=1)
    assert later.startswith("later[x]") and "#" not in later
    assert "\x1b" not in later and "waits" not in later and "a slot" in later


def test_wide_characters_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    draw(RUN, [row("m", 0, 100, instance="w=测试"), row("plain", 0, 100), row("长" * 40, 0, 100)])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len({cells(line[: line.index("#")]) for line in lines}) == 1
    assert lines[2].startswith("长长长") and "…" in lines[2]
    table(["name", "n"], [["测试", 1], ["plain", 2]])
    _, *rows = capsys.readouterr().out.splitlines()
    assert [cells(line[:-1]) for line in rows] == [7, 7]
    assert (cells("e\u0301"), padded("测试", 3), padded("ab", 4)) == (1, "测…", "ab  ")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_broken_on_a_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    long = row("later", None, None, None, waiting_for="the run to come to its on_failure steps" * 3)
    draw(RUN, [row("a-step-of-a-rather-long-name", 0, 60, instance="w=测试"), long, row("flaky", 0, 9, attempt=2)])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert all(cells(line) <= width for line in lines), lines
    assert "█" in lines[1] and "the run" in lines[2]


def test_what_still_runs_has_an_open_end(capsys: pytest.CaptureFixture[str]) -> None:
    run = {"started_at": datetime.now(UTC).isoformat(), "created_at": at(0), "finished_at": None}
    draw(run, [row("a", None, None, None, started_at=run["started_at"], state="running")])
    assert ">" in capsys.readouterr().out.splitlines()[1]


def test_a_run_that_never_began_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    draw({"started_at": None, "created_at": at(0), "finished_at": at(0)}, [])
    assert capsys.readouterr().out.count("\n") == 1


def test_faults_are_told_as_editors_read_them() -> None:
    fault = {"line": 4, "column": 3, "path": "steps.a", "message": "no such plugin"}
    assert fault_line("p.yaml", fault) == "p.yaml:4:3: steps.a: no such plugin"
    assert fault_line("p.yaml", {"message": "is empty", "path": "", "line": None}) == "p.yaml: is empty"


@pytest.mark.parametrize(
    ("webhook", "told"),
    [
        ({"state": "waiting", "tries": 0, "next_at": at(0)}, "not taken yet"),
        ({"state": "taken", "tries": 1, "status": 204}, "taken after 1 try"),
        (
            {"state": "waiting", "tries": 2, "status": 500, "reason": "answered 500", "next_at": "T"},
            "not taken yet after 2 tries: answered 500 (again at T)",
        ),
        ({"state": "given_up", "tries": 3, "reason": "gone"}, "given up after 3 tries: gone"),
    ],
)
def test_what_became_of_a_webhook(webhook: dict[str, Any], told: str) -> None:
    assert called_line({"status": None, "reason": "", "next_at": None, **webhook}) == told


def test_outputs_in_a_line() -> None:
    assert values_line({"a": "x y", "b": [1, None], "c": {"d": True}}) == 'a=x y  b=[1, null]  c={"d": true}'
    assert values_line({"a": "x" * 100}, 20).endswith("…")
