"""Expressions: ``${{ … }}`` in templates, and bare conditions. CEL, evaluated by a library; pure.

Evaluation holds the interpreter and cannot be interrupted, so what it may cost is bounded before it begins: the size of
the source, the elements that macros see, the size of what is read. No reason of a fault quotes a value: it may be
hidden.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import cel

from proctor_controller.domain.expression_source import Reference, Source, SourceFault, read_source, tokens

MAX_ELEMENTS = 10_000
"""Elements that the macros of one expression see, in all."""
MAX_READ = 4 * 1024 * 1024
"""Characters and elements that one expression reads, a name that stands twice counted twice."""
MAX_MACRO_WORK = 10_000_000
"""Elements times what the macros' bodies read."""
MAX_FILLED = 1024 * 1024
"""Characters of a filled text."""
MAX_TEMPLATE = 512 * 1024
MAX_DEPTH = 60
OPENING, ESCAPED = "${{", "$${{"

Scope = Mapping[str, Any]
"""The names an expression may read: params, steps, hosts, volumes, matrix, host, run, self, result."""


class ExpressionFault(Exception):
    """An expression cannot be read or evaluated. ``position`` counts characters of the expression from 1."""

    def __init__(self, expression: str, position: int, reason: str) -> None:
        super().__init__(f"{reason} (at {position} of the expression {expression[:200]})")
        self.expression, self.position, self.reason = expression, position, reason


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a template's text: an expression without its brackets, or (``source`` None) text as it is.

    ``start``: where the expression begins in the text, from 0.
    """

    text: str
    source: str | None = None
    start: int = 0


def evaluate(source: str, scope: Scope) -> Any:
    """The expression's value, of JSON's types. Raises ExpressionFault."""
    program, parsed = _compile(source)
    trimmed = _trim(parsed, scope)
    _check_cost(parsed, scope)
    try:
        value = program.execute({**trimmed, **FUNCTIONS} if parsed.has_functions else trimmed)
    except Exception as fault:
        raise _runtime_fault(parsed, scope, fault) from None
    return _to_json(source, value, 0)


def holds(source: str, scope: Scope) -> bool:
    """Whether a condition is true. Raises ExpressionFault, also where it is neither true nor false."""
    value = evaluate(source, scope)
    if not isinstance(value, bool):
        raise ExpressionFault(source, 1, f"a condition is true or false, not {kind_of(value)}")
    return value


def fill(template: Any, scope: Scope) -> Any:
    """The template with its expressions filled in. Raises ExpressionFault.

    A text that is one whole expression becomes its value, whatever type that has.
    """
    if isinstance(template, str):
        return _fill_text(template, scope)
    if isinstance(template, Mapping):
        return {name: fill(part, scope) for name, part in template.items()}
    if isinstance(template, list | tuple):
        return [fill(part, scope) for part in template]
    return template


def fill_text(template: str, scope: Scope) -> str:
    """As ``fill``, but always text. Raises ExpressionFault."""
    pieces = split_text(template)
    text = "".join(piece.text if piece.source is None else as_text(evaluate(piece.source, scope)) for piece in pieces)
    if len(text) > MAX_FILLED:
        raise ExpressionFault(template, 1, f"comes to more than {MAX_FILLED} characters")
    return text


def _fill_text(template: str, scope: Scope) -> Any:
    if OPENING not in template:
        return template
    if len(template) > MAX_TEMPLATE:
        raise ExpressionFault(template[:200], 1, f"a text with expressions has at most {MAX_TEMPLATE} characters")
    pieces = split_text(template)
    if len(pieces) == 1 and pieces[0].source is not None:
        return evaluate(pieces[0].source, scope)
    return fill_text(template, scope)


def as_text(value: Any) -> str:
    """A value as it stands within a text: text as it is, null as nothing, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def kind_of(value: Any) -> str:
    """The value's type in the words of a plan."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a map"


def _join(values: Any, delimiter: Any) -> str:
    if not isinstance(values, list) or not isinstance(delimiter, str):
        raise TypeError("join takes a list and a text")
    texts = [as_text(value) for value in values]
    if sum(map(len, texts)) + len(delimiter) * len(texts) > MAX_FILLED:
        raise OverflowError("too long")
    return delimiter.join(texts)


FUNCTIONS = {"join": _join, "text": as_text}
"""What expressions may call beside CEL's own: ``join(list, delimiter)`` and ``text(value)``."""


