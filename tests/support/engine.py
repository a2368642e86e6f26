"""Engines on a real database and a real bus, and agents that speak the real protocol without doing any work."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common import subjects
from proctor_common.bus import Bus, BusOptions, Message
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.events import AttemptRef, StepFinished
from proctor_common.messages.orders import (
    AttemptStanding,
    CancelOrder,
    QueryOrder,
    StandingReply,
    StartAnswer,
    StartOrder,
    StartReply,
)
from proctor_common.states import Role, StepResult
from proctor_controller.db.sealing import Seal
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.leasing import Volumes
from proctor_controller.engine.reports import Reports
from proctor_controller.engine.services import make_services
from proctor_controller.engine.settings import EngineSettings
from proctor_controller.engine.watchdog import Watchdog
from proctor_controller.handlers.calls import bytes_of
from proctor_controller.handlers.table import HANDLERS
from support.nats import NatsAccount
from support.postgres import Database
from support.wait import eventually

ADMIN = Actor(name="root", role=Role.ADMIN)
SEAL = "k1:" + base64.b64encode(bytes(range(32))).decode()
ECHO: dict[str, Any] = {
    "type": "object",
    "properties": {
        "command": {"type": "string"},
        "args": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "x-argv": True},
        "password": {"type": "string", "x-secret": True},
        "name": {"type": "string", "pattern": "^[a-z]+$"},
    },
    "required": ["command"],
    "additionalProperties": False,
}
PLUGINS = {"shell": {"description": "", "version": "1", "methods": {"run": {"description": "", "parameters": ECHO}}}}


def bus_to(nats: NatsAccount, name: str = "test") -> Bus:
    """A client of the account."""
    return Bus(BusOptions(servers=(nats.url,), name=name))


def make_runs_engine(
    database: AsyncEngine,
    bus: Bus,
    settings: EngineSettings | None = None,
    *,
    volumes: Volumes | None = None,
    perform: bool = True,
) -> Engine:
    return Engine(make_services(database, bus, Seal(SEAL), settings, perform=perform), volumes)


@asynccontextmanager
async def hearing_engine(
    database: AsyncEngine, bus: Bus, settings: EngineSettings | None = None, *, volumes: Volumes | None = None
) -> AsyncIterator[Engine]:
    """An engine that hears what agents report."""
    engine = make_runs_engine(database, bus, settings, volumes=volumes)
    reports = Reports(engine.database, engine.feed)
    hearing = asyncio.create_task(
        bus.consume(subjects.EVENT_STREAM, subjects.EVENT_DURABLE, reports.take, retry_delay=0.05)
    )
    try:
        yield engine
    finally:
        hearing.cancel()
        await asyncio.wait({hearing})
        await engine.close()


def make_watchdog(engine: Engine) -> Watchdog:
    return Watchdog(engine.services, engine.feed, engine.queue, engine.leasing)


@dataclass
class Context:
    """As much of a controller's context as the operations on runs use."""

    engine: Engine

    @property
    def database(self) -> AsyncEngine:
        return self.engine.database


async def call(engine: Engine, op: str, actor: Actor = ADMIN, **body: Any) -> Any:
    """Carry out an operation as the handler table does; the view as JSON."""
    handler = HANDLERS[op]
    context: Any = Context(engine)
    return json.loads(bytes_of(await handler.perform(context, actor, handler.operation.request.model_validate(body))))


async def submit(engine: Engine, actor: Actor = ADMIN, **body: Any) -> Any:
    """Submit a test case of the method `shell.run`; the run."""
    given = {"run": new_id(), "plugin": "shell", "method": "run", "parameters": {"command": "true"}, **body}
    return await call(engine, "case.submit", actor, **given)


async def until_finished(engine: Engine, run: str, timeout: float = 10) -> Any:
    async def finished() -> Any:
        view = await call(engine, "run.get", run=run)
        assert view["state"] == "finished", view
        return view

    return await eventually(finished, timeout, f"the end of run {run}")


async def step_of(engine: Engine, run: str) -> Any:
    """The only step of a run."""
    (step,) = (await call(engine, "run.steps", run=run))["items"]
    return step


async def until_step(engine: Engine, run: str, state: str, timeout: float = 10) -> Any:
    async def there() -> Any:
        step = await step_of(engine, run)
        assert step["state"] == state, step
        return step

    return await eventually(there, timeout, f"step of run {run} to be {state}")


Answerer = Callable[[StartOrder], StartReply | None]


def accept(order: StartOrder) -> StartReply | None:
    return StartReply(answer=StartAnswer.ACCEPTED)


