"""The token of every call: fetched in a thread, kept, renewed before it expires and once when it is refused."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import httpx
import structlog

from proctor_controller.volumes.backend import BackendDown, BackendFault
from proctor_controller.volumes.cinder.login import Access, Login

log = structlog.get_logger(__name__)

REST = 10.0
"""After a failed renewal a valid token is used for so long without another try."""
LAST_PART = 0.25
"""The last part of the time between a token's renewal and its expiry, in which calls wait for the new one."""


class Identity:
    """One login for all callers: the first that finds the token old renews it, the others wait for the same one."""

    def __init__(self, login: Login, timeout: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._login = login
        self._timeout = timeout
        self._monotonic = monotonic
        self._access: Access | None = None
        self._renewing: asyncio.Task[Access] | None = None
        self._not_before = 0.0
        self.logins = 0

    async def access(self) -> Access:
        """A token; nobody waits for a new one while the old one is valid. Raises BackendFault."""
        kept = self._access
        if kept is None:
            return await self._renewed()
        now = self._monotonic()
        if now >= kept.renew_at and now >= self._not_before:
            self._begin()
        if now < kept.ends_at - (kept.ends_at - kept.renew_at) * LAST_PART:
            return kept
        try:
            return await self._renewed()
        except BackendFault:
            # The cloud may accept our token although it makes no new ones.
            if self._monotonic() >= kept.ends_at:
                raise
            return kept

    async def after_refusal(self, refused: str) -> Access:
        """A token other than ``refused``. Raises BackendFault."""
        kept = self._access
        if kept is not None and kept.token != refused:
            return kept
        return await self._renewed()

    async def close(self) -> None:
        """Cancel a login in progress."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing}, timeout=1)

    async def _renewed(self) -> Access:
        return await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[Access]:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="log in to the cloud")
            # The waiting callers may have been cancelled: read the fault, so that asyncio does not warn.
            self._renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._renewing

    async def _renew(self) -> Access:
        try:
            self._access = await self._log_in()
        except BackendFault as fault:
            self._not_before = self._monotonic() + REST
            if self._access is not None:
                log.warning("token not renewed", error=str(fault))
            raise
        self.logins += 1
        return self._access

    async def _log_in(self) -> Access:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.to_thread(self._login.log_in)
        except TimeoutError as late:
            raise BackendDown(f"no token from the cloud within {self._timeout:g} s") from late
        except BackendFault:
            raise
        except Exception as fault:
            # The plugins of keystoneauth1 do not document what they raise.
            log.exception("a login failed in a way that is not known")
            raise BackendDown(f"no token from the cloud: {type(fault).__name__}") from fault


class TokenAuth(httpx.Auth):
    """Adds the token to a request. A 401 renews it once and repeats the request, which was not carried out."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        access = await self._identity.access()
        request.headers["X-Auth-Token"] = access.token
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            access = await self._identity.after_refusal(access.token)
            request.headers["X-Auth-Token"] = access.token
            yield request
