"""Output in a terminal: tables, states, log lines. Data goes to standard output, messages to standard error."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import Any, TextIO

from proctor_common.terminal_text import TerminalText

Stream = tuple[str, int, str]
"""Step, attempt and source of a text."""

RESULT_STYLES = {
    "passed": "green",
    "failed": "red",
    "error": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "rejected": "red",
    "lost": "red",
    "running": "cyan",
    "online": "green",
    "suspect": "yellow",
}

_SGR = re.compile("(\x1b\\[[0-9;:]*m)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """The text without anything that could command a terminal: control and direction characters are shown as
    \\xNN.
    """
    return _CONTROL.sub(
        lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text.replace("\r\n", "\n")
    )


def cells(text: str) -> int:
    """How many columns a terminal needs for the text: two for East Asian characters, none for accents."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def padded(text: str, width: int) -> str:
    """The text in exactly ``width`` columns: filled with blanks, or cut with an ellipsis."""
    if cells(text) > width:
        while text and cells(text) >= width:
            text = text[:-1]
        text += "\u2026"
    return text + " " * (width - cells(text))


def shortened(text: str, most: int) -> str:
    """The text in at most ``most`` columns; cut with an ellipsis."""
    return padded(text, most).rstrip()


def talk(line: str, *, style: str | None = None) -> None:
    """One message line on standard error, coloured on a terminal only and without control characters."""
    line = harmless(line)
    if style and sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(line, style=style))
    else:
        print(line, file=sys.stderr, flush=True)


def verdict(name: str, result: str, reason: str, seconds: float | None) -> None:
    """The last line of a followed run: how it ended."""
    mark = "\u2713" if result == "passed" else "\u2717"
    took = f" in {duration(seconds)}" if seconds is not None else ""
    why = f": {reason}" if reason and result != "passed" else ""
    talk(f"{mark} {name} {result}{took}{why}", style=RESULT_STYLES.get(result))


def duration(seconds: float) -> str:
    """Seconds in a readable form: ``0.42 s``, ``3 m 05 s``, ``2 h 10 m``."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds between two timestamps of the api; None for ``end``: now."""
    if start is None:
        return None
    last = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return max(0.0, (last - datetime.fromisoformat(start)).total_seconds())


def ago(moment: str | None) -> str:
    """How long ago a timestamp of the api is."""
    past = seconds_between(moment, None)
    if past is None:
        return "never"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if past >= 2 * size:
            return f"{past / size:.0f} {unit} ago"
    return f"{past:.0f} s ago"


def as_json(document: Any, out: TextIO | None = None) -> None:
    """A document as JSON on standard output: indented on a terminal, one line for a pipe."""
    out = out or sys.stdout
    print(json.dumps(document, indent=2 if out.isatty() else None, ensure_ascii=False), file=out)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under headings: with colours on a terminal, plain aligned columns elsewhere."""
    shown = [[harmless("" if cell is None else str(cell)).replace("\n", " ") for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, shown)
        return
    lines = [[column.upper() for column in columns], *shown]
    widths = [max(cells(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=RESULT_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(drawn)


class LogPrinter:
    """Prints tail frames: lines as a terminal would have shown them, each with its step's name if the run has several.

    On a terminal colours are kept, and a line that has no end yet is shown as it stands; elsewhere whole lines are
    printed. ``raw``: the text as it came.
    """

    def __init__(self, *, timestamps: bool = False, raw: bool = False, steps: bool = False) -> None:
        self._timestamps = timestamps
        self._raw = raw
        self._steps = steps
        self._is_terminal = sys.stdout.isatty()
        self._texts: dict[Stream, TerminalText | _Lines] = {}
        self._prefixes: dict[Stream, str] = {}
        self._midst: Stream | None = None
        """Whose line has been begun on standard output and has no end yet."""
        self._live = ""
        """The line without an end that a terminal shows for now; it is wiped before anything else is printed."""

    def show(self, frame: dict[str, Any]) -> None:
        """Print a chunk or gap frame; others are ignored."""
        if frame["type"] == "gap":
            self.flush()
            talk(gap_line(frame), style="yellow")
        elif frame["type"] == "chunk":
            stream = (frame["step"], frame["attempt"], "" if self._raw else frame.get("source", ""))
            self._prefixes[stream] = self._prefix(frame)
            text = self._texts.setdefault(stream, _Lines() if self._raw else TerminalText(colours=self._is_terminal))
            self._print(stream, text.feed(frame["text"]))
            if self._is_terminal and not self._raw and not self._prefixes[stream]:
                self._show_live(text.begun)
            sys.stdout.flush()

    def stand_back(self) -> None:
        """End or wipe a line that has been begun, for somebody else's line."""
        self._show_live("")
        if self._midst is not None:
            sys.stdout.write("\n")
            self._midst = None
        sys.stdout.flush()

    def flush(self) -> None:
        """Print the lines that have no end yet."""
        for stream, text in self._texts.items():
            self._print(stream, text.close())
            if self._midst == stream:
                self.stand_back()
        self._texts.clear()
        self.stand_back()

    def _print(self, stream: Stream, text: str) -> None:
        if not text:
            return
        self._show_live("")
        if self._midst not in (None, stream):
            sys.stdout.write("\n")
        begun = self._midst == stream
        for line in _with_ends(text if self._raw else _harmless_but_colours(text)):
            sys.stdout.write(line if begun else self._prefixes[stream] + line)
            begun = not line.endswith("\n")
        self._midst = stream if begun else None

    def _show_live(self, line: str) -> None:
        if self._live and line != self._live:
            sys.stdout.write("\r\x1b[K")
        if line and line != self._live and self._midst is None:
            sys.stdout.write(harmless(shortened(_SGR.sub("", line), get_terminal_size().columns - 1)))
        self._live = line

    def _prefix(self, frame: dict[str, Any]) -> str:
        prefix = f"{frame['time']} " if self._timestamps else ""
        if self._steps:
            attempt = f"#{frame['attempt']}" if frame["attempt"] > 1 else ""
            prefix += f"{harmless(frame['step'])}{attempt} | "
        return prefix


class _Lines:
    """Text as it came: at once if it stands alone, whole lines behind a prefix."""

    begun = ""

    def feed(self, piece: str) -> str:
        return piece

    def close(self) -> str:
        return ""


def _with_ends(text: str) -> list[str]:
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def _harmless_but_colours(text: str) -> str:
    """What is left after TerminalText commands no terminal but its colours; direction characters are shown."""
    return "".join(part if at % 2 else harmless(part) for at, part in enumerate(_SGR.split(text)))


def gap_line(frame: dict[str, Any]) -> str:
    """A gap as a sentence."""
    words = {
        "expired": "are no longer kept",
        "lost": "were lost",
        "limit": "are over the limit of an attempt's log",
        "spool_full": "did not fit the agent's spool",
    }
    size = f"{frame['bytes']} bytes" if frame.get("bytes") else "some lines"
    return f"[{frame['step']}: {size} of the log {words.get(frame['reason'], 'are missing')}]"
