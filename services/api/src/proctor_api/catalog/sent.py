"""Values as the clients of results send them, made into what can be stored; what is lost by that is named. No I/O.

A client that gets a 400 loses its result and rarely tells anybody, so that a member that cannot be stored costs itself
only. What stands in ``details`` stays as it is, but for numbers and characters that the database cannot hold.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic_core

from proctor_api.catalog.faults import bad
from proctor_api.catalog.fields import MAX_TEXT, may_be_infinite, name_of
from proctor_api.http.bodies import MAX_BODY_DEPTH, depth_exceeds, parse_json
from proctor_common.errors import ProctorError
from proctor_common.json_walk import parts_of

MOST_NAMES = 20
AHEAD = timedelta(days=1)
"""A start further ahead of its arrival comes from a clock that is wrong."""
MAX_NUMBER = 2**31 - 1
_LONGEST_NAME = 200
_LARGEST = 10**308
_MILLISECONDS = 10**11
"""Numbers beyond are milliseconds since the epoch, not seconds."""
_BOM = b"\xef\xbb\xbf"
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_HALVES = ("surrogate", "unexpected end of hex escape")


class Dropped:
    """Names of members that were dropped, cut or replaced: the first MOST_NAMES, each once."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Name a member; one of ``details`` by its path, as ``details.0.mean``."""
        if len(self._names) < MOST_NAMES:
            self._names[name[:_LONGEST_NAME]] = None

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were found."""
        return tuple(self._names)


def read_json(raw: bytes, dropped: Dropped) -> Any:
    """The JSON value in a body, with null for NaN, infinity and numbers beyond float, U+FFFD for NULs and lone
    surrogates. Raises 400: no JSON, too deep.
    """
    raw = raw.removeprefix(_BOM)
    mends = b"\\u0000" in raw
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=True)
    except ValueError as fault:
        if not any(word in str(fault) for word in _HALVES):
            raise _no_json(raw) from None
        try:
            value = json.loads(raw.decode())
        except (ValueError, RecursionError):
            raise _no_json(raw) from None
        mends = True
    if raw.count(b"[") + raw.count(b"{") > MAX_BODY_DEPTH and depth_exceeds(value, MAX_BODY_DEPTH):
        raise bad(f"the body is nested deeper than {MAX_BODY_DEPTH}")
    if not mends and (b"NaN" in raw or b"Infinity" in raw or may_be_infinite(raw)):
        mends = any(map(_is_no_number, parts_of(value)))
    return _mend([value], dropped)[0] if mends else value


def _no_json(raw: bytes) -> ProctorError:
    try:
        parse_json(raw)
    except ProctorError as fault:
        return bad(fault.message)
    return bad("the body is no JSON")


def _mend(value: list[Any], dropped: Dropped) -> list[Any]:
    """The value with what cannot be stored replaced, in place; deep values are walked through with a list."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        path, part = left.pop()
        if isinstance(part, dict) and any(map(_NO_TEXT.search, part)):
            members = [(_readable(name), name, child) for name, child in part.items()]
            part.clear()
            for shown, name, child in members:
                part[shown] = child
                if shown != name:
                    dropped.add(f"{path}.{shown}" if path else shown)
        for name, child in list(part.items() if isinstance(part, dict) else enumerate(part)):
            where = f"{path}.{name}" if path else "" if part is value else str(name)
            if isinstance(child, str) and _NO_TEXT.search(child):
                part[name] = _readable(child)
                dropped.add(where)
            elif _is_no_number(child):
                part[name] = None
                dropped.add(where)
            elif isinstance(child, dict | list):
                left.append((where, child))
    return value


def _readable(text: str) -> str:
    return _NO_TEXT.sub("\ufffd", text)


def _is_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and abs(value) > _LARGEST


def bare(value: Any) -> Any:
    """The value in what exports of MongoDB write for it, such as ``{"$numberLong": "5"}``; all else as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    try:
        if kind in {"$oid", "$symbol", "$uuid"} and isinstance(inner, str):
            return inner
        if kind in {"$numberLong", "$numberInt"}:
            return int(str(inner)[:40])
        if kind in {"$numberDouble", "$numberDecimal"}:
            return float(inner)
        if kind == "$timestamp":
            return _iso(float(inner["t"]))
        if kind == "$date":
            inner = bare(inner)
            return inner if isinstance(inner, str) else _iso(float(inner) / 1000)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return value
    return None if kind == "$undefined" else value


def _iso(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def name_sent(body: Mapping[str, Any], key: str, dropped: Dropped) -> str:
    """A name that must be there, also one that is a number. Raises 400."""
    if key in dropped.names:
        raise bad(f"{key} must be a text without NUL and lone surrogates")
    value = bare(body.get(key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _as_text(value)
    return name_of({key: value}, key)


def text_sent(body: Mapping[str, Any], key: str, dropped: Dropped) -> str | None:
    """A text that may be absent; of a number its digits, of one that is too long its beginning."""
    value = bare(body.get(key))
    if isinstance(value, bool | int | float) and not _is_no_number(value):
        value = _as_text(value)
    if value is not None and not isinstance(value, str):
        dropped.add(key)
        return None
    if value is not None and len(value) > MAX_TEXT:
        dropped.add(key)
        return value[:MAX_TEXT]
    return value


def date_sent(body: Mapping[str, Any], key: str, dropped: Dropped) -> str | None:
    """A date as text; a number is seconds or milliseconds since the epoch."""
    value = bare(body.get(key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _iso(value / 1000 if abs(value) >= _MILLISECONDS else value)
        except (ValueError, OverflowError):
            dropped.add(key)
            return None
    return text_sent(body, key, dropped)


def trust_sent(body: Mapping[str, Any], dropped: Dropped) -> float:
    """``trust_indicator``, limited to 0..1; 0 if it is absent or no number. Exports have it in ``current``."""
    key = "trust_indicator"
    value = bare(body.get(key))
    if isinstance(value, dict) and "current" in value:
        for name, member in value.items():
            if name != "current" and member not in (None, [], {}, ""):
                dropped.add(f"{key}.{name}")
        key, value = f"{key}.current", bare(value["current"])
    if value is None:
        return 0.0
    number = _number(value)
    if number is None:
        dropped.add(key)
        return 0.0
    return min(1.0, max(0.0, number))


def integer_sent(body: Mapping[str, Any], key: str, dropped: Dropped) -> int | None:
    """An integer from 0 to MAX_NUMBER, also one that is written as text."""
    value = bare(body.get(key))
    number = None if value is None else _number(value)
    if number is None or number != int(number) or not 0 <= number <= MAX_NUMBER:
        if value is not None:
            dropped.add(key)
        return None
    return int(number)


def drop_unknown(body: Mapping[str, Any], known: frozenset[str], dropped: Dropped) -> None:
    """Name the members of a body that no record has."""
    for name in body:
        if name not in known:
            dropped.add(name)


def _number(value: Any) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, str) and len(value) <= 64 and value.isascii() and "_" not in value:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_no_number(value):
        return None
    return float(value)


def _as_text(value: Any) -> str:
    return pydantic_core.to_json(value).decode()
