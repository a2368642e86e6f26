"""Authentication: bearer tokens, session cookies, anonymous callers, and the origins that may use a cookie. No SQL."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from starlette.requests import HTTPConnection

from proctor_api.settings import ApiSettings, is_loopback
from proctor_api.store.tokens import Token
from proctor_common.clock import Clock
from proctor_common.errors import Code, ProctorError
from proctor_common.ids import token_hash
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role

log = structlog.get_logger(__name__)

COOKIE = "proctor_session"
TOKEN_PREFIX = "prt"  # noqa: S105 - what a token begins with
SESSION_PREFIX = "prs"
MAX_SECRET = 200
CACHE_SIZE = 10_000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request."""

    actor: Actor
    key: str
    """Identifies the caller for limits and idempotency keys."""
    way: str
    """bearer | cookie | anonymous | no_auth"""
    secret_hash: str = ""
    """Empty for a caller without a token."""
    creates_results: bool = False
    """Whether the caller may create records of the Test API, whatever its role."""

    def require(self, role: Role, *, creating: bool = False) -> None:
        """Raises 403 (401 without a token) unless the caller has ``role``; ``creating``: it creates in the Test API."""
        if self.actor.role.covers(role) or (creating and self.creates_results):
            return
        if self.way == "anonymous":
            raise ProctorError(Code.UNAUTHENTICATED, f"this requires a token with the role {role.value}")
        raise ProctorError(
            Code.FORBIDDEN, f"this requires the role {role.value}; the token's role is {self.actor.role.value}"
        )


class Tokens(Protocol):
    """The methods of the token store that authentication uses."""

    async def find(self, hash_: str) -> Token | None: ...
    async def find_by_session(self, hash_: str) -> Token | None: ...


@dataclass(slots=True)
class _Known:
    token: Token | None
    at: float
    asking: "asyncio.Task[Token | None] | None" = None


