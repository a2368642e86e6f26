"""The agent's heartbeat: a request every few seconds, from a thread and a connection of its own.

So a plugin that blocks the main loop does not make the host count as lost.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from proctor_agent.attempts.supervisor import AttemptsSnapshot
from proctor_common import subjects
from proctor_common.bus import Bus, BusError, BusOptions, NoResponders
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import Heartbeat, HeartbeatReply

log = structlog.get_logger(__name__)

Beaten = Callable[[HeartbeatReply, float], None]
"""Takes an answer and the agent's ``time.monotonic`` in the middle of the exchange; called in the heartbeat's
thread."""


class Heart:
    """Sends heartbeats from ``start`` to ``stop``. Reads the snapshot and calls ``beaten`` in its own thread."""

    def __init__(
        self,
        options: BusOptions,
        agent: str,
        *,
        boot_id: str,
        instance: str,
        slots: int,
        interval: float,
        snapshot: Callable[[], AttemptsSnapshot],
        beaten: Beaten,
    ) -> None:
        self._options = options
        self._subject = subjects.heartbeat(agent)
        self._boot_id = boot_id
        self._instance = instance
        self._slots = slots
        self._interval = interval
        self._snapshot = snapshot
        self._beaten = beaten
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self, patience: float = 3.0) -> None:
        """Stop sending; waits ``patience`` seconds for the thread."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        self._thread.join(patience)

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._keep_on())

    async def _keep_on(self) -> None:
        self._task = asyncio.create_task(self._beat_for_ever())
        if self._stopping.is_set():
            self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and self._task.exception() is not None:
            log.error("heartbeat_failed", exc_info=self._task.exception())

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                async with Bus(self._options) as bus:
                    while True:
                        begun = asyncio.get_running_loop().time()
                        await self._beat(bus)
                        passed = asyncio.get_running_loop().time() - begun
                        await asyncio.sleep(max(0.05, self._interval - passed))
            except BusError as fault:
                # The first connection failed; once there is one, the bus reconnects by itself.
                log.warning("heartbeat_has_no_bus", error=str(fault))
            except Exception:
                # Without this thread the host counts as lost: no exception may end it.
                log.exception("heartbeat_failed")
            await asyncio.sleep(self._interval)

    async def _beat(self, bus: Bus) -> None:
        seen = self._snapshot()
        sent = time.monotonic()
        beat = Heartbeat(
            boot_id=self._boot_id,
            instance=self._instance,
            slots=self._slots,
            attempts=list(seen.attempts),
            ended=list(seen.ended),
            spool_bytes=seen.spool_bytes,
            holding=list(seen.holding),
            remains=list(seen.remains),
            time=datetime.now(UTC),
        )
        try:
            answer = await bus.request(self._subject, beat.encode(), timeout=max(1.0, self._interval))
            reply = decode(HeartbeatReply, answer)
        except NoResponders:
            log.debug("no_controller")
        except (BusError, BadMessage) as fault:
            log.warning("heartbeat_unanswered", error=str(fault))
        else:
            self._beaten(reply, (sent + time.monotonic()) / 2)
