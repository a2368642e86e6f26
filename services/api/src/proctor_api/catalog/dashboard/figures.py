"""Graphs and bars in the Test API's format. A figure takes results one by one, oldest first, and keeps none."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from proctor_api.catalog.dashboard.values import Number

Row = Mapping[str, Any]
"""A result: ``start_date`` (as the client sent it), ``passed`` (None: no verdict), ``seconds`` (None: unknown),
``details``.
"""
Point = Sequence[Number | str | None] | None
"""The y values of a result; None if it has none. A single None: it has no value for that line."""


class Figure(Protocol):
    """A graph or a bar chart."""

    def add(self, row: Row) -> None:
        """Take a result in."""

    def finish(self) -> dict[str, Any]:
        """``{name, info, data_set}``"""


class Graph:
    """One line (``y``, ``ylabel``) or several (``y1``…, ``y1label``…); x is the start of the results."""

    def __init__(
        self, name: str, labels: Sequence[str], read: Callable[[Row], Point], *, numbered: bool = False
    ) -> None:
        self._name = name
        many = numbered or len(labels) > 1
        self._keys = [f"y{index}" for index in range(1, len(labels) + 1)] if many else ["y"]
        self._labels = {f"{key}label": label for key, label in zip(self._keys, labels, strict=True)}
        self._read = read
        self._points: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        start = row["start_date"]
        point = self._read(row) if start else None
        if point is None:
            return
        found = {key: value for key, value in zip(self._keys, point, strict=True) if value is not None}
        if found:
            self._points.append({"x": start, **found})

    def finish(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "info": {"type": "graph", "xlabel": "time", **self._labels},
            "data_set": self._points,
        }


class BarFigure:
    """Sums over all results; an empty data set without results."""

    def __init__(self, name: str, labels: Sequence[str], read: Callable[[Row], Sequence[Number]]) -> None:
        self._name = name
        self._labels = labels
        self._read = read
        self._sums: list[Number] | None = None

    def add(self, row: Row) -> None:
        found = self._read(row)
        self._sums = [have + more for have, more in zip(self._sums or [0] * len(self._labels), found, strict=True)]

    def finish(self) -> dict[str, Any]:
        sums = [] if self._sums is None else [dict(zip(self._labels, self._sums, strict=True))]
        return {"name": self._name, "info": {"type": "bar"}, "data_set": sums}


class Board:
    """The figures of a test case."""

    def __init__(self, description: str, figures: Sequence[Figure], *, reads_details: bool = True) -> None:
        self._description = description
        self._figures = figures
        self.reads_details = reads_details

    def add(self, row: Row) -> None:
        """Add a result; results come oldest first."""
        for figure in self._figures:
            figure.add(row)

    def finish(self) -> list[dict[str, Any]]:
        """``[{description}, figure…]``"""
        return [{"description": self._description}, *(figure.finish() for figure in self._figures)]
