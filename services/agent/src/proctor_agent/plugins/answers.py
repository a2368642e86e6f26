"""An HTTP answer as a step's output: reading and unpacking are bounded, and it is cut to the size of an output."""

import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import BaseModel, Field, JsonValue

from proctor_agent.plugin import MethodFault

MAX_BODY = 64 * 1024
"""At most so many bytes of an answer's body are read, after unpacking."""
ROOM = 56 * 1024
"""Bytes of JSON for the answer's headers, body and JSON in the output, of which 64 KiB are kept."""
HEADER_ROOM = 8 * 1024
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""What zlib calls the three forms of a deflated text."""


class HttpAnswer(BaseModel):
    """What the server answered."""

    status: int
    reason: str
    url: str
    headers: dict[str, str]
    """Names in lower case; several of one name are joined."""
    body: str
    """At most its first 64 KiB, as text; ``truncated`` if there was more."""
    json_: JsonValue = Field(default=None, serialization_alias="json")
    """The body as JSON; null if it is not JSON or too long."""
    truncated: bool
    duration_s: float


async def read_body(answer: httpx.Response) -> bytes:
    """At most MAX_BODY + 1 bytes of the unpacked body. Raises MethodFault ``http_failed``.

    Unpacking itself is bounded and done once: some hundred bytes that were packed twice can be gigabytes.
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
    """A function from packed bytes to at most so many unpacked ones; unknown encodings stay packed."""
    match encoding.strip().lower():
        case "gzip" | "x-gzip":
            return zlib.decompressobj(_GZIP).decompress
        case "deflate":
            return _Deflated().decompress
    return lambda packed, most: packed[:most]


class _Deflated:
    """``deflate`` by RFC 9110, also without the header, which some servers leave out."""

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


def shown(answer: httpx.Response, raw: bytes, seconds: float) -> HttpAnswer:
    """The answer in the size of an output: headers first, then JSON if all of it fits, then text."""
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
    return HttpAnswer(
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
