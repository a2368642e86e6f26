"""``Idempotency-Key``: the same key and body again get the first answer, and start nothing twice.

A row with the id of the new run is written before the request goes out. If the api dies in between, a repetition takes
over the row when its hold (60 s) has expired, and sends the same run id: the controller starts the run once.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request

from proctor_api.auth import Caller
from proctor_api.http.bodies import ViewResponse
from proctor_api.store.keys import KeyStore
from proctor_common.errors import Code, ProctorError, invalid
from proctor_common.ids import new_id
from proctor_common.messages.base import Encoded

T = TypeVar("T")
HEADER = "idempotency-key"
MAX_KEY = 255
REPLAYED = "Idempotency-Replayed"


class Idempotency:
    """Starts a run at most once per key."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def start(
        self, request: Request, caller: Caller, begin: Callable[[str], Awaitable[ViewResponse[T]]]
    ) -> ViewResponse[T]:
        """Call ``begin`` with the new run's id, or repeat its earlier answer. Without the header, only call it.

        Raises 409 idempotency_in_progress, 422 for a bad key, 422 idempotency_mismatch, and what ``begin`` raises.
        """
        key = request.headers.get(HEADER)
        if key is None:
            return await begin(new_id())
        if not 0 < len(key) <= MAX_KEY or not key.isprintable():
            raise invalid(f"{HEADER}: must be 1 to {MAX_KEY} printable characters", path=HEADER, code="bad_key")
        hash_ = await _hash(request)
        kept = await self._store.hold(caller.key, key, hash_, new_id())
        if kept.request_hash != hash_:
            raise ProctorError(Code.IDEMPOTENCY_MISMATCH, "this Idempotency-Key was used for another request", key=key)
        if kept.answer is not None:
            headers = {REPLAYED: "true"}
            if kept.location is not None:
                headers["Location"] = kept.location
            return ViewResponse(Encoded(kept.answer), kept.status or 200, headers)
        if not kept.mine:
            raise ProctorError(
                Code.IDEMPOTENCY_IN_PROGRESS, "the first request with this key is still running", retry_after=1
            )
        return await self._begin(caller.key, key, kept.run, begin)

    async def _begin(
        self, owner: str, key: str, run: str, begin: Callable[[str], Awaitable[ViewResponse[T]]]
    ) -> ViewResponse[T]:
        try:
            response = await begin(run)
        except ProctorError as fault:
            if fault.status < 500:
                # Nothing was started: free the key for a corrected request.
                await self._store.forget(owner, key)
            else:
                # It may have started: a repetition must send the same run id.
                await self._store.let_go(owner, key)
            raise
        await self._store.keep(owner, key, response.status_code, response.headers.get("location"), bytes(response.body))
        return response


async def _hash(request: Request) -> str:
    digest = hashlib.sha256(f"{request.method} {request.scope['path']}\n".encode())
    digest.update(await request.body())
    return digest.hexdigest()
