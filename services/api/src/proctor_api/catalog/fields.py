"""The members of records, and reading them from the body of a request. No I/O."""

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
"""Characters. Names and texts are in index rows, which PostgreSQL limits to 2,700 bytes."""

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
"""Members in addition to name, ``_id`` and ``creation_date`` (test case: ``project_name``). They hold any JSON."""

_ID_LENGTH = 24
_process = secrets.token_hex(5)
_counter = count(secrets.randbelow(1 << 23))
_lock = threading.Lock()

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FAR = re.compile(rb"[0-9][eE][+-]?[0-9]{3}|[0-9]{300}")

KEPT = frozenset({"_id", "creation_date"})
"""Set by the server. Ignored in a PUT, because clients send back what they got."""


def new_record_id(now: datetime) -> str:
    """24 hex digits: seconds, a number of this process, a counter. Ids of one process sort by their time."""
    with _lock:
        number = next(_counter) & 0xFFFFFF
    return f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{_process}{number:06x}"


def is_record_id(text: str) -> bool:
    """Whether a text has the form of an ``_id``."""
    return len(text) == _ID_LENGTH and all(character in "0123456789abcdef" for character in text)


def object_of(body: Any) -> dict[str, Any]:
    """The body as an object. Raises 400."""
    if body is None:
        raise bad("there is no body; it must be a JSON object")
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    return body


def name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A required name: at most MAX_NAME characters, usable in a URL's path. Raises 400."""
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
        raise bad(f"{key} is used in URLs: it must have no control character, and no part that is . or ..")
    return value


def project_name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A project's name: no part may be ``cases``, which separates it from a test case in a path. Raises 400."""
    name = name_of(body, key)
    if "cases" in name.split("/")[1:]:
        raise bad(f"{key} must have no part that is cases: in URLs, test cases follow it")
    return name


def plain_name_of(body: Mapping[str, Any], key: str = "name") -> str:
    """A name without a slash, such as a scenario's. Raises 400."""
    name = name_of(body, key)
    if "/" in name:
        raise bad(f"{key} must have no slash")
    return name


def members(body: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The members ``fields`` of a body, None for absent ones; others are dropped."""
    return {name: body.get(name) for name in fields}


def changes_of(body: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """The changes in the body of a PUT: any of ``fields`` and the name. Raises 400 for an unknown field."""
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
    """Whether JSON text may have a number too large for a float; a cheap check of the text only."""
    return _FAR.search(raw) is not None


def refuse_infinite(value: Any) -> None:
    """Raises 400 if a number in parsed JSON is too large for a float."""
    for part in parts_of(value):
        if (isinstance(part, float) and not math.isfinite(part)) or (isinstance(part, int) and abs(part) > 10**308):
            raise bad("the body holds a number that is too large for a float")
