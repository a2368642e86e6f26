"""Bodies of requests and answers. A request's body is bounded while it is read, and parsed as strict JSON without NULs,
which PostgreSQL cannot store. An answer is typed with the view that it is the JSON of.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import pydantic_core
from fastapi import Request, Response

from proctor_common.errors import Code, Fault, ProctorError, fault, faults
from proctor_common.limits import MAX_FAULTS
from proctor_common.messages.base import Encoded

JSON = "application/json"
MAX_BODY_DEPTH = 100
"""Levels of lists and objects in a body, because later code walks them recursively."""
URL_LIMIT = 8 * 1024
PATIENCE = 8 * 1024 * 1024
"""Bytes beyond the limit that are read and dropped, so that the client gets to read the error."""

T = TypeVar("T")


class ViewResponse(Response, Generic[T]):
    """An answer with the JSON of a T."""

    def __init__(self, view: Encoded[T], status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(view.data, status, headers, JSON)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most ``limit`` bytes. Raises 413 as soon as more is announced or received."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced[:20]) > limit:
        # The server drops the rest of the body; if that is very long, it closes the connection instead.
        length = int(announced[:20])
        raise too_large("the body", limit, length, hang_up=length > limit + PATIENCE)
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > limit + PATIENCE:
            raise too_large("the body", limit, hang_up=True)
    if size > limit:
        raise too_large("the body", limit, size)
    return b"".join(parts)


def too_large(what: str, limit: int, size: int | None = None, *, hang_up: bool = False) -> ProctorError:
    """413 with the limit in bytes, and the size if known; ``hang_up``: close the connection after the answer."""
    more: dict[str, Any] = {"hang_up": True} if hang_up else {}
    said = f"{what} is over the limit of {limit} bytes"
    if size is not None:
        said, more = f"{said}: it has {size}", {"size": size, **more}
    return ProctorError(Code.TOO_LARGE, said, limit=limit, **more)


def parse_json(body: bytes) -> Any:
    """The JSON value in a body. Raises 400 bad_json; 422 for NUL characters or a depth over MAX_BODY_DEPTH."""
    if not body.strip():
        raise ProctorError(Code.BAD_JSON, "the body is empty; it must be JSON")
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as fault:
        text = str(fault)
        if "recursion" in text:
            raise _too_deep() from None
        if "surrogate" in text or "unexpected end of hex escape" in text:  # the latter: no second half follows a first
            raise ProctorError(
                Code.BAD_JSON, f"the body holds a lone surrogate, which is not valid Unicode: {text}"
            ) from None
        raise ProctorError(Code.BAD_JSON, f"the body is not JSON: {text}") from None
    if body.count(b"[") + body.count(b"{") > MAX_BODY_DEPTH and depth_exceeds(value, MAX_BODY_DEPTH):
        raise _too_deep()
    if b"\\u0000" in body:
        found: list[Fault] = []
        _find_nul(value, [], found)
        if found:
            raise faults(found)
    return value


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested more than ``limit`` deep."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            member
            for parent in level
            if isinstance(parent, dict | list)
            for member in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


def refuse_nul(where: str, value: str) -> None:
    """Raises 422 if a text from the URL has a NUL character."""
    if "\0" in value:
        raise faults([fault("nul_character", f"{where}: holds a NUL character", where)])


def _too_deep() -> ProctorError:
    return faults([fault("too_deep", f"the body is nested deeper than {MAX_BODY_DEPTH}")])


def _find_nul(value: Any, path: list[str], found: list[Fault]) -> None:
    if len(found) >= MAX_FAULTS:
        return
    if isinstance(value, str):
        if "\0" in value:
            where = ".".join(path)
            found.append(fault("nul_character", f"{where}: holds a NUL character", where))
    elif isinstance(value, dict):
        for key, member in value.items():
            if "\0" in key:
                where = ".".join([*path, key.replace("\0", "\\u0000")])
                found.append(fault("nul_character", f"{where}: a name holds a NUL character", where))
            _find_nul(member, [*path, key], found)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _find_nul(member, [*path, str(index)], found)
