"""The fast path: from the server straight to a route's function, past the layers of FastAPI and Starlette.

For a small query, these layers take as long as the database does.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from proctor_api.errors import problem
from proctor_common.errors import ProctorError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Ways = Mapping[tuple[str, str], tuple[APIRoute, Handler]]
"""A route and its handler, by method and path."""


def ways_of(routes: Iterable[APIRoute]) -> Ways:
    """The fast path of each route that has a ``straight`` handler (a route without path parameters)."""
    found: dict[tuple[str, str], tuple[APIRoute, Handler]] = {}
    for route in routes:
        handle: Handler | None = getattr(route, "straight", None)
        if handle is not None:
            # As in Starlette, the first of two routes with the same path wins.
            found = {(method, route.path): (route, handle) for method in route.methods or ()} | found
    return found


class Straight:
    """ASGI app for the requests in :func:`ways_of`."""

    def __init__(self, app: FastAPI, ways: Ways) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; a fault as FastAPI's handlers would."""
        route, handle = self._ways[scope["method"], scope["path"]]
        scope["app"] = self._app
        scope["route"] = route
        scope["path_params"] = {}
        try:
            response = await handle(Request(scope, receive, send))
        except ProctorError as fault:
            response = problem(fault, scope["path"])
        await response(scope, receive, send)
