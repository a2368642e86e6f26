"""Requests of the api to the controllers: one operation a subject (``subjects.call(op)``), one table op -> request
model.

The request is ``Call``: who asks (the controller checks groups and writes the audit by it; the api has checked
token and role) and the operation's body. The answer is one byte ``+`` and then the JSON of the view (which the api
may pass on as it is), or one byte ``-`` and then a ``Refusal``.
"""

from typing import Any, Literal

from pydantic import Field

from proctor_common.errors import Code, ProctorError
from proctor_common.messages.base import VERSION, BadMessage, JsonObject, Message, decode
from proctor_common.messages.pool_calls import (
    PoolList,
    PoolPut,
    VnfpCreate,
    VnfpList,
    VnfpRef,
    VolumeList,
    VolumeRef,
)
from proctor_common.states import Role

MAX_REPLY = 1024 * 1024
"""Most bytes of an answer: a list then gives fewer rows than asked for, and a ``next``."""


class Actor(Message):
    """Who asks. ``groups`` None: bound to no group, sees all."""

    name: str
    role: Role
    token: str | None = None
    """The token's id, never the token."""
    groups: list[str] | None = None

    def sees(self, group: str | None) -> bool:
        """Whether what belongs to ``group`` (None: to no group) may be seen by this caller."""
        return self.groups is None or (group is not None and group in self.groups)


class Call(Message):
    """One request."""

    v: int = VERSION
    actor: Actor
    body: JsonObject = {}


class Refusal(Message):
    """Why a request was not carried out."""

    code: Code
    message: str
    details: JsonObject = {}


class SubmitCase(Message):
    """``case.submit`` -> RunView. One of host, group, labels says where."""

    run: str
    """The id the new run gets, chosen by the api: a repeated request starts nothing twice."""
    plugin: str
    method: str
    host: str | None = None
    group: str | None = None
    labels: dict[str, str] | None = None
    target: str | None = None
    parameters: JsonObject = {}
    timeout_s: float | None = None
    name: str | None = None
    record: JsonObject | None = None
    """What the Test API is to get when it is finished: members as of a plan's ``record``."""


class SubmitRun(Message):
    """``run.submit`` -> RunView. ``plan``: an object, YAML/JSON text, or a stored plan as ``name`` or ``name@version``.

    A plan in the legacy form (``{name, environment, testplan}``) makes a run of kind ``seed``; its steps are named
    ``case-<n>-step-<k>``. A parameter that is text is turned into the type that the plan declares.
    """

    run: str
    plan: JsonObject | str
    parameters: JsonObject = {}
    group: str | None = None
    name: str | None = None


class PlanValidate(Message):
    """``plan.validate`` -> PlanFaults: every fault at once, and nothing starts. ``parameters`` None: those that the
    plan needs are not asked for.
    """

    plan: JsonObject | str
    parameters: JsonObject | None = None
    group: str | None = None


class PlanSchema(Message):
    """``plan.schema`` -> the JSON Schema of test plans."""


class PlanPut(Message):
    """``plan.put`` -> PlanView: a new version; the same text as the newest one's makes none. ``plan``: YAML or JSON
    text, kept as it is, or an object. ``group``: whom the plan belongs to (None: as it was, or nobody).
    """

    name: str
    plan: JsonObject | str
    group: str | None = None


class PlanRef(Message):
    """``plan.get|delete`` -> PlanView. ``version`` None: the newest; delete takes all versions away."""

    name: str
    version: int | None = None


class PlanList(Message):
    """``plan.list`` -> Listing of PlanView by name, the newest version of each, without its text."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class RunRef(Message):
    """``run.get|cancel|pause|resume`` -> RunView, ``run.document`` -> DocumentView.
    ``run`` is an id or a run's number as text. A verb that changes nothing gives the run as it stands, an impossible
    one is a conflict.
    """

    run: str


class LogIndex(Message):
    """``run.log_index`` -> RunLogIndex: attempts behind the one with index ``after``, as many as an answer holds."""

    run: str
    after: int = Field(default=0, ge=0, le=2**31 - 1)


class RunAgain(Message):
    """``run.rerun`` -> RunView of the new run, which has ``rerun_of``. ``new_run``: the id it gets, chosen by the api:
    a repeated request starts nothing twice. ``failed_only``: steps that passed keep their outputs and are not run anew.
    """

    run: str
    new_run: str
    failed_only: bool = False


class StepRef(Message):
    """``run.approve|reject`` -> RunView: a person's word on a gate. ``step``: its name (with its instance) or id."""

    run: str
    step: str


class RunList(Message):
    """``run.list`` -> Listing of RunView, newest first."""

    state: str | None = None
    result: str | None = None
    plan: str | None = None
    host: str | None = None
    group: str | None = None
    since: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class StepList(Message):
    """``run.steps`` -> Listing of StepView, in document order; ``attempts``: every attempt, not only the last."""

    run: str
    attempts: bool = False
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class ArtefactList(Message):
    """``run.artefacts`` -> Listing of ArtefactView, in the order of the steps."""

    run: str
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class ArtefactRead(Message):
    """``run.artefact`` -> ArtefactPiece: what the file holds from ``offset`` on. ``artefact``: the id in the list."""

    run: str
    artefact: str
    offset: int = Field(default=0, ge=0, le=2**53)


