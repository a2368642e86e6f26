"""Text with expressions in it: ``${{ … }}``, and ``$${{`` for the brackets themselves. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from proctor_controller.domain.expressions.fault import ExpressionFault
from proctor_controller.domain.expressions.lexer import SourceFault, tokens

OPENING, ESCAPED = "${{", "$${{"


@dataclass(frozen=True, slots=True)
class TemplatePart:
    """A part of a template: an expression without its brackets, or (``source`` None) literal text.

    ``start``: where the expression begins in the text, from 0.
    """

    text: str
    source: str | None = None
    start: int = 0


def has_expression(template: Any) -> bool:
    """Whether the template contains an expression. Raises ExpressionFault for one without an end."""
    todo = [template]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            if OPENING in part and any(piece.source is not None for piece in split_text(part)):
                return True
        elif isinstance(part, Mapping):
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return False


def split_text(text: str) -> tuple[TemplatePart, ...]:
    """The parts of the text; ``$${{`` is text. Raises ExpressionFault for an expression without an end."""
    return _split_text(text) if len(text) <= 10_000 else tuple(_pieces(text))


@lru_cache(maxsize=4000)
def _split_text(text: str) -> tuple[TemplatePart, ...]:
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[TemplatePart]:
    plain, at = "", 0
    while (found := text.find(OPENING, at)) >= 0:
        if found > at and text[found - 1] == "$":
            plain += text[at : found - 1] + OPENING
            at = found + len(OPENING)
            continue
        plain += text[at:found]
        if plain:
            yield TemplatePart(plain)
            plain = ""
        end = _end_of(text, found + len(OPENING))
        inner = text[found + len(OPENING) : end]
        source = inner.strip()
        start = found + len(OPENING) + len(inner) - len(inner.lstrip())
        if not source:
            raise ExpressionFault(text[found : end + 2], 1, "the expression is empty")
        yield TemplatePart(text[found : end + 2], source, start)
        at = end + 2
    plain += text[at:]
    if plain or not text:
        yield TemplatePart(plain)


def _end_of(text: str, start: int) -> int:
    """Where the ``}}`` is that closes the expression: outside of strings and of its own braces."""
    depth = 0
    try:
        for token in tokens(text, start):
            if token.value == "{" and token.kind == "sign":
                depth += 1
            elif token.value == "}" and token.kind == "sign":
                if depth == 0 and text.startswith("}}", token.start):
                    return token.start
                depth -= 1
            if depth < 0:
                break
    except SourceFault as fault:
        raise ExpressionFault(text[start : start + 200], fault.position - start, fault.reason) from None
    raise ExpressionFault(text[start : start + 200], 1, "the expression has no }} at its end")
