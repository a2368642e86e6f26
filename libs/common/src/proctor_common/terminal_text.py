r"""Text as a terminal would have shown it: in pieces of any size, in bounded memory and linear time. Pure.

Within a line the cursor is followed (``\r``, backspace, erasing, columns), so that of a progress bar its last state is
left. Colours (SGR) are dropped or kept; titles, links and all other commands are dropped. Lines that are done are never
taken back: what moves to another line begins a new one here, where there is text on this one.
"""

import re
from itertools import groupby

LONGEST_LINE = 16 * 1024
"""Characters of a line that can still be written over; what is longer is handed on, and stays."""
WIDEST = 256
"""Columns that a command may go beyond the end of a line."""
_LONGEST_STYLE = 128

_PLAIN = re.compile("[^\x00-\x08\x0b-\x1f\x7f-\x9f]*")
_TOKEN = re.compile(
    r"""
    (?P<text>[^\x00-\x08\x0a-\x1f\x7f-\x9f]+)
    | (?P<line>[\n\x0b\x0c\x85])
    | (?P<start>\r+)
    | (?P<back>[\b]+)
    | (?:\x1b\[|\x9b(?=[0-9;?]))(?P<given>[0-?]{0,256})(?P<between>[ -/]{0,8})(?P<final>[@-~])?
    | (?P<string>\x1b[\]PX^_]|\x9d(?=[0-9]{1,4};))
    | \x1b[ -/]{0,8}(?P<escape>[0-~])?
    | .
    """,
    re.VERBOSE,
)
r"""What a text is made of. The 8-bit introducers ``\x9b`` and ``\x9d`` are such only where a parameter follows:
elsewhere they are halves of letters that were decoded twice.
"""
_STRING_END = re.compile("\x07|\x1b\\\\|[\x18\x1a\x9c]|(?=[\x1b\n])")
"""Ends a title, a link or an image; the line's end does too, so that one without an end hides no other line."""
_CUT = re.compile(r"\x1b(?:[ -/]{0,8}|\[[0-?]{0,256}[ -/]{0,8})|\x9b(?:[0-?]{0,256}[ -/]{0,8})|\x9d[0-9]{0,4}")
"""A sequence that goes on in the next piece."""
_LONGEST_CUT = 300
_OTHER_LINE = frozenset("ABEFHdf")
_SGR = re.compile(r"[0-9;:]*\Z")
_RESET = "\x1b[0m"