class EventList(Message):
    """``run.events`` -> Listing of EventView, oldest first. With ``run``: after that run's ``seq``; without: after
    the global ``cursor``.
    """

    run: str | None = None
    after: int = 0
    limit: int = Field(default=1000, ge=1, le=1000)


class AgentRef(Message):
    """``agent.get|drain|undrain|remove`` -> AgentView. ``agent``: id, host name or number as text."""

    agent: str


class AgentList(Message):
    """``agent.list`` -> Listing of AgentView, by host name."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class Enrol(Message):
    """``agent.enrol`` -> EnrolmentView."""

    host: str
    groups: list[str] = []
    labels: dict[str, str] = {}


class Join(Message):
    """``agent.join`` -> JoinView. ``public_key``: the agent's own nkey (``U…``). The same key again within the
    time: the same answer.
    """

    token: str
    public_key: str


class GroupRef(Message):
    """``group.get|put|delete`` -> GroupView (delete: the group as it was)."""

    name: str


class GroupList(Message):
    """``group.list`` -> Listing of GroupView."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class GroupBinding(Message):
    """``group.bind|unbind`` -> GroupView. ``agent``: id, host name or number as text."""

    name: str
    agent: str


class SchedulePut(Message):
    """``schedule.put`` -> ScheduleView. ``cron``: five fields, or ``@daily`` and the like; ``timezone``: an IANA name;
    ``plan``, ``parameters``, ``group``: as of ``run.submit``; ``overlap``: skip, a tick whose former run still goes on.
    """

    name: str
    cron: str
    timezone: str = "UTC"
    plan: JsonObject | str
    parameters: JsonObject = {}
    overlap: Literal["skip"] = "skip"
    group: str | None = None


class ScheduleRef(Message):
    """``schedule.get|delete`` -> ScheduleView (delete: the schedule as it was)."""

    name: str


class ScheduleList(Message):
    """``schedule.list`` -> Listing of ScheduleView, by name."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class AuditAdd(Message):
    """``audit.add`` -> AuditView: the api's own deeds (tokens, sessions)."""

    action: str
    object: str = ""
    detail: JsonObject = {}


class AuditList(Message):
    """``audit.list`` -> Listing of AuditView, newest first."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class RecordsPending(Message):
    """``record.pending`` -> Listing of RecordView, the oldest first: what nobody has confirmed yet."""

    limit: int = Field(default=100, ge=1, le=1000)


class RecordsConfirm(Message):
    """``record.confirm`` -> ``{}``: these are stored (or refused for good, which is stored too). Again: no effect."""

    ids: list[int] = Field(max_length=1000)


class Ping(Message):
    """``ping`` -> ``{}``: a round trip that includes a query, for readiness."""


OPERATIONS: dict[str, type[Message]] = {
    "ping": Ping,
    "case.submit": SubmitCase,
    "run.submit": SubmitRun,
    "plan.validate": PlanValidate,
    "plan.schema": PlanSchema,
    "plan.put": PlanPut,
    "plan.get": PlanRef,
    "plan.list": PlanList,
    "plan.delete": PlanRef,
    "run.get": RunRef,
    "run.cancel": RunRef,
    "run.pause": RunRef,
    "run.resume": RunRef,
    "run.rerun": RunAgain,
    "run.approve": StepRef,
    "run.reject": StepRef,
    "run.document": RunRef,
    "run.log_index": LogIndex,
    "run.list": RunList,
    "run.steps": StepList,
    "run.events": EventList,
    "run.artefacts": ArtefactList,
    "run.artefact": ArtefactRead,
    "agent.list": AgentList,
    "agent.get": AgentRef,
    "agent.drain": AgentRef,
    "agent.undrain": AgentRef,
    "agent.remove": AgentRef,
    "agent.enrol": Enrol,
    "agent.join": Join,
    "group.list": GroupList,
    "group.get": GroupRef,
    "group.put": GroupRef,
    "group.delete": GroupRef,
    "group.bind": GroupBinding,
    "group.unbind": GroupBinding,
    "schedule.list": ScheduleList,
    "schedule.get": ScheduleRef,
    "schedule.put": SchedulePut,
    "schedule.delete": ScheduleRef,
    "record.pending": RecordsPending,
    "record.confirm": RecordsConfirm,
    "pool.list": PoolList,
    "pool.put": PoolPut,
    "pool.replenish": PoolList,
    "pool.sync": PoolList,
    "pool.reload": PoolList,
    "volume.list": VolumeList,
    "volume.delete": VolumeRef,
    "vnfp.create": VnfpCreate,
    "vnfp.get": VnfpRef,
    "vnfp.list": VnfpList,
    "vnfp.delete": VnfpRef,
    "audit.add": AuditAdd,
    "audit.list": AuditList,
}


def accept(view: bytes) -> bytes:
    """An answer that carries a view's JSON."""
    return b"+" + view


def refuse(error: ProctorError) -> bytes:
    """An answer that says why not."""
    return b"-" + Refusal(code=error.code, message=error.message, details=error.details).encode()


def answer_of(reply: bytes) -> bytes:
    """The view's JSON in an answer. Raises the ProctorError that the controller refused with, or BadMessage."""
    if reply[:1] == b"+":
        return reply[1:]
    if reply[:1] == b"-":
        refusal = decode(Refusal, reply[1:])
        raise ProctorError(refusal.code, refusal.message, **_details(refusal.details))
    raise BadMessage("an answer starts with + or -")


def _details(details: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if k not in {"code", "message"}}
