"""``format`` of expressions: ``"%s has %d of %.2f".format([…])``. Pure."""

import re
from typing import Any

from proctor_controller.domain.documents.spelled import written
from proctor_controller.domain.expressions.cost import MAX_FILLED
from proctor_controller.domain.expressions.fault import Unfit

MAX_PRECISION = 100
_CLAUSE = re.compile(r"%(?:\.([0-9]{1,9}))?(.?)", re.DOTALL)
_BASES = {"b": "b", "o": "o", "x": "x", "X": "X"}


def format_text(template: Any, values: Any) -> str:
    """The template with its values in order. Raises Unfit, TypeError."""
    if not isinstance(template, str) or not isinstance(values, list):
        raise TypeError
    made: list[str] = []
    end = size = taken = 0
    for found in _CLAUSE.finditer(template):
        made.append(template[end : found.start()])
        end = found.end()
        if found[2] == "%" and found[1] is None:
            made.append("%")
            continue
        if taken >= len(values):
            raise Unfit("format has fewer values than the text has places")
        made.append(_formatted(found[2], found[1], values[taken]))
        taken += 1
        size += len(made[-1])
        if size + len(template) > MAX_FILLED:
            raise Unfit(f"format comes to more than {MAX_FILLED} characters")
    return "".join([*made, template[end:]])


def _formatted(kind: str, precision: str | None, value: Any) -> str:
    if precision is not None and (kind not in {"e", "f"} or int(precision) > MAX_PRECISION):
        raise Unfit(f"format takes a precision in %.2f and %.2e only, {MAX_PRECISION} at most")
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "s":
        return "null" if value is None else written(value)
    if kind == "d" and is_whole:
        return str(value)
    if kind in {"e", "f"} and (is_whole or isinstance(value, float)):
        return f"{float(value):.{6 if precision is None else int(precision)}{kind}}"
    if kind == "b" and isinstance(value, bool):
        return str(int(value))
    if kind in _BASES and is_whole:
        return format(value, _BASES[kind])
    if kind in {"x", "X"} and isinstance(value, str | bytes):
        text = (value if isinstance(value, bytes) else value.encode()).hex()
        return text.upper() if kind == "X" else text
    if kind in {"s", "d", "e", "f", *_BASES}:
        raise Unfit(f"format cannot write this value as %{kind}")
    raise Unfit("format knows %s, %d, %f, %e, %b, %o, %x, %X and %%")
