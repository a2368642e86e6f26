"""An HTTP answer as the output of a step: read within bounds, unpacked within bounds, cut to what an output holds."""

import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import BaseModel, Field, JsonValue

from proctor_agent.plugin import MethodFault

MAX_BODY = 64 * 1024
"""Most bytes of an answer's body that are read, after unpacking."""
ROOM = 56 * 1024
"""Bytes of JSON for the answer's headers, body and JSON in the output, of which 64 KiB are kept."""
HEADER_ROOM = 8 * 1024
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""What zlib calls the three forms of a deflated text."""


class Answer(BaseModel):
    """What came back. ``headers``: names in lower case, several of one name joined · ``body``: text, its first 64 KiB
    at most; ``truncated`` says that there was more · ``json``: the body as JSON, null where it is none or too long.
    """

    status: int
    reason: str
    url: str
    headers: dict[str, str]
    body: str
    json_: JsonValue = Field(default=None, serialization_alias="json")
    truncated: bool
    duration_s: float


async def read_body(answer: httpx.Response) -> bytes:
    """The body, unpacked; at most MAX_BODY + 1 bytes of it. Raises MethodFault ``http_failed``.

    Unpacking is bounded in itself, and done once: some hundred bytes packed twice are some gigabytes.
    """
    unpack = _unpacker(answer.headers.get("content-encoding", ""))
    parts: list[bytes] = []
    left = MAX_BODY + 1
    try:
        async for packed in answer.aiter_raw():
            part = unpack(packed, left)
            parts.append(part)
            left -= len(part)
            if left <= 0:
                break
    except zlib.error as fault:
        raise MethodFault("http_failed", f"the answer cannot be unpacked: {fault}") from None
    return b"".join(parts)


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes]:
    """From packed bytes to at most so many unpacked ones; what is packed in another way stays as it came."""
    match encoding.strip().lower():
        case "gzip" | "x-gzip":
            return zlib.decompressobj(_GZIP).decompress
        case "deflate":
            return _Deflated().decompress
    return lambda packed, most: packed[:most]


class _Deflated:
    """``deflate`` as RFC 9110 has it, and without the header that some servers leave out."""

    def __init__(self) -> None:
        self._made: Any = None

    def decompress(self, packed: bytes, most: int) -> bytes:
        if self._made is None:
            self._made = zlib.decompressobj(_ZLIB)
            try:
                return bytes(self._made.decompress(packed, most))
            except zlib.error:
                self._made = zlib.decompressobj(_RAW)
        return bytes(self._made.decompress(packed, most))


def shown(answer: httpx.Response, raw: bytes, seconds: float) -> Answer:
    """The answer in what an output has room for: headers first, then JSON where it is whole, then text."""
    headers: dict[str, str] = {}
    room = HEADER_ROOM
    for name, said in answer.headers.items():
        room -= len(name) + len(said) + 8
        if room < 0:
            break
        headers[name] = said
    truncated = len(raw) > MAX_BODY
    text = _decode(raw[:MAX_BODY], answer.charset_encoding)
    left = ROOM - _size(headers)
    value: JsonValue = None if truncated else _json_of(answer, text)
    if value is not None and _size(value) > left:
        value = None
    body, cut = _cut(text, left - (_size(value) if value is not None else 0))
    return Answer(
        status=answer.status_code,
        reason=answer.reason_phrase,
        url=str(answer.request.url),
        headers=headers,
        body=body,
        json_=value,
        truncated=truncated or cut,
        duration_s=round(seconds, 6),
    )


def _decode(raw: bytes, charset: str | None) -> str:
    try:
        return raw.decode(charset or "utf-8", "replace")
    except LookupError:
        return raw.decode("utf-8", "replace")


def _json_of(answer: httpx.Response, text: str) -> Any:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not (kind == "application/json" or kind.endswith("+json") or kind == "text/plain"):
        return None
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _cut(text: str, room: int) -> tuple[str, bool]:
    """The beginning of the text that takes at most ``room`` bytes as JSON, and whether anything was cut."""
    if _size(text) <= room:
        return text, False
    fits, too_many = 0, len(text)
    while fits + 1 < too_many:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if _size(text[:middle]) <= room else (fits, middle)
    return text[:fits], True
