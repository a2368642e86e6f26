"""The limits of an attempt's end: texts of bounded length, and an output of at most 64 KiB of JSON. Pure."""

import json
from typing import Any

from proctor_common.limits import MAX_OUTPUT
from proctor_common.messages.base import JsonObject

LEAST_TEXT = 256
"""A text keeps at least so many characters, however long the others are."""
CUT = "(cut) …"
TRUNCATED = "truncated"
"""Member that names the members that were left out."""


def shorten(text: str, most: int) -> str:
    """The text in at most ``most`` characters, cut at its end."""
    text = whole(text)
    return text if len(text) <= most else f"{text[: most - 2]} …"


def fit(output: JsonObject, most: int = MAX_OUTPUT) -> JsonObject:
    """The output in at most ``most`` bytes of JSON: long texts lose their beginning, ``stdout`` first, then the
    longest; if that is not enough, the largest members are left out and named.
    """
    size = _size(output)
    if size is not None and size <= most:
        return output
    clean: dict[str, Any] = {whole(str(key)): _clean(value) for key, value in output.items()}
    texts = [key for key, value in clean.items() if isinstance(value, str)]
    for key in sorted(texts, key=lambda key: (key != "stdout", -len(clean[key]))):
        over = _json_size(clean) - most
        if over <= 0:
            return clean
        clean[key] = _tail(clean[key], _json_size(clean[key]) - over)
    left_out: list[str] = []
    for key in sorted(clean, key=lambda key: -_json_size(clean[key])):
        if _json_size(clean) <= most:
            break
        del clean[key]
        left_out.append(shorten(key, 100))
        clean[TRUNCATED] = left_out[:16]
    return clean


def whole(text: str) -> str:
    """The text with unpaired surrogates replaced, so that it can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _clean(value: Any) -> Any:
    match value:
        case str():
            return whole(value)
        case dict():
            return {whole(str(key)): _clean(member) for key, member in value.items()}
        case list() | tuple():
            return [_clean(member) for member in value]
        case _:
            return value


def _tail(text: str, most: int) -> str:
    """The end of the text, of at most ``most`` bytes of JSON, but at least LEAST_TEXT characters."""
    if len(text) <= LEAST_TEXT:
        return text
    least, too_many = LEAST_TEXT, len(text)
    while least + 1 < too_many:
        middle = (least + too_many) // 2
        if _json_size(CUT + text[-middle:]) <= most:
            least = middle
        else:
            too_many = middle
    return CUT + text[-least:]


def _size(value: Any) -> int | None:
    """Bytes of JSON; None if it cannot be encoded as UTF-8."""
    try:
        return _json_size(value)
    except UnicodeEncodeError:
        return None


def _json_size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
