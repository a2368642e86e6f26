"""The answers of the HTTP API under ``/v1``. A controller encodes them; the api passes the bytes on unread.

The docstring under a field is its description in the OpenAPI document.
"""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from proctor_common.messages.base import Encoded, JsonObject, WireMessage
from proctor_common.messages.events import PluginSpec, TargetSpec
from proctor_common.states import AgentState, RunResult, RunState, StepResult, StepState


class View(BaseModel):
    """A frozen view; a member without a value is shown as null."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    def encode(self) -> bytes:
        """JSON as UTF-8, nulls included."""
        return self.__pydantic_serializer__.to_json(self)

    def encoded(self) -> Encoded[Self]:
        """The same bytes, typed with the view that they are the JSON of."""
        return Encoded(self.encode())


class WebhookCall(View):
    """The HTTP call that a plan asks for when its run has ended."""

    state: str
    """`waiting` (not delivered yet), `taken` (the receiver answered with success) or `given_up`."""
    tries: int = 0
    """How often it was tried."""
    status: int | None = None
    """The HTTP status of the last answer; null if none came."""
    reason: str = ""
    """Why the last try failed; empty if none has."""
    next_at: datetime | None = None
    """When the next try is due; null if there will be none."""


class RunView(View):
    """One execution of a test plan or of a single test case."""

    id: str
    number: int
    """A short number, unique in this installation; accepted wherever the id is."""
    name: str
    kind: str = "case"
    """`case` (a single test case), `plan`, or `seed` (a plan in the legacy format)."""
    state: RunState
    result: RunResult | None = None
    """How it ended; null until it has."""
    reason: str = ""
    """Why it ended with this result."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    plan: str | None = None
    """The plan's name; null for a test case."""
    parameters: JsonObject = {}
    group: str | None = None
    """The group that it belongs to; null if to none."""
    created_by: str = ""
    """The name of the token that started it."""
    rerun_of: str | None = None
    """The id of the run that it repeats; null if it repeats none."""
    parent: str | None = None
    """The id of the run whose step started it; null if a user or a schedule did."""
    outputs: JsonObject = {}
    """What the plan's `outputs` evaluate to at its end, by name."""
    steps: dict[str, int] = {}
    """The number of step instances by result, or by state if they have not ended. Cleanup steps are not counted."""
    phase: str = "main"
    """The part that runs now or ran last: `main`, `on_failure`, `rollback` or `always`."""
    waiting_for: str | None = None
    """What keeps it from starting, while it is queued or allocating; who paused it, while it is paused; else null."""
    hold_until: datetime | None = None
    """Until when it keeps its hosts after its end; null if it keeps none."""
    webhook: WebhookCall | None = None
    """The call that its plan asks for at its end; null if there is none, or before the end."""


class DocumentView(View):
    """The text that a run was made from."""

    run: str
    plan: str | None = None
    version: int | None = None
    """The version of the stored plan; null if the plan was sent with the request."""
    document: str | None = None
    """The exact text; null for a test case."""


class StepView(View):
    """One step instance with its last attempt (with `?attempts=all`: with one of its attempts)."""

    id: str
    step: str
    """The step's name in the plan."""
    instance: str = ""
    """The cell of the step's matrix, as in `name[instance]`; empty without a matrix."""
    host: str | None = None
    agent: str | None = None
    """The id of the agent that the attempt was given to; null before that."""
    kind: str = "method"
    """`method`, `gate` (a person decides) or `plan` (a nested plan)."""
    phase: str = "main"
    """The part of the plan that it belongs to: `main`, `on_failure`, `rollback` or `always`."""
    plugin: str = ""
    method: str = ""
    parameters: JsonObject = {}
    state: StepState
    result: StepResult | None = None
    """How it ended; null until it has."""
    attempt: int
    """The attempt's number, from 1; 0 before the first."""
    reason: str = ""
    """Why it ended with this result."""
    waiting_for: str | None = None
    """What it waits for, while it neither runs nor has ended; else null."""
    outputs: JsonObject = {}
    """What the step's `outputs` in the plan evaluate to, by name; null values if it did not pass."""
    output: JsonObject = {}
    """What the method returned: at most 64 KiB of JSON."""
    gate: JsonObject | None = None
    """For a gate: `roles` that may decide it, and `deadline` while it waits for them; else null."""
    child: str | None = None
    """For a nested plan: the id of the run that its last attempt started; else null."""
    error: JsonObject | None = None
    """`kind`, `message` and `data` of the method's error; null if it reported none."""
    exit_code: int | None = None
    """The exit code of the method's command; null if it reported none."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    log_lines: int | None = None
    """Size of the attempt's log; null until it has ended with a report, as is `log_bytes`."""
    log_bytes: int | None = None
    tree_gone: bool | None = None
    """After a kill: whether its process tree is gone; null if that is not confirmed, or nothing was killed."""


