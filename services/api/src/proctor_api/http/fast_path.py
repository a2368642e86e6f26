"""A short way for what is asked often: from the server to a route's function, past the framework's layers.

Beside a query that finds little these layers cost as much as the database does.
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
"""By method and path: a route, and what answers its requests."""


def ways_of(routes: Iterable[APIRoute]) -> Ways:
    """The short ways: of each route that has a ``straight``, because it takes nothing out of the path."""
    found: dict[tuple[str, str], tuple[APIRoute, Handler]] = {}
    for route in routes:
        handle: Handler | None = getattr(route, "straight", None)
        if handle is not None:
            # As in the framework, the first of two routes has the path.
            found = {(method, route.path): (route, handle) for method in route.methods or ()} | found
    return found


class Straight:
    """Plain ASGI for the requests that :func:`ways_of` knows."""

    def __init__(self, app: FastAPI, ways: Ways) -> None:
        self._app = app
        self._ways = ways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a refusal as on the long way."""
        route, handle = self._ways[scope["method"], scope["path"]]
        scope["app"] = self._app
        scope["route"] = route
        scope["path_params"] = {}
        try:
            response = await handle(Request(scope, receive, send))
        except ProctorError as fault:
            response = problem(fault, scope["path"])
        await response(scope, receive, send)
