"""Expressions: ``${{ … }}`` in templates, and bare conditions. CEL, evaluated by a library; pure.

Evaluation holds the interpreter lock and cannot be interrupted, so its cost is bounded before it begins (``cost``).
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from proctor_controller.domain.documents.spelled import as_texts, has_spelled
from proctor_controller.domain.documents.spelled import written as as_text
from proctor_controller.domain.expressions.cost import MAX_FILLED, estimate
from proctor_controller.domain.expressions.fault import ExpressionFault, Scope, kind_of, null_fault
from proctor_controller.domain.expressions.program import compile_source, replaced, run
from proctor_controller.domain.expressions.source import Called, Chain, Reference
from proctor_controller.domain.expressions.text import OPENING, split_text

MAX_TEMPLATE = 512 * 1024
MAX_VALUE_DEPTH = 60
"""Levels of lists and maps in the value of an expression; the template may nest it some levels deeper."""

__all__ = [
    "ExpressionFault", "Scope", "as_text", "evaluate", "fill", "fill_text", "holds", "holds_for_sure", "references_of",
    "unknown_functions", "work_of",
]  # fmt: skip


def evaluate(source: str, scope: Scope) -> Any:
    """The expression's value, of JSON's types. Raises ExpressionFault."""
    program = compile_source(source)
    spelled = [(chain, found) for chain in program.source.chains if has_spelled(found := _at(scope, chain))]
    if spelled and spelled[0][0].is_whole:
        return _to_json(source, spelled[0][1], 0)
    if spelled:
        # The library's numbers have no spelling: where text is made of them, it is given text.
        names = {f"proctor_text{index}": as_texts(found) for index, (_, found) in enumerate(spelled)}
        changes = [(chain.start, chain.end, name) for (chain, _), name in zip(spelled, names, strict=True)]
        return evaluate(replaced(source, changes), {**scope, **names})
    return _to_json(source, run(program, scope, estimate(program.source, scope)), 0)


def _at(scope: Scope, chain: Chain) -> Any:
    value: Any = scope
    for part in chain.path:
        if isinstance(part, str) and isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(part, int) and isinstance(value, list | tuple) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def holds(source: str, scope: Scope) -> bool:
    """Whether a condition is true. Raises ExpressionFault, also if it is neither true nor false."""
    value = evaluate(source, scope)
    if value is None and (fault := null_fault(compile_source(source).source, scope)) is not None:
        raise fault
    if not isinstance(value, bool):
        raise ExpressionFault(source, 1, f"a condition is true or false, not {kind_of(value)}")
    return value


def holds_for_sure(source: str, scope: Scope) -> bool:
    """Whether a condition is true whatever null stands for: only what is compared with ``null`` itself may be it.

    Raises ExpressionFault, with what is ``null`` where that is why.
    """
    parsed = compile_source(source).source
    asked = {reference.path for reference in parsed.references if reference.is_asked}
    known: Scope = scope
    for reference in parsed.references:
        if reference.path not in asked:
            known = _without_null(known, reference.path)
    try:
        return holds(source, known)
    except ExpressionFault as fault:
        why = null_fault(parsed, scope) if known is not scope else None
        raise (why or fault) from None


def _without_null(scope: Scope, path: tuple[str, ...]) -> Scope:
    """The scope, without what is null at the path."""
    name, *rest = path
    if name not in scope:
        return scope
    value = scope[name]
    if value is None:
        return {key: part for key, part in scope.items() if key != name}
    if not rest or not isinstance(value, Mapping):
        return scope
    less = _without_null(value, tuple(rest))
    return scope if less is value else {**scope, name: less}


def fill(template: Any, scope: Scope) -> Any:
    """The template with its expressions filled in. Raises ExpressionFault.

    A text that is one whole expression becomes its value, of whatever type.
    """
    if isinstance(template, str):
        return _fill_text(template, scope)
    if isinstance(template, Mapping):
        return {name: _fill_part(name, part, scope) for name, part in template.items()}
    if isinstance(template, list | tuple):
        return [_fill_part(index, part, scope) for index, part in enumerate(template)]
    return template


def _fill_part(name: str | int, part: Any, scope: Scope) -> Any:
    try:
        return fill(part, scope)
    except ExpressionFault as fault:
        fault.path = (name, *fault.path)
        raise


def fill_text(template: str, scope: Scope) -> str:
    """Like ``fill``, but always text. Raises ExpressionFault."""
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


def references_of(source: str) -> tuple[Reference, ...]:
    """What the expression reads. Raises ExpressionFault if it is not CEL or breaks a limit."""
    return compile_source(source).source.references


def unknown_functions(source: str) -> tuple[Called, ...]:
    """Functions that the expression calls and that do not exist. Raises ExpressionFault."""
    return tuple(each for each in compile_source(source).source.called if not each.is_known)


def work_of(source: str, scope: Scope) -> int:
    """Units of work that the expression may take. Raises ExpressionFault if they are too many."""
    return estimate(compile_source(source).source, scope).least


def _to_json(source: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionFault(source, 1, "its value is not a finite number")
        return value
    if depth > MAX_VALUE_DEPTH:
        raise ExpressionFault(source, 1, f"its value is nested more than {MAX_VALUE_DEPTH} deep")
    if isinstance(value, dict):
        # The library's maps have no order; sort, so that the result is always the same.
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
