"""Reading numbers from ``details``, which may be any JSON. Nothing here raises."""

import math
from collections.abc import Iterator
from typing import Any

Number = int | float

LARGEST = 2**53
"""Beyond it a float is not exact. Larger numbers are ignored."""
LONGEST_NUMBER = 64
"""Characters. Longer texts are not read as numbers."""


def dig(value: Any, *names: str) -> Any:
    """The member at a path of names; None if there is none."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def members(value: Any) -> list[Any]:
    """The members of a list; an empty list for anything else."""
    return value if isinstance(value, list) else []


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list."""
    return (member for member in members(value) if isinstance(member, dict))


def number(value: Any) -> Number | None:
    """A number, also written as text (old clients send ``"26.804"``); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= LONGEST_NUMBER else None
        except ValueError:
            return None
    # The comparison is false for infinity and NaN.
    return value if isinstance(value, int | float) and abs(value) <= LARGEST else None


def plain(value: Any) -> Number | str | None:
    """A number as the client sent it, number or text; None for anything else."""
    if number(value) is None:
        return None
    return value  # type: ignore[no-any-return]


def mean(values: list[Number]) -> float | None:
    """The mean; None of an empty list."""
    if not values:
        return None
    return math.fsum(values) / len(values)
