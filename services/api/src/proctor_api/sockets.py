"""Websockets: authenticate the client, send it frames, and close when it is gone, too slow or no longer allowed.

Close codes: 4400 bad request (a bad cursor, an unknown step), 4401 missing or wrong token, 4403 not allowed, 4404 no
such run, 4408 too slow, 1012 service restart or bus unavailable.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from proctor_api.auth import Caller
from proctor_api.context import ApiContext, context_of
from proctor_api.errors import problem
from proctor_api.logs.cursor import BadCursor
from proctor_api.logs.frames import HEARTBEAT
from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError
from proctor_common.states import Role

log = structlog.get_logger(__name__)

BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_SLOW, RESTART = 4400, 4401, 4403, 4404, 4408, 1012
_CODES = {
    Code.UNAUTHENTICATED: UNAUTHENTICATED,
    Code.FORBIDDEN: FORBIDDEN,
    Code.NOT_FOUND: NOT_FOUND,
    Code.INVALID: BAD_REQUEST,
    Code.BAD_REQUEST: BAD_REQUEST,
    Code.TOO_MANY: FORBIDDEN,
}
MAX_PARAMETER = 4096
MAX_REASON = 100

Texts = AsyncIterator[str | None]
"""Frames to send; None when there is nothing to send right now."""


class TooSlow(Exception):
    """The client reads too slowly."""


class _Ended(Exception):
    """Ends a websocket with a close code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def close_code(fault: Exception) -> tuple[int, str]:
    """The close code and reason for a fault."""
    if isinstance(fault, BadCursor):
        return BAD_REQUEST, f"after: {fault}"
    if isinstance(fault, ProctorError):
        return _CODES.get(fault.code, RESTART), fault.message
    if isinstance(fault, BusError):
        return RESTART, "the bus is unavailable"
    return 1011, "an unexpected error; the api's log has the details"


def parameter(socket: WebSocket, name: str) -> str | None:
    """A query parameter; None if it is absent or empty. Raises 400 if it is too long or has a NUL."""
    value = socket.query_params.get(name)
    if value is not None and len(value) > MAX_PARAMETER:
        raise ProctorError(Code.BAD_REQUEST, f"the {'cursor' if name == 'after' else name} is too long")
    if value is not None and "\0" in value:
        raise ProctorError(Code.BAD_REQUEST, f"{name}: holds a NUL character")
    return value or None


async def serve(socket: WebSocket, open_: Callable[[ApiContext, Caller], Texts]) -> None:
    """Send the frames of ``open_`` to a websocket until they end or the client leaves."""
    context = context_of(socket)
    try:
        caller = await context.auth.caller(socket)
        caller.require(Role.VIEWER)
    except ProctorError as fault:
        if context.settings.no_auth:
            # A page of another origin must not even get a handshake.
            await socket.send_denial_response(problem(fault, socket.scope["path"]))
            return
        await socket.accept()
        await _close(socket, *close_code(fault))
        return
    if not context.sockets.take(caller.key):
        limit = context.settings.sockets_per_token
        refusal = ProctorError(Code.TOO_MANY, f"a token may hold {limit} websockets", limit=limit, retry_after=5)
        await socket.send_denial_response(problem(refusal, socket.scope["path"]))
        return
    try:
        await socket.accept()
        await _Conversation(socket, context, caller, open_(context, caller)).hold()
    finally:
        context.sockets.release(caller.key)


class _Conversation:
    """An accepted websocket."""

    def __init__(self, socket: WebSocket, context: ApiContext, caller: Caller, texts: Texts) -> None:
        self._socket = socket
        self._context = context
        self._caller = caller
        self._texts = texts
        self._loop = asyncio.get_running_loop()
        self._sending_since: float | None = None
        self._heartbeat_at = self._loop.time() + context.settings.heartbeat

    async def hold(self) -> None:
        """Send, receive and check until one of these ends, then close with the code for the reason."""
        work: list[Callable[[], Awaitable[None]]] = [self._send_all, self._listen, self._guard]
        tasks = [asyncio.ensure_future(part()) for part in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._texts.aclose()  # type: ignore[attr-defined]
        fault = next((task.exception() for task in done if not task.cancelled() and task.exception()), None)
        if fault is None and tasks[1] in done:
            return
        code, reason = 1000, ""
        if isinstance(fault, WebSocketDisconnect):
            return
        if isinstance(fault, _Ended):
            code, reason = fault.code, fault.reason
        elif isinstance(fault, TooSlow):
            code, reason = TOO_SLOW, "the client reads too slowly"
        elif isinstance(fault, Exception):
            code, reason = close_code(fault)
            if code == 1011:
                log.error("websocket_failed", path=self._socket.scope["path"], exc_info=fault)
        if code == TOO_SLOW:
            self._context.figures.slow_viewers.inc()
        await _close(self._socket, code, reason)

    async def _send_all(self) -> None:
        async for text in self._texts:
            now = self._loop.time()
            if now >= self._heartbeat_at:
                self._heartbeat_at = now + self._context.settings.heartbeat
                await self._send(HEARTBEAT, now)
            if text is not None:
                await self._send(text, now)

    async def _send(self, text: str, now: float) -> None:
        self._sending_since = now
        await self._socket.send({"type": "websocket.send", "text": text})
        self._sending_since = None

    async def _listen(self) -> None:
        """Return when the client disconnects; ignore what it sends."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return

    async def _guard(self) -> None:
        """Raise _Ended when the client stops reading, or its token is revoked."""
        settings = self._context.settings
        pause = min(1.0, settings.slow_viewer / 4, settings.token_check / 2)
        checked = self._loop.time()
        while True:
            await asyncio.sleep(pause)
            now = self._loop.time()
            if self._sending_since is not None and now - self._sending_since >= settings.slow_viewer:
                raise _Ended(TOO_SLOW, f"the client read nothing for {settings.slow_viewer:g} s")
            if now - checked >= settings.token_check:
                checked = now
                await self._check_token()

    async def _check_token(self) -> None:
        try:
            await self._context.auth.check_again(self._caller)
        except ProctorError as fault:
            # An unavailable database says nothing about the token.
            if fault.code is Code.UNAUTHENTICATED:
                raise _Ended(UNAUTHENTICATED, fault.message) from fault


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close with a reason, cut to MAX_REASON bytes (a close frame holds 123)."""
    with contextlib.suppress(Exception):
        await socket.close(code, reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore"))
