"""``matrix`` and ``strategy``: the cells that a step is run for. Pure."""

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
    """The cells in the order of the document; None if one of its lists is unknown or wrong."""
    given = reader.mapping(value, path)
    keys = matrix_keys(given)
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
        if isinstance(values, list) and values:
            lists[name] = values
        elif not isinstance(values, Unknown):
            reader.fault((*path, name), "must be a list of at least one value")
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
    if not cells:
        reader.fault(path, "comes to no cell at all")
        return None
    seen: set[str] = set()
    for each in cells:
        text = cell_text(each)
        if text in seen:
            reader.fault(path, f"has the cell {text[:200]} twice")
            return None
        seen.add(text)
    return tuple(cells)


def cell_text(cell: Mapping[str, Any]) -> str:
    """A cell in one line: ``case=vping, site=a``."""
    return ", ".join(f"{name}={written(value)}" for name, value in cell.items())


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a matrix are one: 3.1 and 3.10 are two."""
    return bool(one == other) and written(one) == written(other)


def read_strategy(reader: Templates, value: Any, path: Path) -> tuple[int | None, bool]:
    """``max_parallel`` (None: no limit) and ``fail_fast``."""
    given = reader.mapping(value, path, ("max_parallel", "fail_fast"))
    most = reader.early(given.get("max_parallel"), (*path, "max_parallel"))
    fast = reader.early(given.get("fail_fast", False), (*path, "fail_fast"))
    parallel = None
    if "max_parallel" in given and not isinstance(most, Unknown):
        parallel = reader.count(most, (*path, "max_parallel"), most=10_000)
    return parallel, not isinstance(fast, Unknown) and reader.flag(fast, (*path, "fail_fast"))