# -- reading ------------------------------------------------------------------------------------------------------


def has_expression(template: Any) -> bool:
    """Whether an expression stands anywhere in the template. Raises ExpressionFault for one without an end."""
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


def split_text(text: str) -> tuple[Piece, ...]:
    """The text's pieces; ``$${{`` is text. Raises ExpressionFault for an expression without an end."""
    return _split_text(text) if len(text) <= 10_000 else tuple(_pieces(text))


@lru_cache(maxsize=4000)
def _split_text(text: str) -> tuple[Piece, ...]:
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    plain, at = "", 0
    while (found := text.find(OPENING, at)) >= 0:
        if found > at and text[found - 1] == "$":
            plain += text[at : found - 1] + OPENING
            at = found + len(OPENING)
            continue
        plain += text[at:found]
        if plain:
            yield Piece(plain)
            plain = ""
        end = _end_of(text, found + len(OPENING))
        inner = text[found + len(OPENING) : end]
        source = inner.strip()
        start = found + len(OPENING) + len(inner) - len(inner.lstrip())
        if not source:
            raise ExpressionFault(text[found : end + 2], 1, "the expression is empty")
        yield Piece(text[found : end + 2], source, start)
        at = end + 2
    plain += text[at:]
    if plain or not text:
        yield Piece(plain)


def _end_of(text: str, start: int) -> int:
    """Where the ``}}`` stands that closes the expression: not in a string, not within its own braces."""
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


def references_of(source: str) -> tuple[Reference, ...]:
    """What the expression reads. Raises ExpressionFault where it is no CEL or breaks a limit."""
    return _compile(source)[1].references


@lru_cache(maxsize=2000)
def _compile(source: str) -> tuple[Any, Source]:
    try:
        parsed = read_source(source)
    except SourceFault as fault:
        raise ExpressionFault(source, fault.position, fault.reason) from None
    try:
        program = cel.compile(source)
    except Exception as fault:
        raise _syntax_fault(source, str(fault)) from None
    return program, parsed


def _syntax_fault(source: str, message: str) -> ExpressionFault:
    """The library's first complaint: ``ERROR: <input>:line:column: what``."""
    _, _, rest = message.partition("ERROR: <input>:")
    line, _, rest = rest.partition(":")
    column, _, rest = rest.partition(":")
    reason = rest.strip().splitlines()[0][:200] if rest.strip() else "is not CEL"
    reason = reason.partition(" expecting ")[0]
    position = 1
    if line.isdigit() and column.isdigit():
        before = source.splitlines(keepends=True)[: int(line) - 1]
        position = min(sum(map(len, before)) + int(column), len(source) + 1)
    return ExpressionFault(source, max(position, 1), reason)


# -- evaluating ---------------------------------------------------------------------------------------------------


def _trim(parsed: Source, scope: Scope) -> dict[str, Any]:
    """The part of the scope that the expression reads: the library copies what it gets."""
    wanted: dict[str, Any] = {}
    for reference in sorted(parsed.references, key=lambda found: len(found.path)):
        value: Any = scope
        made = wanted
        for index, name in enumerate(reference.path):
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
            if index == len(reference.path) - 1 or not isinstance(value, Mapping):
                made.setdefault(name, value)
                break
            deeper = made.setdefault(name, {})
            if deeper is value:
                break
            made = deeper
    return wanted


def _resolve(scope: Scope, path: tuple[str, ...]) -> Any:
    """What stands at the path, or as far along it as there is something."""
    value: Any = scope
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            break
        value = value[name]
    return value


def macro_work(source: str, scope: Scope) -> int:
    """How much the expression's macros have to do: the square of what they see, which is what a list of results costs.

    Raises ExpressionFault.
    """
    parsed = _compile(source)[1]
    return (_check_cost(parsed, scope) ** 2) * parsed.macros


