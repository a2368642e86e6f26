"""A responder on real NATS that speaks messages/calls: what the api meets in the controllers' place, and writers of
log chunks as agents write them."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from proctor_api.http.listening import bind
from proctor_api.main import serve
from proctor_api.settings import ApiSettings
from proctor_common import subjects
from proctor_common.bus import Bus, Message
from proctor_common.errors import ProctorError, not_found
from proctor_common.ids import new_id
from proctor_common.messages.base import decode
from proctor_common.messages.calls import OPERATIONS
from proctor_common.messages.calls.operation import Actor, CallEnvelope, accept, refuse
from proctor_common.messages.log import Chunk, message_id
from proctor_common.messages.views import (
    AgentView,
    AttemptLog,
    EventView,
    GroupView,
    RecordView,
    RunChanged,
    RunLogIndex,
    RunView,
    StepView,
    View,
)
from proctor_common.service import Stop
from proctor_common.states import AgentState, RunResult, RunState, Source, StepResult, StepState
from support.nats import NatsAccount
from support.postgres import Database
from support.wait import eventually

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak HTTP in the clear: reading the system's certificates would cost each of them 50 ms."""
FIRST_TOKEN = "prt_first-token-of-the-tests-0123456789abcdef"


@dataclass
class Attempt:
    """One attempt in the responder's record."""

    index: int
    step_id: str
    step: str
    attempt: int
    agent: str
    state: StepState = StepState.RUNNING
    result: StepResult | None = None
    chunks: int | None = None
    lines: int | None = None
    bytes: int | None = None
    seq: int = 0
    line: int = 1
    size: int = 0


@dataclass
class FakeRun:
    """One run in the responder's record."""

    id: str
    number: int
    group: str | None = None
    state: RunState = RunState.RUNNING
    result: RunResult | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: list[Attempt] = field(default_factory=list)
    events: list[EventView] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    name: str = "case"
    kind: str = "case"
    reason: str = ""

    def view(self) -> RunView:
        return RunView(
            id=self.id,
            number=self.number,
            name=self.name,
            kind=self.kind,
            reason=self.reason,
            state=self.state,
            result=self.result,
            created_at=self.created_at,
            group=self.group,
        )

    def index(self) -> RunLogIndex:
        return RunLogIndex(
            run=self.id,
            number=self.number,
            group=self.group,
            state=self.state,
            result=self.result,
            created_at=self.created_at,
            attempts=[
                AttemptLog(
                    index=a.index,
                    step_id=a.step_id,
                    step=a.step,
                    attempt=a.attempt,
                    agent=a.agent,
                    state=a.state,
                    result=a.result,
                    chunks=a.chunks,
                    lines=a.lines,
                    bytes=a.bytes,
                )
                for a in self.attempts
            ],
        )


class Listing(View):
    """A page of anything."""

    items: list[Any]
    next: str | None = None


