"""Estimates the cost of an expression before it is evaluated, as evaluation cannot be interrupted. Pure.

The unit is the time to copy one part of a value, about 45 ns; everything in the library copies parts. The bounds are
computed from sizes, not values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor_controller.domain.expressions.fault import ExpressionFault, Scope
from proctor_controller.domain.expressions.source import ParsedSource

MAX_ELEMENTS = 10_000
"""Elements that all macros of one expression visit."""
MAX_READ = 4 * 1024 * 1024
"""Characters and elements that one expression reads; a name that occurs twice counts twice."""
MAX_FILLED = 1024 * 1024
"""Characters of a filled text, and of one that a function makes."""
MAX_WORK = 4_000_000
"""Units of one expression, about a quarter of a second."""
CHARACTERS = 128
"""So many characters are copied in the time of one part."""
CROSSING = 20
"""Units for a part that is passed to the library or returned by it."""
CALLING = 40
"""Units for one more call of the library, and for each part passed to a function of ours."""
CHUNK = 16
"""Elements that a macro gets at a time if it is run in turns."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Units."""

    at_once: int
    """Evaluated as written."""
    in_turns: int
    """With the elements of map and filter in turns, as the library copies their results with each element."""

    @property
    def least(self) -> int:
        """The units of the cheaper way."""
        return min(self.at_once, self.in_turns)


@dataclass(slots=True)
class _Read:
    """Sizes of what is read."""

    size: int = 0
    """Characters and parts."""
    weight: int = 0
    """In units."""
    inside: int = 0
    """The part of it that macros read for each element."""
    apart: int = 0
    """With each name counted once."""
    most: int = 1
    """Elements that a macro may visit."""
    made: int = 0
    """Those of them that functions make of texts."""


def estimate(parsed: ParsedSource, scope: Scope) -> Cost:
    """What the evaluation may cost. Raises ExpressionFault if that is too much."""
    read = _measure_all(parsed, scope)
    # A concatenation grows with each ``+``, and each one copies it.
    _add_made(parsed, read)
    once = CROSSING * read.apart + read.weight + parsed.additions * read.weight // 2
    if parsed.has_functions:
        once += CALLING * read.weight
    if not parsed.macros:
        return _bounded(parsed, Cost(once, once))
    at = parsed.loops[0].position if parsed.loops else 1
    seen = read.most * parsed.macros
    if seen > MAX_ELEMENTS + parsed.commas + 1:
        reason = f"its macros would see up to {seen} elements, and {MAX_ELEMENTS} are allowed"
        raise ExpressionFault(parsed.text, at, reason)
    if (read.size + len(parsed.text)) * parsed.growth > MAX_READ:
        raise ExpressionFault(parsed.text, at, f"its macros could come to more than {MAX_READ} characters")
    # The elements that functions make are counted when they make them.
    read.most += read.made
    made = (read.weight + parsed.commas + 1) * parsed.growth
    body = read.most * (read.inside * (1 + parsed.additions) + CROSSING * parsed.macros)
    if parsed.has_functions:
        body += read.most * CALLING * (read.inside + 1)
    copied = sum(loop.copies for loop in parsed.loops) * made * read.most // 2
    turns = 0
    if any(loop.copies for loop in parsed.loops):
        calls = read.most // CHUNK + 1
        turns = parsed.macros * (made * (CHUNK // 2 + 2 * CROSSING) + calls * (CALLING + CROSSING) * (1 + read.inside))
    return _bounded(parsed, Cost(once + body + copied, once + body + turns))


def _add_made(parsed: ParsedSource, read: _Read) -> None:
    """What functions may make of what is read: parts of texts, and longer texts. Both are bounded as they are made."""
    if parsed.growing:
        made = min(MAX_FILLED, (read.size + len(parsed.text)) ** min(1 + parsed.growing, 4))
        read.size += made
        read.weight += made // CHARACTERS
    if parsed.makers:
        parts = min(MAX_ELEMENTS, read.size + len(parsed.text))
        read.size += parts
        read.weight += parts
        read.made = parts


def _bounded(parsed: ParsedSource, cost: Cost) -> Cost:
    least = cost.at_once if parsed.has_uint else cost.least
    if least > MAX_WORK:
        at = parsed.loops[0].position if parsed.loops else 1
        reason = f"would take too long on values of this size: {least} units of work, and {MAX_WORK} are allowed"
        raise ExpressionFault(parsed.text, at, reason)
    return cost


def _measure_all(parsed: ParsedSource, scope: Scope) -> _Read:
    read, known = _Read(most=parsed.commas + 1), dict[tuple[str, ...], tuple[int, int, int]]()
    for reference in parsed.references:
        if reference.path not in known:
            known[reference.path] = _measure(_resolve(scope, reference.path) if reference.root in scope else None)
            read.apart += _weight(*known[reference.path][:2])
        characters, parts, widest = known[reference.path]
        read.size += characters + parts
        read.weight += _weight(characters, parts)
        read.most += widest
        if reference.in_macro:
            read.inside += _weight(characters, parts)
        if read.size > MAX_READ:
            reason = f"reads more than {MAX_READ} characters and elements"
            raise ExpressionFault(parsed.text, reference.position, reason)
    return read


def _measure(value: Any) -> tuple[int, int, int]:
    """Characters and parts of the value, and the most elements of one list or map in it; stops counting when the value
    is too large for any expression.
    """
    characters = parts = widest = 0
    todo = [value]
    while todo:
        part = todo.pop()
        parts += 1
        if isinstance(part, str):
            characters += len(part)
        elif isinstance(part, Mapping | list | tuple):
            widest = max(widest, len(part))
            if isinstance(part, Mapping):
                characters += sum(len(name) for name in part)
                parts += 2 * len(part)
                todo += part.values()
            else:
                todo += part
        if characters + parts > MAX_READ or parts * CROSSING > MAX_WORK:
            break
    return characters, parts, widest


def _weight(characters: int, parts: int) -> int:
    return parts + characters // CHARACTERS


def _resolve(scope: Scope, path: tuple[str, ...]) -> Any:
    """The value at the path, or the text or list that the path cannot enter; None if a member is missing."""
    value: Any = scope
    for name in path:
        if not isinstance(value, Mapping):
            break
        value = value.get(name)
    return value
