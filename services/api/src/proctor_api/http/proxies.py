"""``X-Forwarded-*`` headers of trusted proxies, and the root path below which a proxy serves the api."""

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from proctor_api.settings import Network

MAX_PREFIX = 200
EXTERNAL_PREFIX = "proctor.prefix"
"""Scope key: the path below which the caller sees the api, such as ``/test``; "" if there is none."""


class Proxies:
    """ASGI middleware that sets scheme, host, client and prefix, and strips the root path."""

    def __init__(self, app: ASGIApp, *, root_path: str, trusted: Sequence[Network]) -> None:
        self._app = app
        self._root = root_path
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] not in {"http", "websocket"} or not (self._root or self._trusted):
            await self._app(scope, receive, send)
            return
        scope = dict(scope)
        scope[EXTERNAL_PREFIX] = self._root
        if self._trusted and self._is_trusted((scope.get("client") or ("",))[0]):
            self._believe(scope)
        if self._root and scope["path"].startswith(f"{self._root}/"):
            scope["path"] = scope["path"][len(self._root) :]
            scope["raw_path"] = scope["raw_path"].removeprefix(self._root.encode())
        await self._app(scope, receive, send)

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)

    def _believe(self, scope: Scope) -> None:
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        scheme = _last(given.get(b"x-forwarded-proto", "")).lower()
        if scheme in {"http", "https"}:
            scope["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
        host = _last(given.get(b"x-forwarded-host", ""))
        if host:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"].append((b"host", host.encode("latin-1")))
        prefix = _last(given.get(b"x-forwarded-prefix", "")).rstrip("/")
        if prefix.startswith("/") and len(prefix) <= MAX_PREFIX:
            scope[EXTERNAL_PREFIX] = prefix
        # From the right: the first address that is not a trusted proxy is the client.
        for address in reversed(given.get(b"x-forwarded-for", "").split(",")):
            if address.strip() and not self._is_trusted(address.strip()):
                scope["client"] = (address.strip()[:64], 0)
                break


def _last(text: str) -> str:
    """The value of the nearest proxy, if several wrote into one header."""
    return text.rpartition(",")[2].strip()