class ArtefactView(View):
    """A file that a step left on its target."""

    id: str
    """Its name within the run, for its URL."""
    step: str
    attempt: int
    host: str | None = None
    path: str
    """The absolute path on the target."""
    size: int
    """Bytes, when the step ended. `sha256` is from then too."""
    sha256: str


class ArtefactPiece(View):
    """A part of an artefact, as the file is at the moment of reading."""

    artefact: ArtefactView
    data: str
    """Base64."""


class EventView(View):
    """One state change of a run or of one of its steps."""

    seq: int
    """Counts within the run, from 1, without gaps."""
    cursor: int = 0
    """Orders the events of all runs."""
    run: str
    kind: str
    """What changed: `run` or `step`. For `run`, the fields of a step are null."""
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
    """The notification on ``subjects.wake(run)``, sent after the commit. One may be lost: readers also ask from time to
    time. ``events`` saves them from asking.
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
    """The ``index`` of the last attempt on this page, if another page follows; else None."""


class AgentView(View):
    """An agent and what it offers."""

    id: str
    number: int
    """A short number, unique in this installation; accepted wherever the id is."""
    host: str
    state: AgentState
    draining: bool = False
    """Whether it takes no new work; what runs there goes on."""
    reason: str = ""
    """Why it gets no work, or a warning; empty if there is neither."""
    slots: int = 0
    """How many steps it runs at the same time."""
    used_slots: int = 0
    leases: int = 0
    """Runs that hold the whole host. They go on there even while it is draining."""
    default_target: str | None = None
    """The target of steps that name none; null if it has no targets."""
    targets: dict[str, TargetSpec] = {}
    """The machines that it reaches by SSH, by name."""
    groups: list[str] = []
    labels: dict[str, str] = {}
    plugins: dict[str, PluginSpec] = {}
    load_errors: dict[str, str] = {}
    """Why a plugin could not be loaded, by plugin."""
    last_heartbeat: datetime | None = None
    """When it last reported; null if it never has."""
    version: str = ""
    ready: bool = False
    """Whether it is given work now: online, registered, not draining, no leftover processes to clean up."""


class GroupView(View):
    """A named set of agents."""

    name: str
    agents: list[str] = []
    """The host names of its agents."""
    created_at: datetime


class PlanView(View):
    """One version of a stored plan."""

    name: str
    version: int
    versions: list[int] = []
    """All versions that exist."""
    plan: str | None = None
    """The exact text; null in a list."""
    group: str | None = None
    created_at: datetime
    created_by: str = ""


class PlanFaults(View):
    """All that is wrong with a plan."""

    errors: list[JsonObject] = []
    """`{code, message, path, line, column}` each; an empty list if the plan may be run."""


class TickView(View):
    """One time at which a schedule was due, and what came of it."""

    at: datetime
    outcome: str
    """`firing` (its run is about to start), `started`, `skipped`, `missed` or `refused`."""
    run: str | None = None
    """The id of its run; null if none was started."""
    reason: str = ""
    """Why no run was started; empty if one was."""


class ScheduleView(View):
    """A plan that is run by the clock."""

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
    """When it is due next."""
    last_run: str | None = None
    """The id of the newest run that it started; null if there is none."""
    last_at: datetime | None = None
    """The tick that started `last_run`."""
    ticks: list[TickView] = []
    """Its newest ticks, newest first."""


class RecordView(View):
    """The result that one attempt asks to record."""

    id: int
    run: str
    run_number: int
    group: str | None = None
    step: str
    step_name: str
    """The name that users see, with its instance."""
    attempt: int
    host: str | None = None
    volume: list[JsonObject] = []
    """The run's volumes: ``{key, name, type, size_gb, id}`` each."""
    body: JsonObject | None = None
    """The plan's ``record`` with its expressions evaluated, dates in UTC; None if it is too large to be sent."""


class AuditView(View):
    """One action that changed something: who did what, and when."""

    id: int
    at: datetime
    actor: str
    """The name of the token that did it."""
    role: str = ""
    action: str
    """Such as `run.cancel`."""
    object: str = ""
    """What it was done to: an id or a name."""
    detail: JsonObject = {}


class EnrolmentView(View):
    """Permission for one new agent."""

    host: str
    token: str
    """The join token. It is shown only in this answer."""
    expires_at: datetime
    groups: list[str] = []
    labels: dict[str, str] = {}


class NatsAddress(View):
    """Where an agent finds NATS."""

    urls: list[str]
    ca: str | None = None
    """The CA certificate as PEM text; null if the connection is not encrypted."""


class JoinView(View):
    """What an agent gets in exchange for its join token."""

    agent: str
    host: str
    nats: NatsAddress


class Done(View):
    """The answer of an operation that has nothing to return."""
