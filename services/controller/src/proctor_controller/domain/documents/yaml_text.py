"""Reads the text of a test plan as a document: YAML 1.2 core schema, or JSON. Pure.

The C parser's events are read one by one and given to ``tree.Builder``.
"""

import re
from typing import Any

import yaml

from proctor_controller.domain.documents.json_text import build_json
from proctor_controller.domain.documents.spelled import spell
from proctor_controller.domain.documents.tree import (
    MAX_BYTES,
    BadText,
    Builder,
    Document,
    Position,
    TreeNode,
    check_size,
)

MAX_DIGITS = 300
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCT = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")


class _BadScalar(ValueError):
    """Text that looks like a number but cannot be one."""


def read_text(text: str) -> Document:
    """The document in the text, with the faults of its parts. Raises BadText if it cannot be read to its end."""
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        before = data[:MAX_BYTES].decode("utf-8", "ignore")
        check_size(len(data), (before.count("\n") + 1, len(before) - before.rfind("\n")))
    try:
        builder = _compose(text)
    except BadText as fault:
        found = build_json(text) if fault.fault["code"] == "bad_yaml" else None
        if found is None:
            raise
        builder = found
    except (UnicodeError, ValueError, RecursionError) as fault:
        raise BadText("cannot be read") from fault
    return builder.document()


def _compose(text: str) -> Builder:
    builder = Builder()
    try:
        documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            place = (event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else (1, 1)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise BadText("holds more than one document", place)
            else:
                _take(builder, event, place)
    except yaml.MarkedYAMLError as fault:
        raise _not_yaml(text, fault) from None
    except yaml.YAMLError as fault:
        raise BadText(f"not YAML: {str(fault).splitlines()[0][:200]}") from None
    return builder


def _not_yaml(text: str, fault: yaml.MarkedYAMLError) -> BadText:
    """The parser's complaint, with the start of the part that it was reading."""
    mark = fault.problem_mark or fault.context_mark
    place = None if mark is None else (mark.line + 1, mark.column + 1)
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return BadText("not YAML: the line is indented by a tab; YAML takes blanks only", place)
    said = str(fault.problem or fault.context or "cannot be read")
    if fault.problem and fault.context and fault.context_mark is not None:
        said += f" {fault.context}, which begins in line {fault.context_mark.line + 1}"
    return BadText(f"not YAML: {said}", place)


def _take(builder: Builder, event: Any, place: Position) -> None:
    if isinstance(event, yaml.AliasEvent):
        builder.alias(event.anchor, place)
    elif isinstance(event, yaml.ScalarEvent):
        node = TreeNode(place, "scalar", tagged=event.tag is not None)
        try:
            node.value = _resolve(event)
            if isinstance(node.value, bool) and event.value not in {"true", "false"}:
                node.word = event.value
        except _BadScalar as wrong:
            node.wrong = str(wrong)
        builder.scalar(node, event.anchor)
    elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
        kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
        builder.open(TreeNode(place, kind, tagged=event.tag is not None), event.anchor)
    elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
        builder.close()


def _resolve(event: Any) -> Any:
    """A scalar's value by the core schema; quoted ones and blocks are text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > MAX_DIGITS and any(form.match(text) for form in (_INT, _FLOAT, _OCT, _HEX)):
        raise _BadScalar(f"is too long for a number: {len(text)} characters, and {MAX_DIGITS} are allowed")
    if _INT.match(text):
        return spell(int(text), text)
    if _OCT.match(text):
        return spell(int(text[2:], 8), text)
    if _HEX.match(text):
        return spell(int(text[2:], 16), text)
    if _FLOAT.match(text):
        number = float(text)
        if number in {float("inf"), float("-inf")}:
            raise _BadScalar("is too large for a number")
        return spell(number, text)
    if _NO_NUMBER.match(text):
        raise _BadScalar("infinity and not-a-number are not allowed")
    return text
