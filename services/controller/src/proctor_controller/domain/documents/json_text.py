"""Reads JSON that is not also YAML (surrogate escapes, tabs between parts), with positions of its parts. Pure."""

import json
import math
import re
from typing import Any

from proctor_controller.domain.documents.spelled import spell
from proctor_controller.domain.documents.tree import BadText, Builder, Position, TreeNode

_TOKEN = re.compile(
    r"""[ \t\r\n,:]*(?:(?P<open>[\[{])|(?P<close>[\]}])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^\s,:\]}]+))"""
)


def build_json(text: str) -> Builder | None:
    """The parts of a JSON object; None if the text is none. Raises BadText."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    # It is valid JSON, so finding its tokens is enough.
    builder, at, lines = Builder(), 0, _Lines(text)
    while found := _TOKEN.match(text, at):
        at = found.end()
        kind = found.lastgroup or ""
        place = lines.place(found.start(kind))
        if kind == "open":
            builder.open(TreeNode(place, "mapping" if found[kind] == "{" else "sequence"))
        elif kind == "close":
            builder.close()
        else:
            builder.scalar(_scalar(json.loads(found[kind]), found[kind], place))
    return builder


def _scalar(value: Any, text: str, place: Position) -> TreeNode:
    if isinstance(value, float) and not math.isfinite(value):
        return TreeNode(place, "scalar", wrong="infinity and not-a-number are not allowed")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadText("holds half of a surrogate pair, which is no text", place) from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = spell(value, text)
    return TreeNode(place, "scalar", value)


class _Lines:
    """Line and column of positions that only grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line, self._start, self._at = 1, 0, 0

    def place(self, position: int) -> Position:
        more = self._text.count("\n", self._at, position)
        if more:
            self._line += more
            self._start = self._text.rfind("\n", self._at, position) + 1
        self._at = position
        return self._line, position - self._start + 1
