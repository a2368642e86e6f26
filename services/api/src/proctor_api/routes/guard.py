"""Checks before a route runs: the URL, the caller, their role, the body. A route without a role stops the start.

The order matters: a caller without a valid token is refused before any byte of the body is read.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, get_args, get_origin

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from proctor_api.context import caller_of, context_of
from proctor_api.errors import LEGACY
from proctor_api.http.bodies import JSON, URL_LIMIT, ViewResponse, parse_json, read_body, refuse_nul, too_large
from proctor_common.errors import Code, ProctorError, fault, faults, invalid
from proctor_common.limits import MAX_FAULTS
from proctor_common.messages.calls.operation import A, Operation, Q
from proctor_common.states import Role

ROLE = "x-proctor-role"
OPEN = "anyone"
STREAMED = "x-proctor-streamed"
"""Marks a route that reads its body itself, as a stream."""
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})

__all__ = [
    "JSON",
    "GuardedRoute",
    "ViewResponse",
    "anyone",
    "caller_of",
    "context_of",
    "json_view",
    "needs",
    "pass_on",
    "router",
]


def needs(role: Role, **extra: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that requires a role."""
    return {ROLE: role.value, **extra}


def anyone(**extra: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that needs no token."""
    return {ROLE: OPEN, "security": [], **extra}


class StrictRequest(Request):
    """A request whose body is already read and parsed."""

    def __init__(self, request: Request, raw: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._value = value

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self._value


class GuardedRoute(APIRoute):
    """A route with a role. If it returns a ``ViewResponse[T]``, the OpenAPI document shows the schema of T."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        shown = inspect.signature(endpoint).return_annotation
        if get_origin(shown) is ViewResponse:
            options["response_model"] = get_args(shown)[0]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        word = (self.openapi_extra or {}).get(ROLE)
        if word is None:
            raise RuntimeError(f"{self.path} says no role")
        role = None if word == OPEN else Role(word)
        takes_json = self.body_field is not None
        needs_json = self.body_field is not None and self.body_field.field_info.is_required()
        streamed = bool((self.openapi_extra or {}).get(STREAMED))
        native = not self.path.startswith(LEGACY)

        async def handle(request: Request) -> Response:
            check_url(request)
            context = context_of(request)
            if role is not None:
                caller = await context.auth.caller(request)
                request.state.caller = caller
                caller.require(role)
            if request.method in WITH_BODY and not streamed:
                raw = await read_body(request, context.settings.body_limit)
                value = _json_of(request, raw) if takes_json and (needs_json or raw.strip()) else None
                if not takes_json and raw.strip() and native:
                    _refuse_fields(_json_of(request, raw))
                request = StrictRequest(request, raw, value)
            return await inner(request)

        return handle


def router(*sections: str) -> APIRouter:
    """A router of guarded routes; ``sections``: where the OpenAPI document lists them (``SECTIONS`` in openapi.py)."""
    return APIRouter(route_class=GuardedRoute, tags=[*sections])


async def pass_on(request: Request, operation: Operation[Q, A], body: Q, status: int = 200) -> ViewResponse[A]:
    """Ask a controller on behalf of the caller and pass its answer on undecoded. Raises ProctorError."""
    view = await context_of(request).controllers.ask_encoded(operation, caller_of(request).actor, body)
    return ViewResponse(view, status)


def json_view(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response without a type."""
    return Response(data, status, headers, JSON)


def _json_of(request: Request, raw: bytes) -> Any:
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if raw and kind != JSON and not kind.endswith("+json"):
        raise ProctorError(Code.BAD_JSON, f"the body must be JSON (Content-Type: application/json), not {kind[:100]}")
    return parse_json(raw)


def _refuse_fields(body: Any) -> None:
    """Raises 422 if a route without a body gets one that is not empty or ``{}``."""
    if not isinstance(body, dict):
        raise invalid("the body must be empty or {}")
    if body:
        raise faults([fault("extra_forbidden", f"unknown field: {name}", name) for name in list(body)[:MAX_FAULTS]])


def check_url(request: Request) -> None:
    """Raises 413 for a URL over URL_LIMIT bytes, 422 for a NUL character in it."""
    scope = request.scope
    length = len(scope["raw_path"]) + len(scope["query_string"])
    if length > URL_LIMIT:
        raise too_large("the URL", URL_LIMIT, length)
    for name, value in request.path_params.items():
        refuse_nul(name, str(value))
    if b"%00" in scope["query_string"]:
        for name, value in request.query_params.multi_items():
            refuse_nul(name, value)