@dataclass
class FakeAgent:
    """Keeps a journal as an agent does, and ends attempts when the test says so (at once with `ends`)."""

    bus: Bus
    database: Database
    id: str = field(default_factory=new_id)
    host: str = "h1"
    slots: int = 2
    ends: StepResult | None = None
    answer: Answerer = accept
    silent_cancel: bool = False
    most_at_once: int = 0
    started: list[StartOrder] = field(default_factory=list)
    seen: list[StartOrder] = field(default_factory=list)
    cancels: list[CancelOrder] = field(default_factory=list)
    queries: list[QueryOrder] = field(default_factory=list)
    tombstones: set[tuple[str, int]] = field(default_factory=set)
    ended: dict[tuple[str, int], StepFinished] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _served: list[Any] = field(default_factory=list)

    async def join(self, *, groups: tuple[str, ...] = (), labels: dict[str, str] | None = None) -> "FakeAgent":
        """Be in the database, as enrolment and registration leave an agent, and listen."""
        connection = await asyncpg.connect(self.database.dsn)
        try:
            await connection.execute(
                """INSERT INTO control.agents (id, host, public_key, state, labels, instance, slots, plugins,
                     registered_at, last_heartbeat)
                   VALUES ($1, $2, $3, 'online', $4, 'i1', $5, $6, now(), now())""",
                self.id,
                self.host,
                f"U{self.id}",
                json.dumps(labels or {}),
                self.slots,
                json.dumps(PLUGINS),
            )
            for group in groups:
                await connection.execute("INSERT INTO control.groups (name) VALUES ($1) ON CONFLICT DO NOTHING", group)
                await connection.execute("INSERT INTO control.group_agents VALUES ($1, $2)", group, self.id)
        finally:
            await connection.close()
        await self.listen()
        return self

    async def listen(self) -> None:
        verbs: dict[str, Any] = {"start": self._start, "cancel": self._cancel, "query": self._query}
        for verb, handler in verbs.items():
            self._served.append(await self.bus.serve(subjects.order(self.id, verb), handler))

    async def deafen(self) -> None:
        """Listen no more: orders have no responders."""
        for served in self._served:
            await served.close()
        self._served.clear()

    async def _start(self, message: Message) -> bytes | None:
        order = decode(StartOrder, message.data)
        key = (order.step, order.attempt)
        self.seen.append(order)
        if key in self.tombstones:
            return StartReply(answer=StartAnswer.TOMBSTONED).encode()
        if any((known.step, known.attempt) == key for known in self.started):
            return StartReply(answer=StartAnswer.ACCEPTED).encode()
        reply = self.answer(order)
        if reply is not None and reply.answer in {StartAnswer.EXPIRED, StartAnswer.REFUSED}:
            self.tombstones.add(key)
        if reply is None or reply.answer is StartAnswer.ACCEPTED:
            self.started.append(order)
            self.most_at_once = max(self.most_at_once, len(self.alive_orders()))
            if self.ends is not None:
                self._later(self.finish(order, self.ends))
        return None if reply is None else reply.encode()

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def order(self, step: str, attempt: int) -> StartOrder | None:
        return next((known for known in self.started if (known.step, known.attempt) == (step, attempt)), None)

    def _standing(self, step: str, attempt: int) -> StandingReply:
        known = self.order(step, attempt)
        if known is None:
            self.tombstones.add((step, attempt))
            return StandingReply(standing=AttemptStanding.NEVER)
        if (step, attempt) in self.ended:
            return StandingReply(standing=AttemptStanding.FINISHED, end=self.ended[step, attempt])
        return StandingReply(standing=AttemptStanding.RUNNING)

    async def _cancel(self, message: Message) -> bytes:
        order = decode(CancelOrder, message.data)
        self.cancels.append(order)
        reply = self._standing(order.step, order.attempt)
        known = self.order(order.step, order.attempt)
        if known is not None and reply.end is None and not self.silent_cancel:
            self._later(self.finish(known, StepResult(order.cause), tree_gone=True))
        return reply.encode()

    async def _query(self, message: Message) -> bytes:
        order = decode(QueryOrder, message.data)
        self.queries.append(order)
        return self._standing(order.step, order.attempt).encode()

    def report(self, order: StartOrder, result: StepResult = StepResult.PASSED, **fields: Any) -> StepFinished:
        now = datetime.now(UTC)
        given = {"exit_code": 0, "chunks": 1, "lines": 1, "bytes": 3, "started_at": now, "finished_at": now, **fields}
        return StepFinished(
            run=order.run, step=order.step, attempt=order.attempt, token=order.token, result=result, **given
        )

    async def finish(self, order: StartOrder, result: StepResult = StepResult.PASSED, **fields: Any) -> StepFinished:
        """End an attempt: journal, then event."""
        finished = self.report(order, result, **fields)
        self.ended[order.step, order.attempt] = finished
        await self.publish(finished)
        return finished

    async def publish(self, finished: StepFinished, msg_id: str | None = None) -> None:
        subject = subjects.event(self.id, finished.step, finished.attempt)
        await self.bus.append(subject, finished.encode(), msg_id=msg_id)

    def alive_orders(self) -> list[StartOrder]:
        return [order for order in self.started if (order.step, order.attempt) not in self.ended]

    def alive(self) -> list[AttemptRef]:
        return [AttemptRef(step=o.step, attempt=o.attempt, token=o.token) for o in self.alive_orders()]
