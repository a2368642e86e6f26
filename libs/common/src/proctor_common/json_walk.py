"""Walks through values of JSON's types of any depth, with a list instead of recursion. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

_LEAVES = (str, int, float, type(None))


def parts_of(value: Any) -> Iterator[Any]:
    """The value itself and all values in it, a mapping or list before its members; without the names in mappings."""
    left = [value]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, _LEAVES):
            continue
        if isinstance(part, dict | Mapping):
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part


def placed_parts(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The same, each after its path: the names and indexes that lead to it, () for the value itself."""
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, part = left.pop()
        yield path, part
        if isinstance(part, _LEAVES):
            continue
        if isinstance(part, dict | Mapping):
            left += [((*path, name), child) for name, child in part.items()]
        elif isinstance(part, list | tuple):
            left += [((*path, index), child) for index, child in enumerate(part)]
