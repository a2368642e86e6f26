"""Errors as clients see them: ``application/problem+json`` (RFC 9457); ``{code, message}`` in the older APIs."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from proctor_common.errors import HTTP_STATUS, Code, ProctorError, fault, faults
from proctor_common.limits import MAX_FAULTS

log = structlog.get_logger(__name__)

PROBLEM = "application/problem+json"
LEGACY = "/v2.1/"
TEST_API = ("/api/v1/", "/versions", "/dashboard/")
"""Paths of the Test API. Errors have the shape of ``/v2.1``, and 400 takes the place of 422."""
_KINDS = {list: "an array", str: "a text", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}
_TITLES = {
    Code.BAD_JSON: "The body is not JSON",
    Code.BAD_REQUEST: "Bad request",
    Code.UNAUTHENTICATED: "Not authenticated",
    Code.FORBIDDEN: "Not allowed",
    Code.NOT_FOUND: "Not found",
    Code.METHOD_NOT_ALLOWED: "Method not allowed",
    Code.CONFLICT: "Conflict",
    Code.AGENT_UNAVAILABLE: "The agent is unavailable",
    Code.IDEMPOTENCY_IN_PROGRESS: "The first request with this Idempotency-Key is still running",
    Code.TOO_LARGE: "Too large",
    Code.INVALID: "Invalid",
    Code.IDEMPOTENCY_MISMATCH: "The Idempotency-Key was used for another request",
    Code.UPGRADE_REQUIRED: "A websocket is needed",
    Code.TOO_MANY: "Too many requests",
    Code.HEADERS_TOO_LARGE: "The headers are too large",
    Code.INTERNAL: "Internal error",
    Code.BUS_UNAVAILABLE: "The bus is unavailable",
    Code.DATABASE_UNAVAILABLE: "The database is unavailable",
}
_FROM_STATUS = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.TOO_LARGE,
    422: Code.INVALID,
    429: Code.TOO_MANY,
}


def problem(fault: ProctorError, path: str) -> Response:
    """The answer to a fault, in the shape of the API that the path belongs to."""
    headers: dict[str, str] = {}
    details = dict(fault.details)
    if fault.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="proctor"'
    if fault.code is Code.UPGRADE_REQUIRED:
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket"}
    if details.pop("hang_up", False):
        headers["Connection"] = "close"
    retry = details.pop("retry_after", None)
    if retry is None and HTTP_STATUS[fault.code] == 503:
        retry = 2
    if retry is not None:
        headers["Retry-After"] = str(math.ceil(float(retry)))
    if path.startswith((LEGACY, *TEST_API)):
        status = 400 if fault.status == 422 and path.startswith(TEST_API) else fault.status
        body: dict[str, Any] = {"code": status, "message": fault.message}
        return Response(_json(body), status, headers, "application/json")
    body = {
        "type": f"urn:proctor:{fault.code.value}",
        "title": _TITLES[fault.code],
        "status": fault.status,
        "detail": fault.message,
        "code": fault.code.value,
        **details,
    }
    return Response(_json(body), fault.status, headers, PROBLEM)


def _json(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS, default=str)
    except TypeError:
        # A lone surrogate in a text of the caller: replace it.
        return orjson.dumps(_clean(body), option=orjson.OPT_NON_STR_KEYS, default=str)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(str(k)): _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return value


def validation_fault(refused: RequestValidationError) -> ProctorError:
    """422 with the first MAX_FAULTS faults of a request. Never quotes the input, which may hold a secret."""
    rows = []
    for error in refused.errors()[:MAX_FAULTS]:
        place, *rest = [str(part) for part in error["loc"]] or ["body"]
        path = ".".join(rest)
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"unknown field: {rest[-1] if rest else place}"
        elif error["type"] == "missing":
            message = f"is missing: {rest[-1] if rest else place}"
        elif error["type"] == "model_attributes_type":
            message = f"must be an object, not {_KINDS.get(type(error['input']), 'this')}"
        rows.append(
            fault(
                str(error["type"]),
                f"{path}: {message}" if path and error["type"] not in {"extra_forbidden", "missing"} else message,
                path if place == "body" else f"{place}.{path}".rstrip("."),
            )
        )
    return faults(rows)


def http_fault(error: HTTPException, request: Request) -> ProctorError:
    """An error of Starlette itself as a ProctorError."""
    if error.status_code == 404:
        return ProctorError(
            Code.NOT_FOUND, f"no such path: {request.scope['path']}", what="path", name=request.scope["path"]
        )
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
        return ProctorError(Code.METHOD_NOT_ALLOWED, f"{request.scope['path']} does not take {request.method}")
    return ProctorError(_FROM_STATUS.get(error.status_code, Code.INTERNAL), str(error.detail))


def _methods_of(request: Request) -> set[str]:
    """The methods that a path takes."""
    routes: list[APIRoute] = request.app.state.routes
    path = request.scope["path"]
    found = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return found | {"HEAD"} if "GET" in found else found


def install(app: FastAPI) -> None:
    """Register the handlers that turn exceptions into answers."""

    def add(kind: type[Exception], convert: Callable[[Any, Request], ProctorError]) -> None:
        async def show(request: Request, error: Exception) -> Response:
            fault = convert(error, request)
            response = problem(fault, request.scope["path"])
            if isinstance(error, HTTPException) and error.headers:
                response.headers.update(error.headers)
            return response

        handler: Callable[[Request, Exception], Awaitable[Response]] = show
        app.add_exception_handler(kind, handler)

    add(ProctorError, lambda error, _: error)
    add(RequestValidationError, lambda error, _: validation_fault(error))
    add(HTTPException, http_fault)


def no_upgrade(path: str) -> ProctorError:
    """426: a request without a handshake, where only websockets are."""
    said = "is a websocket; the request came without `Upgrade: websocket`, which a proxy on the way may have taken off"
    return ProctorError(Code.UPGRADE_REQUIRED, f"{path} {said}")


def internal() -> ProctorError:
    """500; details are in the log only."""
    return ProctorError(Code.INTERNAL, "an unexpected error; the api's log has the details")
