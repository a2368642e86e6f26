"""What records are made of, and how a request's body becomes one. No I/O."""

import math
import re
import secrets
import threading
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from typing import Any

from pydantic_core import to_json

from proctor_api.catalog.faults import bad
from proctor_common.json_walk import parts_of

MAX_NAME = 255
MAX_TEXT = 500
"""Characters: both are parts of index rows, which PostgreSQL holds to 2,700 bytes."""

POD = ("mode", "details", "role")
PROJECT = ("description",)
CASE = (
    "description",
    "url",
    "catalog_description",
    "tier",
    "ci_loop",
    "criteria",
    "blocking",
    "dependencies",
    "run",
    "domains",
    "tags",
    "version",
    "trust",
)
"""Members beside name, ``_id`` and ``creation_date`` (and, of a case, ``project_name``). Their values are free."""

_ID_LENGTH = 24
_process = secrets.token_hex(5)
_counter = count(secrets.randbelow(1 << 23))
_lock = threading.Lock()

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FAR = re.compile(rb"[eE][+-]?[0-9]{3}|[0-9]{300}")

KEPT = frozenset({"_id", "creation_date"})
"""The server's own; a client that sends back what it was given may name them."""


def new_record_id(now: datetime) -> str:
    """24 hex digits: seconds, this process, a counter. Later ones of one process sort after earlier ones."""
    with _lock:
        number = next(_counter) & 0xFFFFFF
    return f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{_process}{number:06x}"


def is_record_id(text: str) -> bool:
    """Whether a text has the shape of an ``_id``."""
    return len(text) == _ID_LENGTH and all(character in "0123456789abcdef" for character in text)


def object_of(body: Any) -> dict[str, Any]:
    """The object in a body. Raises 400."""
    if body is None:
        raise bad("there is no body; it must be a JSON object")
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    return body


def name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A name that must be there. Raises 400."""
    value = body.get(key)
    if value is None or value == "":
        raise bad(f"{key} is missing or empty")
    if not isinstance(value, str):
        raise bad(f"{key} must be a text")
    if len(value) > MAX_NAME:
        raise bad(f"{key} is longer than {MAX_NAME} characters")
    if not value.strip() or value != value.strip("/"):
        raise bad(f"{key} must not be blank, and not begin or end with a slash")
    if _CONTROL.search(value) or not {".", ".."}.isdisjoint(value.split("/")):
        raise bad(f"{key} must hold no control character and no part that is . or ..: it stands in addresses")
    return value


def project_name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A project's name: its address is the beginning of those of its test cases. Raises 400."""
    name = name_of(body, key)
    if "cases" in name.split("/")[1:]:
        raise bad(f"{key} must hold no part that is cases: behind it stand test cases")
    return name


def plain_name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A name that is one part of an address, such as a scenario's. Raises 400."""
    name = name_of(body, key)
    if "/" in name:
        raise bad(f"{key} must hold no slash")
    return name


def text_of(body: Mapping[str, Any], key: str) -> str | None:
    """A text that may be absent or null. Raises 400."""
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad(f"{key} must be a text")
    if len(value) > MAX_TEXT:
        raise bad(f"{key} is longer than {MAX_TEXT} characters")
    return value


def trust_of(body: Mapping[str, Any]) -> float:
    """``trust_indicator``, held between 0 and 1; 0 where it is absent. Raises 400."""
    value = body.get("trust_indicator")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad("trust_indicator must be a number from 0 to 1")
    return min(1.0, max(0.0, float(value)))


def members(body: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The members of a record that a body gives; what else it says is dropped."""
    return {name: body.get(name) for name in fields}


def changes_of(body: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """What a PUT wants changed: any subset of the fields and the name. Raises 400 for an unknown field."""
    wanted = object_of(body)
    for key in wanted:
        if key not in fields and key != "name" and key not in KEPT:
            raise bad(f"unknown field: {key[:100]}")
    if "name" in wanted:
        name_of(wanted)
    if "project_name" in wanted:
        name_of(wanted, "project_name")
    return {key: value for key, value in wanted.items() if key not in KEPT}


def dump(value: Any) -> str:
    """JSON text for a column of type json."""
    return to_json(value).decode()


def may_be_infinite(raw: bytes) -> bool:
    """Whether some number in JSON text may be beyond what a float holds: a look at its letters alone."""
    return _FAR.search(raw) is not None


def refuse_infinite(value: Any) -> None:
    """Raises 400 where a number in parsed JSON is beyond what a float holds."""
    for part in parts_of(value):
        if (isinstance(part, float) and not math.isfinite(part)) or (isinstance(part, int) and abs(part) > 10**308):
            raise bad("the body holds a number that is too large for a float")
