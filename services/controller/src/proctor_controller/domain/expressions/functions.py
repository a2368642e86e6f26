"""The functions of expressions that the library does not have, under the names of CEL's own extensions. Pure.

Each is bounded by what it is given and by what it makes: an evaluation is stopped between two calls.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from proctor_common.json_walk import placed_parts
from proctor_controller.domain.documents.json_schema import BadSchema, compile_pattern
from proctor_controller.domain.documents.spelled import written
from proctor_controller.domain.expressions.cost import MAX_ELEMENTS, MAX_FILLED, MAX_READ
from proctor_controller.domain.expressions.fault import Unfit
from proctor_controller.domain.expressions.text_format import format_text

MAX_PATTERN = 1000
MAX_PATTERNS = 100
MAX_MATCHED = 4 * 1024 * 1024
MAX_DEPTH = 60
MAX_MADE = 4 * MAX_ELEMENTS
"""Parts that the functions of one evaluation make all together; split, json.decode and regex.extractAll make
MAX_ELEMENTS at a time."""
_WHOLE = 2**63
_TO_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_TO_UPPER = {code + 32: code for code in range(ord("A"), ord("Z") + 1)}
_TRUE, _FALSE = ("true", "True", "TRUE", "t", "1"), ("false", "False", "FALSE", "f", "0")


class Functions:
    """Those of one evaluation: what they make all together is bounded."""

    def __init__(self) -> None:
        self._patterns: set[str] = set()
        self._matched = 0
        self._parts = self._characters = 0

    def table(self) -> Mapping[str, Callable[..., Any]]:
        """By the names that a compiled expression calls them."""
        return {
            "proctor_matches": self._matches, "proctor_size": _size, "proctor_json_decode": _decode,
            "proctor_json_encode": _encode, "proctor_regex_extract": self._extract,
            "proctor_regex_extract_all": self._extract_all, "proctor_regex_replace": self._regex_replace,
            "bool": _bool, "string": _string, "text": written, "join": _join, "charAt": _char_at,
            "distinct": _distinct, "flatten": _flatten, "format": format_text, "indexOf": _index_of,
            "lastIndexOf": _last_index_of, "lowerAscii": lambda text: _text(text).translate(_TO_LOWER),
            "upperAscii": lambda text: _text(text).translate(_TO_UPPER), "replace": _replace, "reverse": _reverse,
            "slice": _slice, "sort": _sort, "split": _split, "substring": _substring,
            "trim": lambda text: _text(text).strip(),
        }  # fmt: skip

    def taken(self, value: Any) -> Any:
        """What a function made. Raises Unfit where all of them made too much."""
        if isinstance(value, str):
            self._characters += len(value)
        elif isinstance(value, list | dict):
            for path, part in placed_parts(value):
                self._parts += 1
                self._characters += len(part) if isinstance(part, str) else 0
                if len(path) > MAX_DEPTH or self._parts > MAX_MADE:
                    break
        if self._parts > MAX_MADE or self._characters > MAX_READ:
            raise Unfit(f"its functions come to more than {MAX_MADE} parts or {MAX_READ} characters")
        return value

    def _pattern(self, text: Any, pattern: Any, name: str) -> Any:
        if not isinstance(text, str) or not isinstance(pattern, str):
            raise TypeError(f"{name} takes two texts")
        self._patterns.add(pattern)
        self._matched += len(text)
        if len(pattern) > MAX_PATTERN or len(self._patterns) > MAX_PATTERNS:
            raise Unfit(f"{name} takes patterns of at most {MAX_PATTERN} characters, {MAX_PATTERNS} of them")
        if self._matched > MAX_MATCHED:
            raise Unfit(f"{name} looks through more than {MAX_MATCHED} characters")
        try:
            return compile_pattern(pattern)
        except BadSchema:
            raise Unfit(f"{name} takes a pattern of the linear-time engine (RE2)") from None

    def _matches(self, text: Any, pattern: Any) -> bool:
        return self._pattern(text, pattern, "matches").search(text) is not None

    def _extract(self, text: Any, pattern: Any) -> str | None:
        """The first match, or its one group; null where there is none."""
        found = self._one_group(text, pattern).search(text)
        return None if found is None else found.group(found.re.groups)

    def _extract_all(self, text: Any, pattern: Any) -> list[str]:
        compiled, made = self._one_group(text, pattern), []
        for found in compiled.finditer(text):
            part = found.group(compiled.groups)
            made += [part] if part is not None else []
            if len(made) > MAX_ELEMENTS:
                raise Unfit(f"regex.extractAll comes to more than {MAX_ELEMENTS} parts")
        return made

    def _one_group(self, text: Any, pattern: Any) -> Any:
        compiled = self._pattern(text, pattern, "regex.extract")
        if compiled.groups > 1:
            raise Unfit("regex.extract takes a pattern with one group at most")
        return compiled

    def _regex_replace(self, text: Any, pattern: Any, by: Any, count: Any = -1) -> str:
        compiled = self._pattern(text, pattern, "regex.replace")
        made, end, size, left = [], 0, 0, _whole(count)
        for found in compiled.finditer(text):
            if left == 0:
                break
            left -= 1
            made += [text[end : found.start()], _expanded(found, _text(by))]
            size += len(made[-1])
            end = found.end()
            if len(made) > 2 * MAX_ELEMENTS:
                raise Unfit(f"regex.replace takes text with {MAX_ELEMENTS} matches at most")
            _check_size(size, "regex.replace")
        return "".join([*made, text[end:]])


def _expanded(found: Any, by: str) -> str:
    """The replacement with ``\\1`` for a group, ``\\\\`` for a backslash."""
    pieces = by.split("\\\\")
    for index, piece in enumerate(pieces):
        first, *others = piece.split("\\")
        for other in others:
            if not other[:1].isdecimal() or int(other[0]) > found.re.groups:
                raise Unfit("regex.replace takes \\0 to \\9 for the groups that there are")
            first += (found.group(int(other[0])) or "") + other[1:]
        pieces[index] = first
    return "\\".join(pieces)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _check_size(size: int, name: str) -> None:
    if size > MAX_FILLED:
        raise Unfit(f"{name} comes to more than {MAX_FILLED} characters")


def _size(value: Any) -> int:
    if not isinstance(value, str | list | dict | bytes):
        raise TypeError
    return len(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if _text(value) not in _TRUE + _FALSE:
        raise Unfit("bool takes true or false as text")
    return value in _TRUE


def _string(value: Any) -> str:
    if not isinstance(value, bool):
        raise TypeError
    return "true" if value else "false"


def _join(values: Any, delimiter: Any = "") -> str:
    texts = [written(value) for value in _list(values)]
    _check_size(sum(map(len, texts)) + len(_text(delimiter)) * len(texts), "join")
    return _text(delimiter).join(texts)


def _char_at(text: Any, at: Any) -> str:
    if not 0 <= _whole(at) <= len(_text(text)):
        raise Unfit("charAt takes a place within the text")
    return str(text[at : at + 1])


def _index_of(text: Any, part: Any, start: Any = 0) -> int:
    if not 0 <= _whole(start) <= len(_text(text)):
        raise Unfit("indexOf takes a place within the text")
    return text.find(_text(part), start) if isinstance(text, str) else -1


def _last_index_of(text: Any, part: Any, start: Any = None) -> int:
    if start is not None and not 0 <= _whole(start) <= len(_text(text)):
        raise Unfit("lastIndexOf takes a place within the text")
    return _text(text).rfind(_text(part), 0, None if start is None else start + len(part))


def _replace(text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    count = _text(text).count(_text(old))
    count = count if _whole(limit) < 0 else min(count, limit)
    _check_size(len(text) + count * (len(_text(new)) - len(old)), "replace")
    return str(text.replace(old, new, limit if limit >= 0 else -1))


def _split(text: Any, delimiter: Any, limit: Any = -1) -> list[str]:
    if _whole(limit) == 0:
        return []
    if _text(text).count(_text(delimiter)) > MAX_ELEMENTS and not 0 < limit <= MAX_ELEMENTS:
        raise Unfit(f"split comes to more than {MAX_ELEMENTS} parts")
    if delimiter:
        return list(text.split(delimiter, limit - 1 if limit > 0 else -1))
    most = limit - 1 if 0 < limit <= len(text) else len(text)
    return [*text[:most], *([text[most:]] if text[most:] else [])]


def _substring(text: Any, start: Any, end: Any = None) -> str:
    end = len(_text(text)) if end is None else _whole(end)
    if not 0 <= _whole(start) <= end <= len(text):
        raise Unfit("substring takes two places within the text, the first one first")
    return str(text[start:end])


def _slice(values: Any, start: Any, end: Any) -> list[Any]:
    if not 0 <= _whole(start) <= _whole(end) <= len(_list(values)):
        raise Unfit("slice takes two places within the list, the first one first")
    return list(values[start:end])


def _reverse(value: Any) -> str | list[Any]:
    return value[::-1] if isinstance(value, str) else _list(value)[::-1]


def _sort(values: Any) -> list[Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in _list(values))
    kinds = {type(value) for value in values}
    if not numbers and (len(kinds) > 1 or kinds & {list, dict, type(None)}):
        raise Unfit("sort takes a list of numbers, of texts or of other values of one kind")
    return sorted(values)


def _distinct(values: Any) -> list[Any]:
    known: dict[str, Any] = {}
    for value in _list(values):
        known.setdefault(_key(value), value)
    return list(known.values())


def _key(value: Any) -> str:
    """Text that is the same for equal values: 1 and 1.0 are."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(_key, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_key(name)}:{_key(part)}" for name, part in value.items())) + "}"
    return json.dumps(value) if isinstance(value, str | int | float | None) else repr(value)


