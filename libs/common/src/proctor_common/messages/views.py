"""What a controller shows of its state: the answers of the HTTP API under ``/v1``, encoded once; the api passes
them on as they are.
"""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from proctor_common.messages.base import Encoded, JsonObject, WireMessage
from proctor_common.messages.events import PluginSpec, TargetSpec
from proctor_common.states import AgentState, RunResult, RunState, StepResult, StepState


class View(BaseModel):
    """A frozen view; members that are null are shown as null."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> bytes:
        """JSON as UTF-8, nulls included."""
        return self.__pydantic_serializer__.to_json(self)

    def encoded(self) -> Encoded[Self]:
        """The same, which still says what it is the JSON of."""
        return Encoded(self.encode())


class WebhookCall(View):
    """The call when a run has ended."""

    state: str
    """One of waiting, taken, given_up."""
    tries: int = 0
    status: int | None = None
    """The HTTP status of the last answer; None where there was none."""
    reason: str = ""
    """Why the last try failed."""
    next_at: datetime | None = None
    """When the next try is due."""


class RunView(View):
    """One run."""

    id: str
    number: int
    name: str
    kind: str = "case"
    """case | plan | seed"""
    state: RunState
    result: RunResult | None = None
    reason: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    plan: str | None = None
    parameters: JsonObject = {}
    group: str | None = None
    created_by: str = ""
    rerun_of: str | None = None
    parent: str | None = None
    outputs: JsonObject = {}
    steps: dict[str, int] = {}
    """How many step instances ended how; one that has not ended counts under its state. Without those of cleanup."""
    phase: str = "main"
    """Which part of it is under way, or was last: main | on_failure | rollback | always"""
    waiting_for: str | None = None
    """Why it has not begun, while it is queued or allocating; who paused it."""
    hold_until: datetime | None = None
    """Until when it keeps hosts after its end."""
    webhook: WebhookCall | None = None
    """What became of the call that its plan asks for, once it has ended."""


class DocumentView(View):
    """The exact text a run was made from; null for a test case. ``version``: of the stored plan, if it was one."""

    run: str
    plan: str | None = None
    version: int | None = None
    document: str | None = None


class StepView(View):
    """One step instance: its last attempt (or one attempt, with ``?attempts=all``)."""

    id: str
    step: str
    instance: str = ""
    host: str | None = None
    agent: str | None = None
    kind: str = "method"
    """method | gate | plan"""
    phase: str = "main"
    """main | on_failure | rollback | always"""
    plugin: str = ""
    method: str = ""
    parameters: JsonObject = {}
    state: StepState
    result: StepResult | None = None
    attempt: int
    reason: str = ""
    waiting_for: str | None = None
    outputs: JsonObject = {}
    """What its plan makes of its result, by name; null where it did not pass."""
    output: JsonObject = {}
    """What the method returned."""
    gate: JsonObject | None = None
    """Of a gate: ``roles`` that may decide it, ``deadline`` while it waits for them."""
    child: str | None = None
    """Of a nested plan: the run that its last attempt stands for."""
    error: JsonObject | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    log_lines: int | None = None
    log_bytes: int | None = None
    tree_gone: bool | None = None


class ArtefactView(View):
    """A file that a step left on its target. ``id``: its name in the run, for its address."""

    id: str
    step: str
    attempt: int
    host: str | None = None
    path: str
    """On the target: absolute."""
    size: int
    """Bytes, when the step ended; as is ``sha256``."""
    sha256: str


class ArtefactPiece(View):
    """A part of a file, read just now. ``data``: base64."""

    artefact: ArtefactView
    data: str


class EventView(View):
    """One state change. ``seq`` counts within the run from 1 without holes; ``cursor`` orders the events of all
    runs.
    """

    seq: int
    cursor: int = 0
    run: str
    kind: str
    """run | step"""
    step: str | None = None
    step_id: str | None = None
    attempt: int | None = None
    host: str | None = None
    old: str | None = Field(default=None, serialization_alias="from", validation_alias="from")
    new: str = Field(serialization_alias="to", validation_alias="to")
    result: str | None = None
    reason: str = ""
    at: datetime

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)


class RunChanged(WireMessage):
    """The wake-up on ``subjects.wake(run)``, after the commit. Lost ones are healed by reading; ``events`` save the
    trip.
    """

    run: str
    group: str | None = None
    state: RunState
    result: RunResult | None = None
    events: list[EventView] = []


class AttemptLog(View):
    """What the controller knows of one attempt's log: enough for a tail to know when it has shown all of it."""

    index: int
    """The attempt's number within the run, from 1, in order of dispatch: stable, used by cursors."""
    step_id: str
    step: str
    """The step's name (with its instance, where it has one): what viewers see."""
    attempt: int
    agent: str
    state: StepState
    result: StepResult | None = None
    chunks: int | None = None
    """Set once the attempt has ended and its log is closed; None while more may come. It stays None where the attempt
    ended without a report (state finished; lost, or a kill that was not confirmed): the rest of the log is lost.
    """
    lines: int | None = None
    bytes: int | None = None


