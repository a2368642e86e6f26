"""Text as a terminal would have shown it: what is left, in any pieces, and that nothing hostile takes long."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_common.terminal_text import LONGEST_LINE, TerminalText, last_line, shown

LEFT = {
    "plain\ttext\n\nwith ends\r\n": "plain\ttext\n\nwith ends\n",
    "\x1b[1;31mred\x1b[0m and \x1b[38;2;1;2;3mmore\x1b[m": "red and more",
    "\x9b31mred\x9b0m": "red",
    "\x1b]0;a title\x07one\x1b]2;t\x1b\\two\x9d0;t\x9cthree": "onetwothree",
    "\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x1bPq#0;2;0\x1b\\a\x1b_x\x1b\\b\x1b^y\x1b\\c\x1bXz\x1b\\d": "abcd",
    "\x1b(B\x1b=\x1b7a\x1b8\x1b>\x1bc\x1b#8": "a",
    "\x1b[?25l\x1b[?1049hx\x1b[6n\x1b[4;20r\x1b[>4;2m": "x",
    "10%\r50%\r100%\ndone": "100%\ndone",
    "10%\r50%\r100%\r": "100%",
    "12345\rab\n": "ab345\n",
    "downloading\r\x1b[Kdone\n": "done\n",
    "npm 1\x1b[1G\x1b[0Knpm 2\x1b[2K\x1b[1Gok": "ok",
    "wait   \r      \rok\n": "ok\n",
    "  5\b\b\b 10\b\b\b100\n": "100\n",
    "N\bNA\bAM\bM_\bE": "NAME",
    "x\x1b[10G[ OK ]": "x        [ OK ]",
    "ab\x1b[Dc\x1b[2Cd": "ac  d",
    "\x1b[2J\x1b[Hone\x1b[5;1Htwo": "one\ntwo",
    "a\n\x1b[1A\x1b[2Kb\n": "a\nb\n",
    "a\x00\x07\x0e\x7f\x80b": "ab",
    "a\fb\vc\x85d": "a\nb\nc\nd",
    "\u00e2\u0080\u009dtwice decoded \u00c4\u009bq": "\u00e2twice decoded \u00c4q",
    "\x1b[31\nred": "\nred",
    "\x1b]0;no end\nnext": "\nnext",
    "cut\x1b": "cut",
    "cut\x1b[3": "cut",
    "\x1b[999999999999Cx": " " * 256 + "x",
    "日本語\r日": "日本語",
}


@pytest.mark.parametrize("text", LEFT)
def test_what_is_left(text: str) -> None:
    assert shown(text) == LEFT[text]


@pytest.mark.parametrize("text", LEFT)
def test_in_pieces_it_is_the_same(text: str) -> None:
    for size in (1, 2, 3, 5):
        terminal = TerminalText()
        pieces = [terminal.feed(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(pieces) + terminal.close() == LEFT[text], size


PIECES = (
    *("ab", "c d", "\r", "\n", "\b", "\t", "\x1b", "[", "5", "m", ";", "\x07", "\x1b\\", "\x9b", "\x9d"),
    *("\x1b[K", "\x1b[2K", "\x1b[3G", "\x1b[31m", "\x1b[0m", "\x1b]0;t", "\x1b[A"),
)
PARTS = st.lists(st.sampled_from(PIECES), max_size=30)


@given(PARTS, st.booleans())
def test_any_pieces_give_the_same_and_no_residue(parts: list[str], colours: bool) -> None:
    whole = shown("".join(parts), colours=colours)
    terminal = TerminalText(colours=colours)
    assert "".join(terminal.feed(part) for part in parts) + terminal.close() == whole
    if not colours:
        assert all(character in "\t\n" or character.isprintable() for character in whole)


def test_colours_are_kept_where_they_are_wanted() -> None:
    def kept(text: str) -> str:
        return shown(text, colours=True)

    assert kept("\x1b[31mred\x1b[0m plain") == "\x1b[31mred\x1b[0m plain"
    assert kept("\x1b[1m\x1b[31mone\ntwo\x1b[mx") == "\x1b[1m\x1b[31mone\x1b[0m\n\x1b[1m\x1b[31mtwo\x1b[0mx"
    assert kept("\x1b[31mabc\x1b[0m\rX\n") == "X\x1b[31mbc\x1b[0m\n"
    assert kept("\x1b[31m\x1b]0;t\x07a\x1b[2K\x1b[>4;2m") == ""
    assert kept("\x1b[31m" * 1000 + "\x1b[32m" * 1000 + "a") == "\x1b[31m\x1b[32ma\x1b[0m"


def test_the_line_that_is_begun() -> None:
    terminal = TerminalText()
    assert terminal.feed("one\ntwo 10%\rtwo 20%") == "one\n"
    assert terminal.begun == "two 20%"
    assert terminal.feed("\n") == "two 20%\n"
    assert (terminal.begun, terminal.close()) == ("", "")


def test_the_last_words() -> None:
    assert last_line("10%\r100%\nready\n\n \n\x1b[0m\r\n") == "ready"
    assert last_line("10%\r\x1b[32m100% \x1b[0m") == "100%"
    assert last_line("\n\x1b]0;title\x07\n") == last_line("") == ""


HOSTILE = {
    "returns": "x\r" * 1_000_000,
    "returns alone": "\r" * 1_000_000,
    "returns on a long line": "x" * (LONGEST_LINE - 1) + "\ry" * 500_000,
    "a line of 10 MB": "x" * 10_000_000,
    "a line of 10 MB, written over": "x" * 10_000_000 + "\rend",
    "a title without an end": "a\x1b]0;" + "x" * 10_000_000,
    "titles without an end": "\x1b]0;" * 500_000,
    "an endless command": "\x1b[" + "1;" * 2_000_000,
    "escapes": "\x1b" * 1_000_000,
    "erased and written": "\x1b[2Kx" * 300_000,
    "blanks that move on": " " * (LONGEST_LINE - 1) + "\x1b[A" * 300_000,
    "backspaces": "xy\b\b" * 300_000,
    "colours": "\x1b[31mx\x1b[1;4mx" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str) -> None:
    text = HOSTILE[name]
    begun = time.process_time()
    whole = shown(text, colours=name == "colours")
    assert time.process_time() - begun < 10
    if name in {"returns", "returns alone", "a title without an end"}:
        assert len(whole) <= 1
    if name == "a line of 10 MB, written over":
        assert whole == "x" * 10_000_000 + "\nend"


def test_a_stream_takes_bounded_memory() -> None:
    terminal = TerminalText()
    tracemalloc.start()
    try:
        for piece in ("x" * 65_536, "\ry" * 500, "\x1b]0;" + "t" * 60_000, "\x07", "é" * 40_000):
            for _ in range(20):
                terminal.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
