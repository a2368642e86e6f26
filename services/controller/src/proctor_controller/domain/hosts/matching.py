"""Bipartite matching: a different option for each request. Pure."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def match_all(wanted: Sequence[Sequence[T]]) -> list[T] | None:
    """A different option of ``wanted[i]`` for each i, early ones preferred; None if that is impossible."""
    owner: dict[T, int] = {}
    for at in range(len(wanted)):
        if not _serve(at, wanted, owner):
            return None
    found = {index: option for option, index in owner.items()}
    return [found[at] for at in range(len(wanted))]


def _serve(start: int, wanted: Sequence[Sequence[T]], owner: dict[T, int]) -> bool:
    """Find an option for ``start``; others may be moved to another of theirs. Breadth-first, so that few move."""
    via: dict[T, tuple[int, T | None]] = {}
    todo: list[tuple[int, T | None]] = [(start, None)]
    while todo:
        following: list[tuple[int, T | None]] = []
        for at, left in todo:
            for option in wanted[at]:
                if option in via:
                    continue
                via[option] = (at, left)
                if option not in owner:
                    _hand_on(option, via, owner)
                    return True
                following.append((owner[option], option))
        todo = following
    return False


def _hand_on(option: T | None, via: dict[T, tuple[int, T | None]], owner: dict[T, int]) -> None:
    while option is not None:
        at, left = via[option]
        owner[option] = at
        option = left
