"""Plans sent as JSON objects in which a name occurs twice. A parser would silently keep the last one."""

import json
import re
from typing import Any

from fastapi import Request

from proctor_common.errors import Fault, fault, faults

_BLANK = re.compile(r"[ \t\r\n]*")
_WORD = json.JSONDecoder()


async def plan_as_sent(request: Request, plan: Any, member: str | None = "plan") -> Any:
    """The plan as parsed; as its original text if a name occurs twice in it, so that the controller reports each
    repetition with its line and column. ``member``: the member of the body that holds the plan; None if the body is it.

    Raises 422 if a member of the body itself occurs twice.
    """
    if isinstance(plan, str):
        return plan
    text = (await request.body()).decode()
    if not _is_repeating(text):
        return plan
    parts = _members(text)
    names = [name for name, _ in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and member is not None:
        raise faults([_fault(name) for name in twice])
    return text if member is None else dict(parts).get(member, plan)


def _is_repeating(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=look)
    return found


def _members(text: str) -> list[tuple[str, str]]:
    """Name and text of each member of a JSON object; the text is known to be valid."""
    found: list[tuple[str, str]] = []
    at = _skip(text, text.index("{") + 1)
    while text[at] == '"':
        name, at = _WORD.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, at = _WORD.raw_decode(text, start)
        found.append((str(name), text[start:at]))
        at = _skip(text, at)
        if text[at] != ",":
            break
        at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _fault(name: str) -> Fault:
    return fault("duplicate_key", f"the member {name!r} occurs twice in the body", name)
