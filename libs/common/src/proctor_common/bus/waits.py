"""Waits between tries to connect. No I/O."""

import random
from typing import Self


class Waits:
    """Endless waits in seconds, each random below a limit that doubles from ``least`` to ``most``."""

    def __init__(self, least: float, most: float) -> None:
        self._limit = least
        self._least = least
        self._most = most

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        self._limit = min(self._limit * 2, self._most)
        return random.uniform(self._least / 2, self._limit)  # noqa: S311 - spreads reconnects, guards nothing