def _check_cost(parsed: Source, scope: Scope) -> int:
    """The most elements that a macro may see. Raises ExpressionFault where the expression may cost too much."""
    read = inside = 0
    most = parsed.commas + 1
    for reference in parsed.references:
        size, widest = _measure(_resolve(scope, reference.path) if reference.root in scope else None)
        read += size
        inside += size if reference.in_macro else 0
        most += widest
        if read > MAX_READ:
            raise ExpressionFault(parsed.text, reference.position, f"reads more than {MAX_READ} characters")
    if not parsed.macros:
        return most
    if most * parsed.macros > MAX_ELEMENTS + parsed.commas + 1:
        raise ExpressionFault(parsed.text, 1, f"its macros would see more than {MAX_ELEMENTS} elements")
    if (read + len(parsed.text)) * parsed.growth > MAX_READ:
        raise ExpressionFault(parsed.text, 1, f"its macros could come to more than {MAX_READ} characters")
    if most * inside > MAX_MACRO_WORK:
        raise ExpressionFault(parsed.text, 1, "its macros would read too much for each element")
    return most


def _measure(value: Any) -> tuple[int, int]:
    """Characters and elements in the value, and the most elements that one list or map in it has."""
    size = widest = 0
    todo = [value]
    while todo:
        part = todo.pop()
        size += 1
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping | list | tuple):
            widest = max(widest, len(part))
            if isinstance(part, Mapping):
                size += sum(len(name) for name in part)
                todo += part.values()
            else:
                todo += part
        if size > MAX_READ:
            break
    return size, widest


def _runtime_fault(parsed: Source, scope: Scope, fault: Exception) -> ExpressionFault:
    reason, position = _reason(parsed.text, fault), 1
    if isinstance(fault, KeyError | IndexError) or "Undefined variable" in str(fault):
        missing = _first_missing(parsed, scope)
        if missing is not None:
            reason, position = missing
    elif len(parsed.references) == 1:
        position = parsed.references[0].position
    return ExpressionFault(parsed.text, position, reason)


def _first_missing(parsed: Source, scope: Scope) -> tuple[str, int] | None:
    """The first name that is not there: why the library could not go on, as far as can be told."""
    for reference in parsed.references:
        value: Any = scope
        for index, name in enumerate(reference.path):
            if not isinstance(value, Mapping) or name not in value:
                if index and not isinstance(value, Mapping):
                    holder = ".".join(reference.path[:index])
                    return f"{holder} is {kind_of(value)} and has no member {name}", reference.position
                within = f"{'.'.join(reference.path[:index])} has no member" if index else "there is no name"
                return f"{within} {name}", reference.position
            value = value[name]
    return None


def _reason(source: str, fault: Exception) -> str:
    """The fault in words that quote nothing but the source."""
    text = str(fault)
    if isinstance(fault, ZeroDivisionError):
        return "division by zero"
    if isinstance(fault, OverflowError):
        return "a number is out of range"
    if isinstance(fault, KeyError):
        return "a map has no such member"
    if isinstance(fault, IndexError):
        return "a list has fewer elements"
    if isinstance(fault, TypeError):
        return "the types do not fit each other: convert with int(), double() or string()"
    _, found, name = text.partition("Undefined variable or function: '")
    if found and (name := name.partition("'")[0]) in source:
        return f"there is no name or function {name}"
    _, found, name = text.partition("Function '")
    if found and (name := name.partition("'")[0]) in source:
        return f"the function {name} cannot take this value"
    return "cannot be evaluated"


def _to_json(source: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionFault(source, 1, "its value is not a finite number")
        return value
    if depth > MAX_DEPTH:
        raise ExpressionFault(source, 1, f"its value is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        # The library's maps have no order: one that is always the same.
        names = sorted(_key(source, name) for name in value)
        return {name: _to_json(source, value[name], depth + 1) for name in names}
    if isinstance(value, list):
        return [_to_json(source, part, depth + 1) for part in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    raise ExpressionFault(source, 1, "its value has no form in JSON")


def _key(source: str, name: Any) -> str:
    if isinstance(name, str):
        return name
    raise ExpressionFault(source, 1, "a map's keys must be text")
