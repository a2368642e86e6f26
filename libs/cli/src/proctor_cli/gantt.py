"""A run over time, one line for each step: coloured bars on a terminal, plain characters elsewhere."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proctor_cli.render import RESULT_STYLES, cells, duration, harmless, padded

PLAIN_WIDTH = 100
LEAST_BAR = 10
LEAST_LABEL = 10
MOST_LABEL = 40
NOTE = 20
"""Columns for the text after the bars: duration and result."""
GAPS = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt: its first and last column and its result ("" while it runs)."""

    first: int
    last: int
    result: str


@dataclass(frozen=True, slots=True)
class Line:
    """One step: its bars, and the text after them."""

    label: str
    bars: tuple[Bar, ...]
    note: str
    result: str


def draw(run: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> None:
    """Print the run; ``attempts``: its steps, one row for each attempt."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    longest = max([cells(_label(row)) for row in attempts], default=4)
    label = min(MOST_LABEL, longest, max(LEAST_LABEL, width // 3))
    room = max(LEAST_BAR, width - label - NOTE - GAPS)
    found = list(lines(run, attempts, room))
    total = _total(run)
    head = f"{' ' * label}  0{duration(total).rjust(room - 1)}"
    if terminal:
        # No line may wrap: `proctor show` without --gantt has each note in full.
        _draw_rich(head, found, label, room, max(1, width - label - room - GAPS))
        return
    print(head)
    for line in found:
        bar = _cells(line, room, "#", "=", ">")
        print(f"{padded(line.label, label)}  {bar}  {line.note}".rstrip())


def lines(run: dict[str, Any], attempts: Sequence[dict[str, Any]], room: int) -> Iterator[Line]:
    """The lines, in document order; ``room``: columns for the bars."""
    start, total = _start(run), _total(run)
    by_step: dict[str, list[dict[str, Any]]] = {}
    for row in attempts:
        by_step.setdefault(row["id"], []).append(row)
    for rows in by_step.values():
        bars = tuple(_bar(row, start, total, room) for row in rows if row["started_at"] is not None)
        yield Line(_label(rows[-1]), bars, _note(rows), rows[-1]["result"] or "")


def _bar(row: dict[str, Any], start: datetime, total: float, room: int) -> Bar:
    end = _moment(row["finished_at"]) or datetime.now(UTC)
    begin = _moment(row["started_at"]) or end
    first = int((begin - start).total_seconds() / total * room)
    last = int((end - start).total_seconds() / total * room)
    first = min(max(0, first), room - 1)
    return Bar(first, min(max(first, last), room - 1), row["result"] or "")


def _note(rows: Sequence[dict[str, Any]]) -> str:
    row = rows[-1]
    took = ""
    if row["started_at"] is not None:
        end = _moment(row["finished_at"]) or datetime.now(UTC)
        took = duration(max(0.0, (end - (_moment(row["started_at"]) or end)).total_seconds()))
    tries = f"attempt {row['attempt']}" if row["attempt"] > 1 else ""
    state = row["result"] or row["waiting_for"] or row["state"]
    return harmless("  ".join(part for part in (took, str(state), tries) if part))


def _label(row: dict[str, Any]) -> str:
    name = f"{row['step']}[{row['instance']}]" if row["instance"] else row["step"]
    return harmless(name)


def _start(run: dict[str, Any]) -> datetime:
    return _moment(run["started_at"]) or _moment(run["created_at"]) or datetime.now(UTC)


def _total(run: dict[str, Any]) -> float:
    end = _moment(run["finished_at"]) or datetime.now(UTC)
    return max(0.001, (end - _start(run)).total_seconds())


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _cells(line: Line, room: int, odd: str, even: str, open_end: str) -> str:
    columns = [" "] * room
    for number, bar in enumerate(line.bars):
        for column in range(bar.first, bar.last + 1):
            columns[column] = even if number % 2 else odd
        if not bar.result:
            columns[bar.last] = open_end
    return "".join(columns)


def _draw_rich(head: str, found: Sequence[Line], label: int, room: int, note: int) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(head, style="dim"))
    for line in found:
        text = Text(padded(line.label, label) + "  ")
        bar = _cells(line, room, "\u2588", "\u2593", "\u25b6")
        text.append(bar, style=RESULT_STYLES.get(line.result, "cyan"))
        text.append(f"  {padded(line.note, note).rstrip()}", style=RESULT_STYLES.get(line.result, ""))
        console.print(text)
