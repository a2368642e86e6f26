"""Around every request: security headers, metrics, and a 500 for unexpected exceptions."""

import time

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proctor_api.errors import internal, problem
from proctor_api.figures import Figures

log = structlog.get_logger(__name__)

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
]


class HttpFrame:
    """ASGI middleware that leaves bodies and streams alone."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in given)]
            await send(message)

        try:
            await self._app(scope, receive, send_framed)
        except ClientDisconnect:
            log.info("client_gone", method=scope["method"], path=scope["path"])
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if not status:
                await problem(internal(), scope["path"])(scope, receive, send_framed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._figures.requests.labels(scope["method"], route, str(status)).inc()
            self._figures.seconds.labels(scope["method"], route).observe(time.perf_counter() - begun)
