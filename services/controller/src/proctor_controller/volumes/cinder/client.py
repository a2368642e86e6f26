"""Calls to block storage: one HTTP client, a time limit for each call, and the faults of missing answers."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import structlog

from proctor_controller.volumes.backend import AnswerLost, BackendDown, BadRequest
from proctor_controller.volumes.cinder.answers import (
    Answer,
    base_of,
    fault_of,
    microversion,
    read_json,
    root_of,
    seconds_of,
    version_of,
)
from proctor_controller.volumes.cinder.identity import Identity, TokenAuth
from proctor_controller.volumes.cinder.login import Login
from proctor_controller.volumes.cinder.source import CloudSource

log = structlog.get_logger(__name__)

CONNECTIONS = 20
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
TRIED_AGAIN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
"""Faults of a kept-open connection that the other side has closed meanwhile."""
IDEMPOTENT = {"GET", "PUT", "DELETE"}


class BlockStorage:
    """The cloud's block storage for one account. The first call logs in and determines the microversion."""

    def __init__(self, source: CloudSource) -> None:
        self._source = source
        self._login = Login(source)
        self.identity = Identity(self._login, timeout=3 * source.call_timeout)
        self._client: httpx.AsyncClient | None = None
        self._version: tuple[str, str] | None = None
        self._opening = asyncio.Lock()
        self.calls = 0

    async def close(self) -> None:
        await self.identity.close()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def call(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str] | None = None, doing: str
    ) -> Answer:
        """The answer, whatever its status below 500. Raises AnswerLost, BackendDown, BadRequest.

        GET, PUT and DELETE are repeated once if the connection broke; a POST never is. After a 5xx to a POST it is
        unknown what was done, whoever sent it: AnswerLost.
        """
        client, version, base = await self._ready()
        request = client.build_request(
            method, f"{base}{path}", json=json, params=params, headers={"OpenStack-API-Version": f"volume {version}"}
        )
        answer = await self._send(client, request, doing)
        if answer.status == httpx.codes.NOT_ACCEPTABLE:
            # The cloud was changed meanwhile: the next call determines its version again.
            self._version = None
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            fault = fault_of(answer, doing)
            raise AnswerLost(str(fault)) if method == "POST" else fault
        return answer

    async def _ready(self) -> tuple[httpx.AsyncClient, str, str]:
        access = await self.identity.access()
        base = base_of(access.endpoint, access.project)
        if self._client is None or self._version is None or self._version[0] != base:
            async with self._opening:
                if self._client is None:
                    self._client = await self._connect()
                if self._version is None or self._version[0] != base:
                    self._version = (base, await self._negotiate(self._client, base))
        return self._client, self._version[1], base

    async def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            auth=TokenAuth(self.identity),
            verify=await asyncio.to_thread(self._login.tls),
            timeout=httpx.Timeout(self._source.call_timeout, connect=self._source.connect_timeout),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=30),
            headers={"Accept": "application/json", "User-Agent": "proctor"},
        )

    async def _negotiate(self, client: httpx.AsyncClient, base: str) -> str:
        """The microversion to request. ``/`` answers 300 without a token; some clouds allow only ``/v3/``."""
        root = root_of(base)
        for address in (f"{root}/", f"{root}/v3/"):
            answer = await self._send(client, client.build_request("GET", address), "learn the API's versions")
            highest = version_of(answer.body)
            if highest is not None:
                return microversion(highest)
            if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise fault_of(answer, "learn the API's versions")
        raise BadRequest(f"no block storage of version 3 answers at {root}")

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request, doing: str) -> Answer:
        request.headers["X-OpenStack-Request-ID"] = f"req-{uuid.uuid4()}"
        last = request.method not in IDEMPOTENT
        while True:
            try:
                return await self._send_once(client, request)
            except TRIED_AGAIN as fault:
                if last:
                    raise _lost(request, doing, fault) from fault
                last = True
            except NEVER_SENT as fault:
                raise BackendDown(f"{doing}: cannot reach {request.url.host}: {_text_of(fault)}") from fault
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as fault:
                raise _lost(request, doing, fault) from fault

    async def _send_once(self, client: httpx.AsyncClient, request: httpx.Request) -> Answer:
        # httpx limits each read; this limits the whole call.
        async with asyncio.timeout(self._source.call_timeout + self._source.connect_timeout):
            response = await client.send(request)
        self.calls += 1
        identifier = response.headers.get("x-openstack-request-id") or request.headers["X-OpenStack-Request-ID"]
        log.debug("block storage", method=request.method, path=request.url.path, status=response.status_code)
        return Answer(
            status=response.status_code,
            body=read_json(response.text),
            text=response.text,
            retry_after=seconds_of(response.headers.get("Retry-After")),
            request_id=identifier,
        )


def _lost(request: httpx.Request, doing: str, fault: Exception) -> AnswerLost | BackendDown:
    message = (
        f"{doing}: no answer from {request.url.host}: {_text_of(fault)} ({request.headers['X-OpenStack-Request-ID']})"
    )
    return BackendDown(message) if request.method == "GET" else AnswerLost(message)


def _text_of(fault: Exception) -> str:
    return " ".join(str(fault).split())[:200] or type(fault).__name__