def _flatten(values: Any, depth: Any = 1) -> list[Any]:
    if _whole(depth) < 0:
        raise Unfit("flatten takes a depth of 0 or more")
    made: list[Any] = []
    left = [(value, depth) for value in reversed(_list(values))]
    while left:
        value, deeper = left.pop()
        if isinstance(value, list) and deeper > 0:
            left += [(part, deeper - 1) for part in reversed(value)]
        else:
            made.append(value)
    return made


def _decode(text: Any) -> Any:
    _check_size(len(_text(text)), "json.decode")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_int=_int, parse_float=_float)
    except (ValueError, RecursionError):
        raise Unfit("json.decode takes JSON text") from None
    for count, (path, _) in enumerate(placed_parts(value)):
        if len(path) > MAX_DEPTH or count > MAX_ELEMENTS:
            raise Unfit(f"json.decode takes text of {MAX_ELEMENTS} parts and {MAX_DEPTH} levels at most")
    return value


def _no_number(_: str) -> Any:
    raise ValueError


def _int(text: str) -> int:
    if len(text) > 20 or not -_WHOLE <= int(text) < _WHOLE:
        raise Unfit("json.decode found a number that is out of range")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unfit("json.decode found a number that is out of range")
    return value


def _encode(value: Any) -> str:
    made = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, default=_plain)
    _check_size(len(made), "json.encode")
    return made


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    raise TypeError
