"""Text of a test plan as a value, with the place of each part: YAML 1.2 core schema, or JSON. Pure.

The C parser's events are followed one by one, so that a bomb is refused before it is built: nothing recurses, and
aliases are counted before they are followed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from proctor_controller.domain.schemas import Fault, dotted

MAX_BYTES = 512 * 1024
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_DIGITS = 300
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCT = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")

Place = tuple[int, int]


class BadText(Exception):
    """The text is no plan at all: ``fault`` says where and why."""

    def __init__(self, message: str, place: Place | None = None, code: str = "bad_yaml") -> None:
        super().__init__(message)
        line, column = place or (None, None)
        self.fault: Fault = {"code": code, "message": message, "path": "", "line": line, "column": column}


@dataclass(frozen=True, slots=True)
class Document:
    """A value of JSON's types. ``places``: line and column (from 1) of each part, by its dotted path."""

    value: Any
    places: dict[str, Place] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    place: Place
    kind: str
    value: Any = None
    items: list[Any] = field(default_factory=list)
    size: int = 1
    closed: bool = False


def read_text(text: str) -> Document:
    """The document in the text. Raises BadText."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise BadText(f"has more than {MAX_BYTES} bytes", code="too_large")
    try:
        root = _compose(text)
    except BadText as fault:
        found = _as_json(text) if fault.fault["code"] == "bad_yaml" else None
        if found is None:
            raise
        return found
    except (UnicodeError, ValueError, RecursionError) as fault:
        raise BadText("cannot be read") from fault
    places: dict[str, Place] = {}
    return Document(_to_value(root, places), places)


def _compose(text: str) -> _Node:
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        place = None if mark is None else (mark.line + 1, mark.column + 1)
        raise BadText(f"not YAML: {fault.problem or fault.context or 'cannot be read'}", place) from None
    except yaml.YAMLError as fault:
        raise BadText(f"not YAML: {str(fault).splitlines()[0][:200]}") from None
    if builder.root is None:
        raise BadText("is empty", (1, 1))
    return builder.root


class _Builder:
    """Puts the events together; a stack instead of recursion."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self._stack: list[_Node] = []
        self._anchors: dict[str, _Node] = {}
        self._documents = 0

    def take(self, event: Any) -> None:
        place = (event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else (1, 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise BadText("holds more than one document", place)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, place)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event, place)
            self._add(self._named(event, _Node(place, "scalar", _resolve(event, place), closed=True)))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._check_tag(event, place)
            if len(self._stack) >= MAX_DEPTH:
                raise BadText(f"is nested more than {MAX_DEPTH} deep", place, "too_deep")
            kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
            self._stack.append(self._named(event, _Node(place, kind)))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            node = self._stack.pop()
            node.closed = True
            self._add(node)

    def _named(self, event: Any, node: _Node) -> _Node:
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _check_tag(self, event: Any, place: Place) -> None:
        if event.tag is not None:
            raise BadText("tags are not allowed", place, "tag")

    def _alias(self, event: Any, place: Place) -> None:
        target = self._anchors.get(event.anchor)
        if target is None:
            raise BadText(f"there is no anchor {event.anchor[:60]!r} before this alias", place)
        if not target.closed:
            raise BadText("an alias leads into itself", place)
        self._add(target)

    def _add(self, node: _Node) -> None:
        if not self._stack:
            self.root = node
            return
        holder = self._stack[-1]
        holder.items.append(node)
        holder.size += node.size
        if holder.size > MAX_NODES:
            raise BadText(f"has more than {MAX_NODES} parts, with its aliases followed", node.place, "too_large")


def _resolve(event: Any, place: Place) -> Any:
    """A scalar's value by the core schema; quoted ones and blocks are text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > MAX_DIGITS and (_INT.match(text) or _FLOAT.match(text)):
        raise BadText("is too long for a number", place)
    if _INT.match(text):
        return int(text)
    if _OCT.match(text):
        return int(text[2:], 8)
    if _HEX.match(text):
        return int(text[2:], 16)
    if _FLOAT.match(text):
        number = float(text)
        if number in {float("inf"), float("-inf")}:
            raise BadText("is too large for a number", place)
        return number
    if _NO_NUMBER.match(text):
        raise BadText("infinity and not-a-number are not allowed", place)
    return text


def _to_value(root: _Node, places: dict[str, Place]) -> Any:
    """The node's value; its depth is bounded, its size too. Aliases become copies."""

    def build(node: _Node, path: str) -> Any:
        places.setdefault(path, node.place)
        if node.kind == "scalar":
            return node.value
        if node.kind == "sequence":
            return [build(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        mapping: dict[str, Any] = {}
        for key, value in _pairs(node):
            if not isinstance(key.value, str) or key.kind != "scalar":
                raise BadText("a key must be text: put it in quotes", key.place, "key")
            if key.value in mapping:
                raise BadText(f"the key {key.value[:60]!r} stands here twice", key.place, "duplicate_key")
            where = dotted([key.value], path)
            places[where] = key.place
            mapping[key.value] = build(value, where)
        return mapping

    return build(root, "")


def _pairs(node: _Node) -> Iterator[tuple[_Node, _Node]]:
    items = iter(node.items)
    return zip(items, items, strict=True)


def _as_json(text: str) -> Document | None:
    """JSON that is no YAML (pairs of surrogate escapes, tabs); None where it is no JSON either. It has no places."""
    if not text.lstrip().startswith("{"):
        return None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            raise BadText("a key stands twice in one object", code="duplicate_key")
        return mapping

    def refuse(name: str) -> Any:
        raise BadText(f"{name} is not allowed")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
        # Half a surrogate pair is no text.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    check_value(value)
    return Document(value)


def check_value(value: Any) -> None:
    """The limits of a document that came as a value. Raises BadText."""
    todo = [(value, 0)]
    count = 0
    while todo:
        part, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise BadText(f"is nested more than {MAX_DEPTH} deep", code="too_deep")
        if count > MAX_NODES:
            raise BadText(f"has more than {MAX_NODES} parts", code="too_large")
        if isinstance(part, str):
            _check_text(part)
        elif isinstance(part, dict):
            for name in part:
                _check_text(name)
            todo += [(child, depth + 1) for child in part.values()]
        elif isinstance(part, list):
            todo += [(child, depth + 1) for child in part]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadText("holds half of a surrogate pair, which is no text") from None
