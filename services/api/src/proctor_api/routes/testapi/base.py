"""What all routes of the Test API share: checks of caller and body, both spellings of a path, answers.

FastAPI validates nothing here, because the clients of the Test API do not know status 422.
"""

import asyncio
import gc
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from proctor_api.catalog.faults import bad, forbidden
from proctor_api.catalog.fields import may_be_infinite, refuse_infinite
from proctor_api.catalog.sent import Dropped, read_json
from proctor_api.catalog.streams import ResultStreams
from proctor_api.context import caller_of, context_of
from proctor_api.http.bodies import parse_json, read_body
from proctor_api.http.fast_path import Handler
from proctor_api.http.proxies import EXTERNAL_PREFIX
from proctor_api.routes.guard import JSON, ROLE, StrictRequest, check_url
from proctor_common.errors import ProctorError
from proctor_common.states import Role

F = TypeVar("F", bound=Callable[..., Any])

CREATES = "x-proctor-creates"
WITH_BODY = frozenset({"POST", "PUT"})
SHARED = frozenset({"PUT", "DELETE"})
TAG = "Test API"
Refusals = Mapping[int, str]
"""An example of the message, by status code."""
REFUSED = {
    400: "The request is malformed or a value is invalid",
    401: "The token is missing or wrong; for a deletion also: other records still refer to the record",
    403: "The token's role does not allow it, the name exists already, or nothing would change",
    404: "Something that the request names does not exist",
    409: "A part exists already, or occurs twice in the body",
    413: "The body is too large",
}
REFUSAL_SCHEMA = {"$ref": "#/components/schemas/LegacyError"}
ALWAYS_REFUSALS: Refusals = {401: "a token is needed: `Authorization: Bearer <token>`"}
WRITING_REFUSALS: Refusals = {403: "this requires the role runner; the token's role is viewer"}
WITH_BODY_REFUSALS: Refusals = {
    **WRITING_REFUSALS,
    400: "the body must be a JSON object",
    413: "the body is over the limit of 1048576 bytes",
}
DROPPED = "Proctor-Dropped"
_PLAIN = "!\"#$&'()*+/:;<=>?@[\\]^`{|}"
LARGE = 256 * 1024
"""Bytes. Larger bodies are parsed in a thread, one at a time, because each takes many times its size in memory."""


