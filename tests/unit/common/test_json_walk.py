"""Walks through values of JSON's types."""

from types import MappingProxyType
from typing import Any

from proctor_common.json_walk import parts_of, placed_parts

VALUE: dict[str, Any] = {"a": [1, {"b": None}], "c": MappingProxyType({"d": "text"}), "e": ("x",)}


def test_each_part_comes_once_with_the_path_that_leads_to_it() -> None:
    found = dict(placed_parts(VALUE))
    assert found == {
        (): VALUE,
        ("a",): VALUE["a"],
        ("a", 0): 1,
        ("a", 1): {"b": None},
        ("a", 1, "b"): None,
        ("c",): VALUE["c"],
        ("c", "d"): "text",
        ("e",): ("x",),
        ("e", 0): "x",
    }
    assert list(parts_of(VALUE)) == [part for _, part in placed_parts(VALUE)]


def test_depth_costs_no_recursion() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert sum(1 for _ in parts_of(deep)) == 100_001
