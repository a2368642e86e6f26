"""Errors with a stable code, raised anywhere, shown to users as problem+json. No I/O.

Scripts rely on the code; one table maps it to an HTTP status. ``details`` are further members of the problem document.
"""

from enum import StrEnum
from typing import Any, TypedDict


class Code(StrEnum):
    """Stable names of faults: the ``code`` of an error answer. Clients match on them."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    AGENT_UNAVAILABLE = "agent_unavailable"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    UPGRADE_REQUIRED = "upgrade_required"
    TOO_MANY = "too_many"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL = "internal"
    BUS_UNAVAILABLE = "bus_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"


HTTP_STATUS: dict[Code, int] = {
    Code.BAD_JSON: 400,
    Code.BAD_REQUEST: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.CONFLICT: 409,
    Code.AGENT_UNAVAILABLE: 409,
    Code.IDEMPOTENCY_IN_PROGRESS: 409,
    Code.TOO_LARGE: 413,
    Code.INVALID: 422,
    Code.IDEMPOTENCY_MISMATCH: 422,
    Code.UPGRADE_REQUIRED: 426,
    Code.TOO_MANY: 429,
    Code.HEADERS_TOO_LARGE: 431,
    Code.INTERNAL: 500,
    Code.BUS_UNAVAILABLE: 503,
    Code.DATABASE_UNAVAILABLE: 503,
}


class Fault(TypedDict):
    """One fault of a request: a row of ``errors`` in the 422 answer."""

    code: str
    """A stable name of the kind of fault, for scripts; not one of :class:`Code`."""
    message: str
    """A sentence for people."""
    path: str
    """The faulty part, dotted, from the root of the body (``steps.build.with.args[2]``); empty: all of it."""
    line: int | None
    """Line of the part in a body that is text, from 1; None: unknown, or not text."""
    column: int | None
    """Its column in that line, from 1; None as for ``line``."""


def fault(code: str, message: str, path: str = "", line: int | None = None, column: int | None = None) -> Fault:
    """Makes a :class:`Fault`; the only place that does."""
    return {"code": code, "message": message, "path": path, "line": line, "column": column}


class ProctorError(Exception):
    """A fault with a code, a sentence that says what to do next, and details for programs."""

    def __init__(self, code: Code, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    @property
    def status(self) -> int:
        """The HTTP status that belongs to the code."""
        return HTTP_STATUS[self.code]


def not_found(what: str, name: object) -> ProctorError:
    """404 with the kind of thing and the requested name."""
    return ProctorError(Code.NOT_FOUND, f"no such {what}: {name}", what=what, name=str(name))


def invalid(message: str, *, path: str = "", code: str = "invalid") -> ProctorError:
    """422 with one fault; ``path`` is dotted, from the body's root."""
    return ProctorError(Code.INVALID, message, errors=[fault(code, message, path)])


def faults(errors: list[Fault]) -> ProctorError:
    """422 with all faults at once."""
    first = errors[0]["message"] if errors else "invalid"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ProctorError(Code.INVALID, f"{first}{more}", errors=errors)
