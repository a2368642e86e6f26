"""Builds a document from the parts that a parser gives: its value, the position of each part, and its faults. Pure.

Parts come one by one, and aliases are counted before they are followed, so that an oversized document is refused before
it is built and nothing recurses too deeply. Passing a limit ends the reading; a fault of one part (a repeated key, a
tag) is noted, and the rest is read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_common.json_walk import parts_of, placed_parts
from proctor_common.limits import MAX_FAULTS
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.spelled import written

MAX_BYTES = 512 * 1024
MAX_DOCUMENT_DEPTH = 50
"""Levels of mappings and sequences in a document, with its aliases followed."""
MAX_NODES = 100_000
MAX_FOLLOWED = 8 * MAX_BYTES
"""Characters of all texts; a text that aliases refer to counts once for each of them."""
STANDS_IN = frozenset({"tag", "bad_scalar"})
"""Codes of faults whose part gets a substitute value: further faults of that part are not reported."""

Position = tuple[int, int]


class BadText(Exception):
    """The document cannot be read further: ``fault`` says where and why."""

    def __init__(self, message: str, place: Position | None = None, code: str = "bad_yaml", path: str = "") -> None:
        super().__init__(message)
        line, column = place or (None, None)
        self.fault = fault(code, message, path, line, column)


@dataclass(frozen=True, slots=True)
class Document:
    """A value of JSON's types."""

    value: Any
    places: dict[str, Position] = field(default_factory=dict)
    """Line and column (from 1) of each part, by its dotted path."""
    faults: tuple[Fault, ...] = ()
    """Faults of single parts, each with its location."""
    words: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TreeNode:
    """A part of a document."""

    place: Position
    kind: str
    """scalar, mapping (``items``: keys and values alternate) or sequence."""
    value: Any = None
    items: list["TreeNode"] = field(default_factory=list)
    size: int = 1
    height: int = 0
    """How deeply its parts are nested."""
    length: int = 0
    """Characters of its texts."""
    closed: bool = False
    wrong: str | None = None
    """The fault of a scalar, which then has no value."""
    word: str | None = None
    tagged: bool = False
    """It has a tag, which is not supported."""

    @property
    def name(self) -> str | None:
        """The key that a scalar is, as it is written; None: it is none."""
        if self.kind != "scalar" or self.value is None or self.wrong is not None:
            return None
        return self.word or written(self.value)