class RunLogIndex(View):
    """The record a tail works from. A chunk is shown only where an entry says that this agent held that attempt."""

    run: str
    number: int
    group: str | None = None
    state: RunState
    result: RunResult | None = None
    created_at: datetime
    attempts: list[AttemptLog] = []
    next: int | None = None
    """Behind which attempt the next page begins, where one answer does not hold all of them."""


class AgentView(View):
    """One agent, with what it offers."""

    id: str
    number: int
    host: str
    state: AgentState
    draining: bool = False
    reason: str = ""
    """Why it gets no work, where it gets none."""
    slots: int = 0
    used_slots: int = 0
    leases: int = 0
    """Runs that have leased it and go on there, also when it is drained."""
    default_target: str | None = None
    targets: dict[str, TargetSpec] = {}
    groups: list[str] = []
    labels: dict[str, str] = {}
    plugins: dict[str, PluginSpec] = {}
    load_errors: dict[str, str] = {}
    last_heartbeat: datetime | None = None
    version: str = ""
    ready: bool = False
    """Whether work may be given to it now: online, registered, not draining, nothing left over."""


class GroupView(View):
    """A named set of agents."""

    name: str
    agents: list[str] = []
    """Host names."""
    created_at: datetime


class PlanView(View):
    """A version of a stored plan. ``plan``: its exact text; None in a list. ``versions``: all there are."""

    name: str
    version: int
    versions: list[int] = []
    plan: str | None = None
    group: str | None = None
    created_at: datetime
    created_by: str = ""


class PlanFaults(View):
    """What is wrong with a plan: ``{code, message, path, line, column}`` each; none: it may be run."""

    errors: list[JsonObject] = []


class TickView(View):
    """What became of a tick of a schedule. ``outcome``: firing (its run is about to be started), started, skipped,
    missed or refused; ``reason`` says why no run was started.
    """

    at: datetime
    outcome: str
    run: str | None = None
    reason: str = ""


class ScheduleView(View):
    """A plan by the clock. ``next_at``: its next tick; ``last_run``: the id of the newest run it started, for the tick
    ``last_at``; ``ticks``: the newest first.
    """

    name: str
    cron: str
    timezone: str
    plan: JsonObject | str
    parameters: JsonObject = {}
    overlap: str = "skip"
    group: str | None = None
    created_by: str = ""
    created_at: datetime | None = None
    next_at: datetime
    last_run: str | None = None
    last_at: datetime | None = None
    ticks: list[TickView] = []


class RecordView(View):
    """What one attempt wants to be recorded. ``body``: the plan's ``record`` with its expressions filled in; None where
    it is too large to be sent. ``step_name``: as viewers see it, with its instance. Dates in it are UTC.
    """

    id: int
    run: str
    run_number: int
    group: str | None = None
    step: str
    step_name: str
    attempt: int
    host: str | None = None
    volume: list[JsonObject] = []
    """The run's volumes: ``{key, name, type, size_gb, id}`` each."""
    body: JsonObject | None = None


class AuditView(View):
    """Who did what, when."""

    id: int
    at: datetime
    actor: str
    role: str = ""
    action: str
    object: str = ""
    detail: JsonObject = {}


class EnrolmentView(View):
    """An admin's permission for a new agent; the token is shown once."""

    host: str
    token: str
    expires_at: datetime
    groups: list[str] = []
    labels: dict[str, str] = {}


class NatsAddress(View):
    """Where an agent finds the bus; ``ca``: PEM text of the CA, null where the connection is in the clear."""

    urls: list[str]
    ca: str | None = None


class JoinView(View):
    """What an agent gets for its join token."""

    agent: str
    host: str
    nats: NatsAddress


class Done(View):
    """It is done, and there is nothing to say."""