class Authenticator:
    """Finds the caller of a request or websocket.

    A token that was looked up is cached for ``token_cache`` seconds. If it is used in the last two thirds of that time,
    it is looked up again in the background, so that requests with a token in steady use wait for no query.
    """

    def __init__(self, settings: ApiSettings, store: Tokens, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._uses: dict[str, datetime] = {}
        self._origins = {_origin(url) for url in (settings.public_url, *settings.origins) if url}
        self._hosts = {urlsplit(origin).netloc for origin in self._origins}

    async def caller(self, connection: HTTPConnection, *, old_ways: bool = False) -> Caller:
        """The caller. Raises 401 (missing or wrong token), 403 (foreign origin), 503 (database unavailable).

        ``old_ways``: accept the token also as ``X-Auth-Token``, or as the password of HTTP Basic.
        """
        if self._settings.no_auth:
            self._refuse_foreign(connection)
            return Caller(Actor(name="anyone", role=Role.ADMIN), "no_auth", "no_auth")
        header = connection.headers.get("authorization")
        if old_ways and header is None and "x-auth-token" in connection.headers:
            return await self.by_secret("bearer", connection.headers["x-auth-token"].strip())
        if header is not None:
            scheme, _, secret = header.partition(" ")
            if old_ways and scheme.lower() == "basic":
                return await self._by_password(_basic_password(secret))
            if scheme.lower() != "bearer":
                raise ProctorError(Code.UNAUTHENTICATED, "send the token as `Authorization: Bearer <token>`")
            return await self.by_secret("bearer", secret.strip())
        cookie = connection.cookies.get(COOKIE)
        if cookie:
            unsafe = connection.scope["type"] == "websocket" or connection.scope["method"] not in SAFE_METHODS
            if unsafe and not self.is_own_origin(connection):
                raise ProctorError(
                    Code.FORBIDDEN, "the session cookie is accepted from pages of this server only (Origin)"
                )
            try:
                return await self.by_secret("cookie", cookie)
            except ProctorError as fault:
                if fault.code is not Code.UNAUTHENTICATED or self._settings.anonymous == "none":
                    raise
        if self._settings.anonymous != "none":
            return self._anyone()
        raise ProctorError(Code.UNAUTHENTICATED, "a token is needed: `Authorization: Bearer <token>`")

    def _anyone(self) -> Caller:
        """The caller without a token, if the setting ``anonymous`` allows one."""
        actor = Actor(name="anonymous", role=Role.VIEWER)
        return Caller(actor, "anonymous", "anonymous", creates_results=self._settings.anonymous == "results")

    async def _by_password(self, password: str) -> Caller:
        """The caller whose token is the password of HTTP Basic. If callers without a token are allowed, a password that
        does not look like a token counts as none: old clients send credentials that were never checked. Raises 401.
        """
        try:
            return await self.by_secret("bearer", password)
        except ProctorError as fault:
            lost = fault.code is Code.UNAUTHENTICATED and not password.startswith(f"{TOKEN_PREFIX}_")
            if not lost or self._settings.anonymous == "none":
                raise
        return self._anyone()

    async def by_secret(self, way: str, secret: str) -> Caller:
        """The caller with this token (way ``bearer``) or session cookie (way ``cookie``). Raises 401."""
        if not secret or len(secret) > MAX_SECRET:
            raise ProctorError(Code.UNAUTHENTICATED, "the token is not known, expired or revoked")
        return await self._by_hash(way, token_hash(secret))

    async def check_again(self, caller: Caller) -> None:
        """Raises 401 if the caller's token is revoked or expired by now."""
        if caller.secret_hash:
            await self._by_hash(caller.way, caller.secret_hash)

    async def _by_hash(self, way: str, hash_: str) -> Caller:
        token = await self._find(way, hash_)
        now = self._clock.now()
        if token is None or (token.expires_at is not None and token.expires_at <= now):
            raise ProctorError(Code.UNAUTHENTICATED, "the token is not known, expired or revoked")
        self._uses[token.id] = now
        groups = None if token.groups is None else list(token.groups)
        return Caller(Actor(name=token.name, role=token.role, token=token.id, groups=groups), token.id, way, hash_)

    async def _find(self, way: str, hash_: str) -> Token | None:
        key = (way, hash_)
        known = self._known.get(key)
        limit = self._settings.token_cache
        age = self._clock.monotonic() - known.at if known is not None else limit
        if known is None or known.token is None or age >= limit:
            return await self._look_up(key)
        if age >= limit / 3 and known.asking is None:
            known.asking = asyncio.create_task(self._look_up(key), name="token looked up again")
            known.asking.add_done_callback(_note_failure)
        return known.token

    async def _look_up(self, key: tuple[str, str]) -> Token | None:
        find: Callable[[str], Awaitable[Token | None]]
        find = self._store.find if key[0] == "bearer" else self._store.find_by_session
        asked = self._clock.monotonic()
        token = await find(key[1])
        self._known.pop(key, None)
        if token is not None:
            self._known[key] = _Known(token, asked)
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return token

    def forget(self, token: str) -> None:
        """Drop a token from the cache, because it was revoked."""
        for key in [key for key, known in self._known.items() if known.token is not None and known.token.id == token]:
            del self._known[key]

    def forget_session(self, secret: str) -> None:
        """Drop a session from the cache, because it was closed."""
        self._known.pop(("cookie", token_hash(secret)), None)

    def take_uses(self) -> dict[str, datetime]:
        """When each token was last used, by id; only uses since the last call."""
        uses, self._uses = self._uses, {}
        return uses

    def is_own_origin(self, connection: HTTPConnection) -> bool:
        """Whether the Origin header names this server or one of the settings' origins; False without one."""
        given = connection.headers.get("origin")
        if given is None:
            return False
        origin = _origin(given)
        if origin in self._origins:
            return True
        scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
        host = connection.headers.get("host", "")
        return bool(host) and origin == _origin(f"{scheme}://{host}")

    def _refuse_foreign(self, connection: HTTPConnection) -> None:
        host = connection.headers.get("host", "")
        if not is_loopback(_host_name(host)) and host not in self._hosts:
            raise ProctorError(Code.FORBIDDEN, "without authentication, the Host header must name this machine")
        if "origin" in connection.headers and not self.is_own_origin(connection):
            raise ProctorError(Code.FORBIDDEN, "a page of another origin may not use an api without authentication")


def _basic_password(text: str) -> str:
    """The password of HTTP Basic credentials; "" where there is none."""
    try:
        return base64.b64decode(text.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """The host name in a Host header; "" if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _origin(url: str) -> str:
    """An origin in normal form: lower case, no default port; "" for anything else, such as ``null``."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    default = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" if port in {None, default} else f"{parts.scheme}://{host}:{port}"


def _note_failure(task: "asyncio.Task[Token | None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning("token_not_checked", error=str(task.exception()))