class World:
    """Answers calls; ``asked`` counts them by operation; ``refusals`` and ``answers`` go before what it knows."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.runs: dict[str, FakeRun] = {}
        self.agents: list[AgentView] = []
        self.asked: dict[str, list[CallEnvelope]] = {}
        self.refusals: dict[str, ProctorError] = {}
        self.answers: dict[str, Any] = {}
        self.groups = {"lab-a", "lab-b"}
        self.waiting_steps: list[StepView] = []
        self.earlier_attempts: list[StepView] = []
        self.silent: set[str] = set()
        self.records: list[RecordView] = []
        self.confirmed: list[int] = []
        self.events = 0
        self._served: list[Any] = []

    async def start(self) -> None:
        self._served.append(await self.bus.serve(subjects.ALL_CALLS, self._answer, queue=subjects.CONTROLLERS))

    async def stop(self) -> None:
        for served in self._served:
            await served.close()
        self._served.clear()

    async def _answer(self, message: Message) -> bytes | None:
        op = message.subject.removeprefix(subjects.call(""))
        call = decode(CallEnvelope, message.data)
        if op.startswith("record."):
            return self._of_records(op, call)
        self.asked.setdefault(op, []).append(call)
        if op in self.silent:
            return None
        try:
            if op in self.refusals:
                raise self.refusals[op]
            if op in self.answers:
                OPERATIONS[op].request.model_validate(call.body)
                return accept(self.answers[op].encode())
            body = OPERATIONS[op].request.model_validate(call.body)
            return accept(getattr(self, "on_" + op.replace(".", "_"))(call.actor, body).encode())
        except ProctorError as error:
            return refuse(error)

    def _of_records(self, op: str, call: CallEnvelope) -> bytes | None:
        """What the api's recorder asks by itself; not counted among what its callers asked."""
        if op in self.silent:
            return None
        if op == "record.confirm":
            self.confirmed += call.body["ids"]
            self.records = [record for record in self.records if record.id not in call.body["ids"]]
        found = self.records[: call.body.get("limit", 0)]
        following = str(len(found)) if len(found) < len(self.records) else None
        return accept(Listing(items=list(found), next=following).encode())

    async def record(self, *records: RecordView, told: bool = True) -> None:
        """Have something recorded; ``told``: the api learns of it at once."""
        self.records += records
        if told:
            await self.bus.publish(subjects.records(), b"")

    def find(self, actor: Actor, ref: str) -> FakeRun:
        for run in self.runs.values():
            if ref in {run.id, str(run.number)} and actor.sees(run.group):
                return run
        raise not_found("run", ref)

    def add_run(self, *, group: str | None = None, run: str | None = None) -> FakeRun:
        made = FakeRun(run or new_id(), len(self.runs) + 1, group)
        self.runs[made.id] = made
        return made

    def on_ping(self, actor: Actor, body: Any) -> Any:
        return Listing(items=[])

    def on_case_submit(self, actor: Actor, body: Any) -> RunView:
        if body.host not in {None, "local-1"}:
            raise not_found("host", body.host)
        if body.plugin != "linux_system":
            raise not_found("plugin", body.plugin)
        if body.method != "run_shell":
            raise not_found("method", body.method)
        run = self.runs.get(body.run) or self.add_run(run=body.run, group=body.group)
        return run.view()

    def on_run_submit(self, actor: Actor, body: Any) -> RunView:
        return (self.runs.get(body.run) or self.add_run(run=body.run, group=body.group)).view()

    def on_run_get(self, actor: Actor, body: Any) -> RunView:
        return self.find(actor, body.run).view()

    def on_run_cancel(self, actor: Actor, body: Any) -> RunView:
        return self.find(actor, body.run).view()

    def on_run_list(self, actor: Actor, body: Any) -> Listing:
        return Listing(items=[run.view() for run in self.runs.values() if actor.sees(run.group)])

    def on_run_log_index(self, actor: Actor, body: Any) -> RunLogIndex:
        return self.find(actor, body.run).index()

    def on_run_steps(self, actor: Actor, body: Any) -> Listing:
        run = self.find(actor, body.run)
        made = [
            StepView(id=a.step_id, step=a.step, state=a.state, attempt=a.attempt, output=run.outputs)
            for a in run.attempts
        ]
        rows = made + self.waiting_steps
        if body.attempts:
            rows = [each for row in rows for each in (*(e for e in self.earlier_attempts if e.id == row.id), row)]
        return Listing(items=rows)

    def on_run_events(self, actor: Actor, body: Any) -> Listing:
        if body.run is not None:
            found = [e for e in self.find(actor, body.run).events if e.seq > body.after]
        else:
            all_events = [e for run in self.runs.values() if actor.sees(run.group) for e in run.events]
            found = sorted((e for e in all_events if e.cursor > body.after), key=lambda e: e.cursor)
        page = found[: body.limit]
        last = None if len(found) == len(page) else page[-1].seq if body.run is not None else page[-1].cursor
        return Listing(items=page, next=None if last is None else str(last))

    def on_agent_list(self, actor: Actor, body: Any) -> Listing:
        return Listing(items=self.agents)

    def on_agent_get(self, actor: Actor, body: Any) -> AgentView:
        for agent in self.agents:
            if body.agent in {agent.id, agent.host, str(agent.number)}:
                return agent
        raise not_found("agent", body.agent)

    def on_agent_join(self, actor: Actor, body: Any) -> AgentView:
        if not self.agents:
            raise not_found("agent", "any")
        return self.agents[0]

    def on_audit_add(self, actor: Actor, body: Any) -> Listing:
        return Listing(items=[])

    def on_audit_list(self, actor: Actor, body: Any) -> Listing:
        return Listing(items=[])

    def on_group_list(self, actor: Actor, body: Any) -> Listing:
        return Listing(items=[])

    def on_group_get(self, actor: Actor, body: Any) -> GroupView:
        if body.name not in self.groups or not actor.sees(body.name):
            raise not_found("group", body.name)
        return GroupView(name=body.name, agents=[], created_at=datetime.now(UTC))

    def on_group_put(self, actor: Actor, body: Any) -> GroupView:
        self.groups.add(body.name)
        return self.on_group_get(actor, body)

    # -- what happens to a run ------------------------------------------------------------------------------------

    def begin(self, run: FakeRun, step: str = "build", *, agent: str | None = None, attempt: int = 1) -> Attempt:
        """A new attempt in the run's record."""
        made = Attempt(len(run.attempts) + 1, new_id(), step, attempt, agent or new_id())
        run.attempts.append(made)
        return made

    def event(self, run: FakeRun, new: str, *, attempt: Attempt | None = None, result: str | None = None) -> EventView:
        """A state change, written down but not announced."""
        self.events += 1
        made = EventView(
            seq=len(run.events) + 1,
            cursor=self.events,
            run=run.id,
            kind="run" if attempt is None else "step",
            step=None if attempt is None else attempt.step,
            step_id=None if attempt is None else attempt.step_id,
            attempt=None if attempt is None else attempt.attempt,
            new=new,
            result=result,
            at=datetime.now(UTC),
        )
        run.events.append(made)
        return made

    async def announce(self, run: FakeRun, *events: EventView) -> None:
        """The wake-up after a commit."""
        change = RunChanged(run=run.id, group=run.group, state=run.state, result=run.result, events=list(events))
        await self.bus.publish(subjects.wake(run.id), change.encode())

    async def finish_attempt(self, run: FakeRun, attempt: Attempt, *, chunks: int | None = None) -> None:
        """The attempt's end; ``chunks`` None: as many as were written."""
        attempt.state, attempt.result = StepState.FINISHED, StepResult.PASSED
        attempt.chunks = attempt.seq if chunks is None else chunks
        attempt.lines, attempt.bytes = attempt.line - 1, attempt.size
        await self.announce(run, self.event(run, "finished", attempt=attempt, result="passed"))

    async def finish(self, run: FakeRun, result: RunResult = RunResult.PASSED, *, announce: bool = True) -> None:
        """The run's end."""
        run.state, run.result = RunState.FINISHED, result
        event = self.event(run, "finished", result=result.value)
        if announce:
            await self.announce(run, event)

    # -- logs -----------------------------------------------------------------------------------------------------

    def chunk(self, attempt: Attempt, data: bytes, *, source: Source = Source.STDOUT) -> Chunk:
        """The attempt's next chunk."""
        attempt.seq += 1
        made = Chunk(attempt.seq, attempt.line, time.time(), source, data)
        attempt.line += data.count(b"\n")
        attempt.size += len(data)
        return made

    async def store(
        self, run: FakeRun, attempt: Attempt, chunk: Chunk, *, agent: str | None = None, again: bool = False
    ) -> int:
        """Append a chunk to stream LOG; ``again``: past the stream's dedupe. Its stream sequence."""
        done = await self.bus.append(
            subjects.log(agent or attempt.agent, run.id, attempt.step_id, attempt.attempt),
            chunk.encode(),
            msg_id=new_id() if again else message_id(attempt.step_id, attempt.attempt, chunk.seq),
        )
        return done.seq

    async def write(self, run: FakeRun, attempt: Attempt, *texts: str) -> None:
        """Chunks in order."""
        for text in texts:
            await self.store(run, attempt, self.chunk(attempt, text.encode()))