def reads(shows: Any = None, refuses: Refusals | None = None, **extra: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads; ``shows``: an example of its answer."""
    return {ROLE: Role.VIEWER.value, **_answers(shows, refuses or {}), **extra}


def creates(example: Any = None, refuses: Refusals | None = None, **extra: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that adds: for runners, or for anyone if ``anonymous`` is ``results``."""
    shown = _answers({"href": "http://127.0.0.1:8774/api/v1/…"}, {**WITH_BODY_REFUSALS, **(refuses or {})})
    return {ROLE: Role.RUNNER.value, CREATES: True, **shown, **_body(example), **extra}


def changes(example: Any = None, shows: Any = None, refuses: Refusals | None = None, **extra: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that changes or deletes."""
    always = WRITING_REFUSALS if example is None and "requestBody" not in extra else WITH_BODY_REFUSALS
    shown = _answers(shows, {**always, **(refuses or {})})
    return {ROLE: Role.RUNNER.value, **shown, **_body(example), **extra}


def parameter(name: str, description: str, kind: str = "string") -> dict[str, Any]:
    """An optional query parameter, for the OpenAPI document."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": {"type": kind}}


BAD_NAME: Refusals = {400: "name: not a usable regular expression: missing ): ("}
NAME = parameter(
    "name", "Only names that match this regular expression (RE2) somewhere; case is ignored; at most 256 characters"
)


def _body(example: Any) -> dict[str, Any]:
    if example is None:
        return {}
    content = {JSON: {"schema": {"type": "object", "example": example}}}
    return {"requestBody": {"required": True, "content": content}}


def _answers(example: Any, refusals: Refusals) -> dict[str, Any]:
    """The answers of a route: 200, and each error status, both with an example of the body."""
    found: dict[str, Any] = {}
    if isinstance(example, list | dict):
        shape = {"type": "array", "items": {}} if isinstance(example, list) else {"type": "object"}
        found["200"] = {"content": {JSON: {"schema": {**shape, "example": example}}}}
    for code, message in sorted({**ALWAYS_REFUSALS, **refusals}.items()):
        body = {"schema": REFUSAL_SCHEMA, "example": {"code": code, "message": message}}
        found[str(code)] = {"description": REFUSED[code], "content": {JSON: body}}
    return {"responses": found}


class TestApiRoute(APIRoute):
    """A route of the Test API. The caller is checked before any byte of the body is read."""

    __test__ = False
    straight: Handler | None = None
    """The handler that the fast path calls; None for a path with parameters."""

    def get_route_handler(self) -> Handler:
        direct = _direct(self)
        inner = direct or super().get_route_handler()
        extra = self.openapi_extra or {}
        if ROLE not in extra:
            raise RuntimeError(f"{self.path} says no role")
        role, creating = Role(extra[ROLE]), bool(extra.get(CREATES))

        async def handle(request: Request) -> Response:
            check_url(request)
            context = context_of(request)
            caller = await context.auth.caller(request, old_ways=True)
            request.state.caller = caller
            caller.require(role, creating=creating)
            if request.method in SHARED and caller.actor.groups is not None:
                raise forbidden("a token that is bound to groups cannot change or delete what all groups share")
            if request.method in WITH_BODY:
                large = self.path.startswith("/api/v1/results") or self.path.startswith("/api/v1/deployresults")
                limit = context.settings.result_limit if large else context.settings.body_limit
                raw = await read_body(request, limit)
                request.state.dropped = dropped = Dropped()
                value = await value_beside(request, raw, dropped if large else None)
                request = StrictRequest(request, raw, value)
            return await inner(request)

        if direct is not None and not self.param_convertors:
            self.straight = handle
        return handle


def _direct(route: APIRoute) -> Handler | None:
    """A handler that calls the route's function without FastAPI; None if the function takes more than the request and
    text from the path. FastAPI's work takes as long as a small database query.
    """
    endpoint = route.endpoint
    names = inspect.signature(endpoint).parameters.keys()
    if not names <= {"request", *route.param_convertors}:
        return None
    takes_request = "request" in names

    async def call(request: Request) -> Response:
        given = {name: request.path_params[name] for name in names if name != "request"}
        response: Response = await (endpoint(request=request, **given) if takes_request else endpoint(**given))
        return response

    return call


def value_of(raw: bytes) -> Any:
    """The JSON value in a body. Raises 400: not JSON, too deep, a NUL, a lone surrogate, a number too large for a
    float.
    """
    try:
        value = parse_json(raw)
    except ProctorError as fault:
        raise bad(fault.message) from fault
    if may_be_infinite(raw):
        refuse_infinite(value)
    return value


async def value_beside(request: Request, raw: bytes, dropped: Dropped | None = None) -> Any:
    """The same, in a thread for a large body, so that other requests go on meanwhile. With ``dropped`` what cannot be
    stored is replaced and named there, instead of refused. Raises 400.
    """
    if len(raw) <= LARGE:
        return _value_of(raw, dropped)
    turns: asyncio.Semaphore = request.app.state.large_bodies
    async with turns:
        return await asyncio.to_thread(_large_value_of, raw, dropped)


def _value_of(raw: bytes, dropped: Dropped | None) -> Any:
    return value_of(raw) if dropped is None else read_json(raw, dropped)


def _large_value_of(raw: bytes, dropped: Dropped | None) -> Any:
    """Parse with garbage collection switched off: with millions of new values it takes most of the time."""
    gc.disable()
    try:
        return _value_of(raw, dropped)
    finally:
        gc.enable()


class Decorator(Protocol):
    """Registers a function as a route and returns it unchanged."""

    def __call__(self, function: F, /) -> F: ...


class NameConvertor(Convertor[str]):
    """A name in a path: not empty, may have slashes."""

    regex = ".+"

    def convert(self, value: str) -> str:
        """From the path."""
        return value

    def to_string(self, value: str) -> str:
        """Into a path."""
        return value


class ProjectConvertor(NameConvertor):
    """A project's name in a path: it ends before ``/cases``."""

    regex = "(?:(?!/cases(?:/|$)).)+"


register_url_convertor("name", NameConvertor())
register_url_convertor("project", ProjectConvertor())


class Router:
    """Adds each route with and without a slash at the end of its path, because a redirect would lose a POST's body."""

    def __init__(self) -> None:
        self.routes = APIRouter(route_class=TestApiRoute)

    def get(self, path: str, summary: str, extra: dict[str, Any]) -> Decorator:
        """A route that reads."""
        return self._add("GET", path, summary, extra)

    def post(self, path: str, summary: str, extra: dict[str, Any]) -> Decorator:
        """A route that creates."""
        return self._add("POST", path, summary, extra)

    def put(self, path: str, summary: str, extra: dict[str, Any]) -> Decorator:
        """A route that changes."""
        return self._add("PUT", path, summary, extra)

    def delete(self, path: str, summary: str, extra: dict[str, Any]) -> Decorator:
        """A route that deletes."""
        return self._add("DELETE", path, summary, extra)

    def _add(self, method: str, path: str, summary: str, extra: dict[str, Any]) -> Decorator:
        def decorate(function: F) -> F:
            about: dict[str, Any] = {"methods": [method], "openapi_extra": extra, "response_class": Response}
            self.routes.add_api_route(path, function, summary=summary, tags=[TAG], **about)
            self.routes.add_api_route(f"{path}/", function, include_in_schema=False, **about)
            return function

        return decorate


def answer(value: Any) -> Response:
    """200 with JSON."""
    return Response(orjson.dumps(value), media_type=JSON)


def href(request: Request, name: str) -> Response:
    """200 with the URL of what was made, and the header DROPPED where members of the body were dropped."""
    response = answer({"href": f"{address(request)}/{quote(name, safe='')}"})
    tell_dropped(response, dropped_of(request).names)
    return response


def dropped_of(request: Request) -> Dropped:
    """What could not be stored of the request's body."""
    dropped: Dropped = request.state.dropped
    return dropped


def tell_dropped(response: Response, names: Iterable[str]) -> None:
    """Name members that were dropped, in a header; what a header cannot hold, and commas, are percent-encoded."""
    if text := ", ".join(quote(name, safe=_PLAIN) for name in names):
        response.headers[DROPPED] = text


def done() -> Response:
    """200 without a body."""
    return Response(status_code=200)


def address(request: Request) -> str:
    """The request's URL as its caller sees it, without query and without a slash at the end."""
    scope = request.scope
    settings = context_of(request).settings
    path = scope["raw_path"].partition(b"?")[0].decode("ascii", "replace").rstrip("/")
    if settings.public_url is not None:
        return f"{settings.public_url.rstrip('/')}{path}"
    host = request.headers.get("host") or ":".join(str(part) for part in scope.get("server") or ("localhost",))
    return f"{scope['scheme']}://{host}{scope.get(EXTERNAL_PREFIX, '')}{path}"


def pairs_of(request: Request) -> list[tuple[str, str]]:
    """The query parameters, decoded as Starlette does it, in a quarter of the time."""
    parts = request.scope["query_string"].decode("latin-1").replace("+", " ").split("&")
    split = (part.partition("=") for part in parts if part)
    return [(unquote(name), unquote(value)) for name, _, value in split]


def groups_of(request: Request) -> list[str] | None:
    """The groups whose results the caller may see; None for all."""
    return caller_of(request).actor.groups


def streams_of(request: Request) -> ResultStreams:
    """The reader of result lists that this process shares."""
    streams: ResultStreams = request.app.state.streams
    return streams


def group_for(request: Request) -> str | None:
    """The group of a new result: that of the caller's token; None if it is not bound. Raises 403 if it has several."""
    groups = groups_of(request)
    if groups is None:
        return None
    if len(groups) != 1:
        raise forbidden("a token that is bound to several groups cannot add results: their group would be unclear")
    return groups[0]