class Builder:
    """Puts the parts together; a stack instead of recursion."""

    def __init__(self) -> None:
        self.root: TreeNode | None = None
        self._stack: list[TreeNode] = []
        self._anchors: dict[str, TreeNode] = {}

    def scalar(self, node: TreeNode, anchor: str | None = None) -> None:
        """Add a part that has no parts of its own."""
        node.closed = True
        node.length = len(node.value) if isinstance(node.value, str) else 0
        self._name(node, anchor)
        self._add(node)

    def open(self, node: TreeNode, anchor: str | None = None) -> None:
        """The start of a mapping or a sequence. Raises BadText."""
        if len(self._stack) >= MAX_DOCUMENT_DEPTH:
            raise BadText(f"is nested more than {MAX_DOCUMENT_DEPTH} deep", node.place, "too_deep", self._path())
        self._name(node, anchor)
        self._stack.append(node)

    def close(self) -> None:
        """The end of the mapping or sequence that was opened last."""
        node = self._stack.pop()
        node.closed = True
        self._add(node)

    def alias(self, anchor: str | None, place: Position) -> None:
        """Add a copy of the part that has the anchor. Raises BadText."""
        target = self._anchors.get(anchor or "")
        if target is None:
            raise BadText(f"there is no anchor {str(anchor)[:60]!r} before this alias", place, path=self._path())
        if not target.closed:
            raise BadText("an alias leads into itself", place, path=self._path())
        if len(self._stack) + target.height > MAX_DOCUMENT_DEPTH:
            message = f"is nested more than {MAX_DOCUMENT_DEPTH} deep, with its aliases followed"
            raise BadText(message, place, "too_deep", self._path())
        self._add(target, place)

    def _name(self, node: TreeNode, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _add(self, node: TreeNode, place: Position | None = None) -> None:
        if not self._stack:
            self.root = node
            return
        holder = self._stack[-1]
        holder.items.append(node)
        holder.size += node.size
        holder.height = max(holder.height, node.height + 1)
        if holder.size > MAX_NODES:
            message = f"has more than {MAX_NODES} parts, with its aliases followed: {holder.size} up to here"
            raise BadText(message, place or node.place, "too_large", self._path())
        holder.length += node.length
        if holder.length > MAX_FOLLOWED:
            message = f"comes to more than {MAX_FOLLOWED} characters, with its aliases followed"
            raise BadText(message, place or node.place, "too_large", self._path())

    def _path(self) -> str:
        """The path of the next part."""
        parts: list[str | int] = []
        for node in self._stack:
            if node.kind == "sequence":
                parts.append(len(node.items))
            elif len(node.items) % 2:
                parts.append(str(node.items[-1].name)[:100])
        return dotted(parts)

    def document(self) -> Document:
        """The document, after all parts have been added. Raises BadText if there are none."""
        if self.root is None:
            raise BadText("the document is empty", (1, 1))
        return _Values().document(self.root)


class _Values:
    """Makes values of parts whose depth and size are checked already. Aliases become copies."""

    def __init__(self) -> None:
        self._places: dict[str, Position] = {}
        self._faults: list[Fault] = []
        self._words: dict[str, str] = {}

    def document(self, root: TreeNode) -> Document:
        value = self._build(root, "")
        return Document(value, self._places, tuple(self._faults), self._words)

    def _fault(self, message: str, code: str, path: str, place: Position) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(BadText(message, place, code, path).fault)

    def _build(self, node: TreeNode, path: str) -> Any:
        self._places.setdefault(path, node.place)
        if node.tagged:
            self._fault("tags are not allowed", "tag", path, node.place)
        if node.kind == "scalar":
            if node.wrong is not None and not node.tagged:
                self._fault(node.wrong, "bad_scalar", path, node.place)
            if node.word is not None:
                self._words[path] = node.word
            return node.value
        if node.kind == "sequence":
            return [self._build(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        mapping: dict[str, Any] = {}
        first: dict[str, Position] = {}
        for key, value in _pairs(node):
            name = key.name
            if name is None:
                self._fault("a key must be text: put it in quotes", "key", path, key.place)
                continue
            where = dotted([name], path)
            if name in first:
                line, column = first[name]
                before = f"it stands in line {line}, column {column} already"
                self._fault(f"the key {name[:60]!r} is repeated: {before}", "duplicate_key", where, key.place)
                self._merge(mapping, name, self._build(value, where))
                continue
            first[name] = key.place
            self._places.setdefault(where, key.place)
            mapping[name] = self._build(value, where)
        return mapping

    def _merge(self, mapping: dict[str, Any], name: str, again: Any) -> None:
        """Keep members that only the repeated key has, so that references to them are no faults too."""
        if isinstance(again, dict) and isinstance(mapping[name], dict):
            for key, value in again.items():
                mapping[name].setdefault(key, value)


def _pairs(node: TreeNode) -> Iterator[tuple[TreeNode, TreeNode]]:
    items = iter(node.items)
    return zip(items, items, strict=True)


def text_size(value: Any) -> int:
    """Characters of all texts in a value."""
    size = 0
    for part in parts_of(value):
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping):
            size += sum(map(len, part))
    return size


def check_size(size: int, limit_passed_at: Position | None = None) -> None:
    """Raises BadText for a document of more than MAX_BYTES characters."""
    if size > MAX_BYTES:
        passed = f"; the limit is passed in line {limit_passed_at[0]}" if limit_passed_at else ""
        raise BadText(f"has {size} bytes, and {MAX_BYTES} are allowed{passed}", limit_passed_at, "too_large")


def check_value(value: Any) -> None:
    """Check the limits of a document that came as a value. Raises BadText."""
    for count, (path, part) in enumerate(placed_parts(value), 1):
        if len(path) > MAX_DOCUMENT_DEPTH:
            raise BadText(f"is nested more than {MAX_DOCUMENT_DEPTH} deep", code="too_deep", path=dotted(path))
        if count > MAX_NODES:
            raise BadText(f"has more than {MAX_NODES} parts", code="too_large", path=dotted(path))
        if isinstance(part, str):
            _check_text(part, path)
        elif isinstance(part, dict):
            for name in part:
                _check_text(name, path)
    check_size(len(json.dumps(value, ensure_ascii=False).encode()))


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        where = dotted(path) if path else ""
        raise BadText("holds half of a surrogate pair, which is no text", path=where) from None