@dataclass
class Api:
    """A running api."""

    settings: ApiSettings
    http: httpx.AsyncClient
    world: World
    database: Database
    nats: NatsAccount

    @property
    def url(self) -> str:
        return f"http://{self.settings.http}"

    @property
    def ws(self) -> str:
        return f"ws://{self.settings.http}"

    def headers(self, token: str = FIRST_TOKEN) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, token: str = FIRST_TOKEN, **how: Any) -> httpx.Response:
        headers = {**self.headers(token), **how.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **how)

    async def token(self, role: str = "viewer", groups: list[str] | None = None) -> str:
        body: dict[str, Any] = {"name": f"a {role}", "role": role}
        if groups is not None:
            body["groups"] = groups
        answer = await self.call("POST", "/v1/tokens", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


def agent(host: str = "local-1", number: int = 1, **changes: Any) -> AgentView:
    """An agent with one plugin."""
    values: dict[str, Any] = {
        "id": new_id(),
        "number": number,
        "host": host,
        "state": AgentState.ONLINE,
        "plugins": {"linux_system": {"methods": {"run_shell": {"description": "runs a command"}}}},
    }
    return AgentView.model_validate({**values, **changes})


@asynccontextmanager
async def running(settings: ApiSettings, trust: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """The service in this process, until the block ends."""
    stop = Stop()
    task = asyncio.create_task(serve(settings, stop, bind(settings.address)))

    async def ready() -> bool:
        if task.done():
            task.result()
        async with httpx.AsyncClient(verify=trust or PLAIN) as http:
            scheme = "https" if trust is not None else "http"
            return (await http.get(f"{scheme}://{settings.http}/healthz")).status_code == 200

    await eventually(ready, 15, "the api to answer", retry_on=(httpx.HTTPError,))
    try:
        yield
    finally:
        stop.ask("test over")
        await asyncio.wait_for(task, 10)
