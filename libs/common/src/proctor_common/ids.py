"""Identifiers: how they are made, and the permitted forms of names. No I/O.

Ids are UUIDv7 as lower-case text: sortable by time, and of ``[a-z0-9-]`` only, so that they can be subject tokens of
the bus. Names (of hosts, groups, plans) are typed by people and never part of a subject.
"""

import hashlib
import re
import secrets

from uuid_utils.compat import uuid7

HOST_NAME = re.compile(r"^[A-Za-z0-9._-]{1,63}\Z")
GROUP_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
PLAN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
STEP_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,62}\Z")
PLUGIN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def new_id() -> str:
    """A new id: UUIDv7 as 36 characters of ``[0-9a-f-]``; later ids sort after earlier ones."""
    return str(uuid7())


def is_id(text: str) -> bool:
    """Whether the text has the form of an id, so that PostgreSQL accepts it as a uuid."""
    return ID.match(text) is not None


def new_token(prefix: str) -> str:
    """A secret of 256 random bits with a prefix for its purpose: ``<prefix>_<43 characters>``."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """The stored form of a token: SHA-256 as hex. Tokens are random, so no slow hash or salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
