"""``matrix`` and ``strategy``: the cells that a step is run for. Pure."""

import json
import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from proctor_common.ids import STEP_NAME
from proctor_controller.domain.documents.spelled import written
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.plan.reader import BAD_NAME, Unknown
from proctor_controller.domain.plan.templates import Templates

MAX_CELLS = 256
MAX_KEYS = 20
_WORDS = ("exclude", "include")
Cells = tuple[Mapping[str, Any], ...]


def matrix_keys(value: Any) -> frozenset[str] | None:
    """The names that a step's expressions may read, with or without faults; None if they cannot be known."""
    if not isinstance(value, Mapping):
        return None
    names = {name for name in value if name not in _WORDS}
    if not names and "include" in value:
        included = value["include"]
        if not isinstance(included, list) or not included or not isinstance(included[0], Mapping):
            return None
        names = set(included[0])
    return frozenset(names)


def read_matrix(reader: Templates, value: Any, path: Path) -> Cells | None:
    """The cells in document order, none where a list is empty; None if one of its lists is unknown or wrong."""
    given = reader.mapping(value, path)
    keys = matrix_keys(given)
    if isinstance(value, Mapping) and all(name in _WORDS and part == [] for name, part in given.items()):
        return ()
    if keys is None or not 1 <= len(keys) <= MAX_KEYS:
        if isinstance(value, Mapping):
            reader.fault(path, f"give 1 to {MAX_KEYS} names with lists")
        return None
    before = len(reader.faults)
    lists: dict[str, list[Any]] = {}
    unknown = False
    for name, part in given.items():
        if name in _WORDS:
            continue
        if not STEP_NAME.match(name):
            reader.fault((*path, name), BAD_NAME)
        values = reader.early(part, (*path, name))
        unknown |= isinstance(values, Unknown)
        if isinstance(values, list):
            lists[name] = values
        elif not isinstance(values, Unknown):
            reader.fault((*path, name), "must be a list")
    excluded, left_out = _cells(reader, given, "exclude", keys, path)
    included, also = _cells(reader, given, "include", keys, path)
    if unknown or left_out or also or len(reader.faults) > before:
        return None
    return _build(reader, lists, excluded, included, path)


def _cells(
    reader: Templates, given: Mapping[str, Any], word: str, keys: frozenset[str], path: Path
) -> tuple[list[dict[str, Any]], bool]:
    """The mappings under ``exclude`` or ``include``, and whether one is unknown."""
    if word not in given:
        return [], False
    where = (*path, word)
    listed = reader.early(given[word], where)
    if isinstance(listed, Unknown):
        return [], True
    if not isinstance(listed, list):
        reader.fault(where, "must be a list of mappings")
        return [], False
    cells: list[dict[str, Any]] = []
    for index, part in enumerate(listed):
        cell = reader.mapping(part, (*where, index), keys)
        if word == "include" and cell.keys() != keys:
            reader.fault((*where, index), f"give {', '.join(sorted(keys))}")
        cells.append(cell)
    return cells, False


def _build(
    reader: Templates,
    lists: Mapping[str, list[Any]],
    excluded: list[dict[str, Any]],
    included: list[dict[str, Any]],
    path: Path,
) -> Cells | None:
    size = math.prod(map(len, lists.values())) if lists else 0
    # Excluded cells count too, so that a matrix of millions with all but a few excluded is never built.
    if size > 16 * MAX_CELLS:
        reader.fault(path, f"comes to {size} cells; a step has at most {MAX_CELLS}", "too_large")
        return None
    cells: list[Mapping[str, Any]] = []
    for values in product(*lists.values()) if lists else ():
        cell: Mapping[str, Any] = dict(zip(lists, values, strict=True))
        if not any(rule and all(_same(cell[name], value) for name, value in rule.items()) for rule in excluded):
            cells.append(cell)
    cells += included
    if len(cells) > MAX_CELLS:
        reader.fault(path, f"comes to {len(cells)} cells; a step has at most {MAX_CELLS}", "too_large")
        return None
    seen: set[tuple[str, ...]] = set()
    for each in cells:
        parts = tuple(f"{name}={_named(value)}" for name, value in each.items())
        if parts in seen:
            reader.fault(path, f"has the cell {cell_text(each)[:200]} twice")
            return None
        seen.add(parts)
    return tuple(cells)


def cell_text(cell: Mapping[str, Any]) -> str:
    """A cell in one line: ``case=vping, site=a``; what would break the line, or a terminal, is escaped."""
    text = ", ".join(f"{name}={_named(value)}" for name, value in cell.items())
    return text if text.isprintable() else "".join(part if part.isprintable() else _escaped(part) for part in text)


def _named(value: Any) -> str:
    return "null" if value is None else written(value)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character < "\x7f" else f"\\u{ord(character):04x}"


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a matrix are one: 3.1 and 3.10 are two."""
    return bool(one == other) and _named(one) == _named(other)


def read_strategy(reader: Templates, value: Any, path: Path) -> tuple[int | None, bool]:
    """``max_parallel`` (None: no limit) and ``fail_fast``."""
    given = reader.mapping(value, path, ("max_parallel", "fail_fast"))
    most = reader.early(given.get("max_parallel"), (*path, "max_parallel"))
    fast = reader.early(given.get("fail_fast", False), (*path, "fail_fast"))
    parallel = None
    if "max_parallel" in given and not isinstance(most, Unknown):
        parallel = reader.count(most, (*path, "max_parallel"), most=10_000)
    return parallel, not isinstance(fast, Unknown) and reader.flag(fast, (*path, "fail_fast"))
