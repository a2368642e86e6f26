"""Numbers that know how they were written: ``3.10`` is a number in arithmetic, and ``3.10`` wherever text is wanted.

What is stored is JSON, where ``0755`` could not stand: such a number is packed then. Pure.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Self

PACKED = "~number"
"""The member of a stored mapping that stands for a number with a spelling of its own."""
_JSON = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")


class SpelledInt(int):
    """A whole number that is not written as JSON would write it."""

    spelling: str

    def __new__(cls, value: int, spelling: str) -> Self:
        made = super().__new__(cls, value)
        made.spelling = spelling
        return made

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self


class SpelledFloat(float):
    """Another number that is not written as JSON would write it."""

    spelling: str

    def __new__(cls, value: float, spelling: str) -> Self:
        made = super().__new__(cls, value)
        made.spelling = spelling
        return made

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self


SPELLED = (SpelledInt, SpelledFloat)


def spell(value: float, text: str) -> int | float:
    """The number that ``text`` stands for, with its spelling."""
    if json.dumps(value) == text:
        return value
    return SpelledInt(value, text) if isinstance(value, int) else SpelledFloat(value, text)


def is_scalar(value: Any) -> bool:
    """Whether it is text, a number, true or false: what can stand where a text is wanted."""
    return isinstance(value, str | int | float)


def written(value: Any) -> str:
    """A value as text: text as it is, null as nothing, a number as it was written, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, SPELLED):
        return value.spelling
    return "" if value is None else _as_json(value)


def _as_json(value: Any) -> str:
    if isinstance(value, SPELLED) and _JSON.match(value.spelling):
        return value.spelling
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_as_json(name)}: {_as_json(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def has_spelled(value: Any) -> bool:
    """Whether a number in it has a spelling of its own."""
    if isinstance(value, Mapping):
        return any(map(has_spelled, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_spelled, value))
    return isinstance(value, SPELLED)


def as_texts(value: Any) -> Any:
    """The value with text for each number that has a spelling of its own."""
    if isinstance(value, SPELLED):
        return value.spelling
    if isinstance(value, Mapping):
        return {name: as_texts(part) for name, part in value.items()}
    return [as_texts(part) for part in value] if isinstance(value, list | tuple) else value


def pack(value: Any) -> Any:
    """The value as JSON can hold it."""
    if not has_spelled(value):
        return value
    if isinstance(value, SPELLED):
        return {PACKED: [value.spelling, int(value) if isinstance(value, int) else float(value)]}
    if isinstance(value, Mapping):
        return {name: pack(part) for name, part in value.items()}
    return [pack(part) for part in value]


def unpack(value: Any) -> Any:
    """What was packed."""
    if isinstance(value, dict):
        match value.get(PACKED) if len(value) == 1 else None:
            # A mapping of a method's own may have this member too: what does not look packed stays as it is.
            case [str() as spelling, int() | float() as number]:
                return spell(number, spelling)
        return {name: unpack(part) for name, part in value.items()}
    return [unpack(part) for part in value] if isinstance(value, list) else value
