"""Whether a creation may be tried now: breakers, the hold after a refusal for the quota, delays asked for by the
backend.

Only the keeper writes breakers and the hold. They are stored in rows, so that the next keeper and every view has them.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from proctor_controller.db.pool import jobs as rows
from proctor_controller.db.pool.pools import end_hold, hold_creation, load_pool_state
from proctor_controller.domain.volumes.breaker import (
    BACKEND,
    Breaker,
    after_failure,
    after_start,
    after_success,
    lets_pass,
)
from proctor_controller.pool.fenced_session import Desk

log = structlog.get_logger(__name__)

BUSY_SECONDS = 5.0
LONGEST_REST = 300.0


class Throttle:
    """What limits creations now. Call ``refresh`` before each round."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._breakers: dict[str, Breaker] = {}
        self._held_until: datetime | None = None
        self._held_reason = ""
        self._rest_until: datetime | None = None
        self._writing = asyncio.Lock()
        self._read_at: datetime | None = None

    @property
    def now(self) -> datetime:
        """The database's clock at the last ``refresh``."""
        assert self._read_at is not None, "the gate is asked before it was refreshed"
        return self._read_at

    async def refresh(self) -> None:
        """Read the rows. Raises ProctorError."""
        async with self._writing, self._desk.reading() as db:
            state = await load_pool_state(db)
            self._breakers = await rows.load_breakers(db)
        self._read_at = state["now"]
        self._held_until, self._held_reason = state["held_until"], state["held_reason"]

    @property
    def held(self) -> bool:
        """Whether no spares are requested because the quota is used up."""
        return self._held_until is not None and self._held_until > self.now

    def obstacle(self, type: str, *, spare: bool) -> str:
        """Why no volume of the type may be requested now; empty if one may be."""
        now = self.now
        for scope in (BACKEND, type):
            breaker = self._breakers.get(scope)
            if breaker is not None and not lets_pass(breaker, now):
                return f"creation is stopped after {breaker.failures} failures in a row: {breaker.reason}"
        if self._rest_until is not None and self._rest_until > now:
            return "the backend asked for fewer calls"
        if spare and self.held:
            return f"the quota is used up: {self._held_reason}"
        return ""

    def is_open(self, type: str) -> bool:
        """Whether a breaker for the type, or for the whole backend, is open: at most a probe may pass."""
        return any((breaker := self._breakers.get(scope)) is not None and breaker.open for scope in (BACKEND, type))

    async def start(self, type: str) -> None:
        """A creation is tried: if a breaker is open, the next one waits for its outcome or a minute."""
        for scope in (BACKEND, type):
            await self._change(scope, lambda breaker: after_start(breaker, self.now))

    async def succeed(self, *scopes: str) -> None:
        """A call in these scopes succeeded."""
        for scope in scopes:
            old, new = await self._change(scope, after_success)
            if old.open and not new.open:
                log.info("pool_breaker_closed", scope=scope or "backend")
                self._desk.progress()

    async def fail(self, scope: str, reason: str) -> None:
        """A call in this scope failed."""
        old, new = await self._change(scope, lambda breaker: after_failure(breaker, self.now, reason))
        if new.open and not old.open:
            log.error("pool_breaker_open", scope=scope or "backend", failures=new.failures, reason=reason)

    async def _change(self, scope: str, change: Callable[[Breaker], Breaker]) -> tuple[Breaker, Breaker]:
        """Change a breaker, in memory and in its row, one change at a time; returns it before and after."""
        async with self._writing:
            old = self._breakers.get(scope, Breaker(scope))
            new = change(old)
            if new != old:
                async with self._desk.writing() as db:
                    await rows.save_breaker(db, new)
                self._breakers[scope] = new
        return old, new

    async def hold(self, seconds: float, reason: str) -> None:
        """Request no more spares until the next run of the job, or until a volume of ours is deleted."""
        if not self.held:
            log.warning("pool_quota_used_up", reason=reason)
        async with self._desk.writing() as db:
            await hold_creation(db, seconds, reason)
        self._held_until = self.now + timedelta(seconds=seconds)
        self._held_reason = reason

    async def release(self) -> None:
        """There may be room again."""
        if self._held_until is not None:
            async with self._desk.writing() as db:
                await end_hold(db)
            self._held_until, self._held_reason = None, ""

    def rest(self, after: float | None) -> None:
        """The backend asked for fewer requests; ``after``: seconds, None: unknown."""
        self._rest_until = self.now + timedelta(seconds=min(after or BUSY_SECONDS, LONGEST_REST))

    @property
    def open_breakers(self) -> list[Breaker]:
        """The breakers that limit creation."""
        return [breaker for breaker in self._breakers.values() if breaker.open]