class TerminalText:
    """Takes a text in pieces, gives its lines once they are done. ``colours``: keep SGR, a reset behind each run."""

    def __init__(self, *, colours: bool = False) -> None:
        self._colours = colours
        self._cut = ""
        self._in_string = False
        self._style = ""
        self._done: list[str] = []
        # The line: runs of (style, text) while it only grows; a cell a character once it is written over.
        self._runs: list[tuple[str, str]] = []
        self._cells: list[str] | None = None
        self._styles: list[str] = []
        self._length = 0
        self._column = 0
        self._handed_on = False

    def feed(self, piece: str) -> str:
        """The text that is done now: whole lines, each with its end, and the beginnings of very long ones."""
        text = self._cut + piece
        self._cut = ""
        tail = max(text.rfind(start, max(0, len(text) - _LONGEST_CUT)) for start in "\x1b\x9b\x9d")
        if tail >= 0 and _CUT.fullmatch(text, tail):
            text, self._cut = text[:tail], text[tail:]
        self._take(text)
        return self._taken()

    def close(self) -> str:
        """The rest: the line that was begun, without an end."""
        rest, self._cut = self._cut, ""
        self._take(rest)
        self._hand_on()
        self._handed_on = False
        return self._taken()

    @property
    def begun(self) -> str:
        """The line that is not done yet, as it stands; of a very long one what was not handed on."""
        return self._rendered()

    def _taken(self) -> str:
        done, self._done = "".join(self._done), []
        return done

    def _take(self, text: str) -> None:
        at = 0
        if self._in_string:
            at = self._skip_string(text, 0)
        elif not self._style and self._cells is None and self._column == self._length:
            # Most text holds no command: its lines are handed on as they are.
            plain = _PLAIN.match(text)
            at = plain.end() if plain else 0
            head, end, rest = text[:at].rpartition("\n")
            if end:
                self._hand_on()
                self._handed_on = False
                self._done.append(head + end)
            self._write(rest)
        while at < len(text):
            token = _TOKEN.match(text, at)
            assert token is not None
            at = token.end()
            kind = token.lastgroup
            if kind == "text":
                self._write(token[0])
            elif kind == "start":
                self._column = 0
            elif kind == "line":
                self._end_line()
            elif kind == "string":
                at = self._skip_string(text, at)
            elif kind == "final":
                self._command(token["final"], token["given"], token["between"])
            elif kind == "back":
                self._column = max(0, self._column - len(token[0]))
            elif kind == "escape" and token["escape"] in "DEM":
                self._leave_line()

    def _skip_string(self, text: str, at: int) -> int:
        end = _STRING_END.search(text, at)
        self._in_string = end is None
        return len(text) if end is None else end.end()

    def _command(self, final: str, given: str, between: str) -> None:
        if final == "m":
            if self._colours and not between and _SGR.match(given):
                self._set_style(given)
            return
        number = _number(given)
        if final in {"K", "J"}:
            self._erase(number or 0)
        elif final in _OTHER_LINE:
            self._leave_line()
        elif final in {"C", "a"}:
            self._go_to(self._column + (number or 1))
        elif final == "D":
            self._go_to(self._column - (number or 1))
        elif final in {"G", "`"}:
            self._go_to((number or 1) - 1)

    def _set_style(self, given: str) -> None:
        sequence = f"\x1b[{given}m"
        if not given.strip("0"):
            self._style = ""
        elif given.startswith("0;"):
            self._style = sequence
        else:
            style = self._style.replace(sequence, "") + sequence
            self._style = style if len(style) <= _LONGEST_STYLE else sequence

    def _go_to(self, column: int) -> None:
        self._column = min(max(0, column), max(self._length, WIDEST))

    def _erase(self, mode: int) -> None:
        """0: from the cursor on; else the whole line, of a part before the cursor only where nothing follows it."""
        if mode == 1 and self._column < self._length:
            return
        keep = self._column if mode == 0 else 0
        if keep < self._length and self._handed_on:
            self._end_line()
        elif keep < self._length:
            del self._as_cells()[keep:]
            del self._styles[keep:]
            self._length = keep
        self._column = min(self._column, max(self._length, WIDEST))

    def _write(self, text: str) -> None:
        for start in range(0, len(text), LONGEST_LINE):
            self._write_part(text[start : start + LONGEST_LINE] if len(text) > LONGEST_LINE else text)

    def _write_part(self, text: str) -> None:
        if self._handed_on and self._column < self._length:
            # Too late to write over what was handed on.
            self._end_line()
        if self._cells is None and self._column == self._length:
            self._runs.append((self._style, text))
            self._length += len(text)
        else:
            cells = self._as_cells()
            at, end = self._column, self._column + len(text)
            if at > len(cells):
                self._styles += [""] * (at - len(cells) if self._colours else 0)
                cells += " " * (at - len(cells))
            cells[at:end] = text
            if self._colours:
                self._styles[at:end] = [self._style] * len(text)
            self._length = len(cells)
        self._column += len(text)
        if self._length > LONGEST_LINE and self._column == self._length:
            length = self._length
            self._hand_on()
            self._length = self._column = length
            self._handed_on = True

    def _as_cells(self) -> list[str]:
        if self._cells is None:
            self._cells = [character for _, text in self._runs for character in text]
            self._styles = [style for style, text in self._runs for _ in text] if self._colours else []
            self._runs = []
        return self._cells

    def _rendered(self) -> str:
        runs = self._runs
        if self._cells is not None:
            written = "".join(self._cells).rstrip(" ")
            runs = [("", written)]
            if self._colours:
                pairs = zip(self._styles, written, strict=False)
                runs = [(s, "".join(c for _, c in group)) for s, group in groupby(pairs, lambda pair: pair[0])]
        return "".join(f"{style}{text}{_RESET}" if style else text for style, text in runs)

    def _hand_on(self) -> None:
        self._done.append(self._rendered())
        self._clear()

    def _clear(self) -> None:
        self._runs, self._cells, self._styles = [], None, []
        self._length = self._column = 0

    def _end_line(self) -> None:
        self._hand_on()
        self._handed_on = False
        self._done.append("\n")

    def _leave_line(self) -> None:
        if self._handed_on or self._rendered().strip():
            self._end_line()
        else:
            self._clear()


def _number(given: str) -> int | None:
    first = given.partition(";")[0]
    return int(first[:6]) if first.isdecimal() else None


def shown(text: str, *, colours: bool = False) -> str:
    """A whole text as a terminal would have shown it."""
    terminal = TerminalText(colours=colours)
    return terminal.feed(text) + terminal.close()


def last_line(text: str) -> str:
    """The last line that says something, as a terminal would have shown it, without blanks around; "" for none."""
    return shown(text).rstrip().rpartition("\n")[2].strip()
