"""The tokens of a CEL expression. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>(?:[rR][bB]?|[bB][rR]?)?(?:\"{3}|'{3}|\"|'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class SourceFault(Exception):
    """The source is invalid: ``position`` counts characters from 1."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason, self.position = reason, position


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A token, from ``start`` to ``end``. ``kind``: text, number, name or sign. ``value``: a text's is unescaped."""

    kind: str
    value: str
    start: int
    end: int


def tokens(text: str, start: int = 0) -> Iterator[Lexeme]:
    """The tokens of ``text`` from ``start`` on. Raises SourceFault for a string without an end."""
    at = start
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None
        kind = found.lastgroup or "sign"
        if kind == "text":
            token = _string(text, at, found[0])
            at = token.end
            yield token
            continue
        at = found.end()
        if kind != "space":
            yield Lexeme(kind, found[0], found.start(), at)


def _string(text: str, start: int, opening: str) -> Lexeme:
    quote = opening.lstrip("rRbB")
    raw = "r" in opening[: -len(quote)].lower()
    at = start + len(opening)
    while at < len(text):
        if text.startswith(quote, at):
            body = text[start + len(opening) : at]
            return Lexeme("text", body if raw else _ESCAPE.sub(_unescape, body), start, at + len(quote))
        if len(quote) == 1 and text[at] in "\r\n":
            break
        at += 2 if text[at] == "\\" and not raw else 1
    raise SourceFault("a string has no end", start + 1)


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "uUx" and len(code) > 1:
        number = int(code[1:], 16)
    elif code.isdigit():
        number = int(code, 8)
    else:
        return _ESCAPED.get(code, code)
    return chr(number) if number <= 0x10FFFF else "\ufffd"
