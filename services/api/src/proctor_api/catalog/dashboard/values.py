"""Reading figures out of ``details``, which may be any JSON. Nothing here raises, whatever it is given."""

import math
from collections.abc import Iterator
from typing import Any

Number = int | float

LARGEST = 2**53
"""Beyond it a float no longer counts, and sums of figures would run away."""
LONGEST_NUMBER = 64
"""Characters; a number written with more of them is none."""


def dig(value: Any, *names: str) -> Any:
    """The member at a path of names; None where the way ends."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def members(value: Any) -> list[Any]:
    """The members of a list; none of anything else."""
    return value if isinstance(value, list) else []


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list."""
    return (member for member in members(value) if isinstance(member, dict))


def number(value: Any) -> Number | None:
    """A number, also one written as text (clients of old send ``"26.804"``); None for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= LONGEST_NUMBER else None
        except ValueError:
            return None
    # Of infinity and of what is no number at all the comparison is false.
    return value if isinstance(value, int | float) and abs(value) <= LARGEST else None


def plain(value: Any) -> Number | str | None:
    """A figure as its client sent it, number or text; None for what is no figure."""
    if number(value) is None:
        return None
    return value  # type: ignore[no-any-return]


def mean(values: list[Number]) -> float | None:
    """The mean; None of nothing."""
    if not values:
        return None
    return math.fsum(values) / len(values)
