"""Background tasks of the engine: they end with it, and their faults are logged."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError

log = structlog.get_logger(__name__)

_PASSING = {Code.DATABASE_UNAVAILABLE, Code.BUS_UNAVAILABLE}


class Tasks:
    """Starts tasks and forgets those that are done. What one leaves undone the watchdog derives again.

    ``start`` False: none is ever started.
    """

    def __init__(self, *, start: bool = True) -> None:
        self._running: set[asyncio.Task[object]] = set()
        self._closed = not start
        self.failures = 0

    def start(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Run ``work`` in the background; after :meth:`close` not at all."""
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is None:
            return
        self.failures += 1
        if isinstance(fault, BusError) or (isinstance(fault, ProctorError) and fault.code in _PASSING):
            log.warning("effect_not_performed", task=task.get_name(), error=str(fault))
        else:
            log.error("effect_failed", task=task.get_name(), exc_info=fault)

    async def drain(self, timeout: float) -> None:
        """Wait for what runs, ``timeout`` seconds at most."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout)

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        self._closed = True
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=5)
