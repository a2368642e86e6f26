"""What an expression may cost, known before it is evaluated: evaluation cannot be interrupted. Pure.

The unit is what it takes to copy one part of a value, about 45 ns; all that the library does copies parts. The bounds
know sizes, not values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proctor_controller.domain.expressions.fault import ExpressionFault, Scope
from proctor_controller.domain.expressions.source import ParsedSource

MAX_ELEMENTS = 10_000
"""Elements that the macros of one expression see, in all."""
MAX_READ = 4 * 1024 * 1024
"""Characters and elements that one expression reads, a name that stands twice counted twice."""
MAX_WORK = 4_000_000
"""Units of one expression: a quarter of a second, give or take."""
CHARACTERS = 128
"""Characters that are copied as fast as one part."""
CROSSING = 20
"""Units for a part that goes to the library, or comes from it."""
CALLING = 40
"""Units for one more call of the library, and for each part that a function of ours is given."""
CHUNK = 16
"""Elements that a macro is given at a time, where it is given all of them in turns."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Units: ``at_once`` as the expression stands; ``in_turns`` where map and filter are given their elements in turns,
    as their results are copied with each element.
    """

    at_once: int
    in_turns: int

    @property
    def least(self) -> int:
        """What it costs the cheaper way."""
        return min(self.at_once, self.in_turns)


@dataclass(slots=True)
class _Read:
    """Sizes of what is read. ``size``: characters and parts; ``weight``: in units; ``inside``: of it what macros read
    for each element; ``apart``: each name once; ``most``: elements that a macro may see.
    """

    size: int = 0
    weight: int = 0
    inside: int = 0
    apart: int = 0
    most: int = 1


def estimate(parsed: ParsedSource, scope: Scope) -> Cost:
    """What the evaluation may cost. Raises ExpressionFault where that is too much."""
    read = _measure_all(parsed, scope)
    # What is put together grows link by link, and each link copies it.
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
    """Characters and parts of the value, and the most elements that one list or map in it has; of a value that is too
    large for any expression so many as it takes to see that.
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
    """What stands at the path, or the text or list that is in its way; None where a member is not there."""
    value: Any = scope
    for name in path:
        if not isinstance(value, Mapping):
            break
        value = value.get(name)
    return value
