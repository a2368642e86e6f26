"""Operations on runs: submitting, reading, the verbs that act on them, and records for the Test API."""

from pydantic import Field

from proctor_common.messages.base import JsonObject, WireMessage
from proctor_common.messages.calls.operation import Operation
from proctor_common.messages.pages import ArtefactsPage, EventsPage, RecordPage, RunPage, StepPage
from proctor_common.messages.views import ArtefactPiece, DocumentView, Done, RunLogIndex, RunView


class SubmitCase(WireMessage):
    """One of host, group and labels is required."""

    run: str
    """The id of the new run, chosen by the api, so that a repeated request starts nothing twice."""
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
    """What to store in the Test API when it is finished: members as of a plan's ``record``."""


class SubmitRun(WireMessage):
    """``plan``: an object, YAML/JSON text, or a stored plan as ``name`` or ``name@version``.

    A plan in the legacy form (``{name, environment, testplan}``) makes a run of kind ``seed`` with steps named
    ``case-<n>-step-<k>``. Parameters given as text are converted to the type that the plan declares.
    """

    run: str
    plan: JsonObject | str
    parameters: JsonObject = {}
    group: str | None = None
    name: str | None = None


class RunRef(WireMessage):
    """``run``: an id or a run's number as text. A verb that changes nothing returns the run; an impossible one is a
    conflict.
    """

    run: str


class RunList(WireMessage):
    """Newest first."""

    state: str | None = None
    result: str | None = None
    plan: str | None = None
    host: str | None = None
    group: str | None = None
    since: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class RunAgain(WireMessage):
    """The answer is the new run, with ``rerun_of``. ``new_run``: its id, chosen by the api, so that a repeated request
    starts nothing twice. ``failed_only``: steps that passed keep their outputs and do not run again.
    """

    run: str
    new_run: str
    failed_only: bool = False


class StepRef(WireMessage):
    """A person's decision on a gate. ``step``: its name (with its instance) or id."""

    run: str
    step: str


class StepList(WireMessage):
    """In document order; ``attempts``: every attempt instead of only the last."""

    run: str
    attempts: bool = False
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class EventList(WireMessage):
    """Oldest first. With ``run``: after that run's ``seq``; without: after the global ``cursor``."""

    run: str | None = None
    after: int = 0
    limit: int = Field(default=1000, ge=1, le=1000)


class LogIndex(WireMessage):
    """Attempts after the one with index ``after``, as many as fit into an answer."""

    run: str
    after: int = Field(default=0, ge=0, le=2**31 - 1)


class ArtefactList(WireMessage):
    """In the order of the steps."""

    run: str
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class ArtefactRead(WireMessage):
    """The file's content from ``offset`` on. ``artefact``: the id in the list."""

    run: str
    artefact: str
    offset: int = Field(default=0, ge=0, le=2**53)


class RecordsPending(WireMessage):
    """Unconfirmed records, oldest first."""

    limit: int = Field(default=100, ge=1, le=1000)


class RecordsConfirm(WireMessage):
    """These are stored, or refused permanently, which is stored too. May be repeated."""

    ids: list[int] = Field(max_length=1000)


SUBMIT_CASE = Operation("case.submit", SubmitCase, RunView)
SUBMIT_RUN = Operation("run.submit", SubmitRun, RunView)
GET_RUN = Operation("run.get", RunRef, RunView)
LIST_RUNS = Operation("run.list", RunList, RunPage)
GET_DOCUMENT = Operation("run.document", RunRef, DocumentView)
LIST_STEPS = Operation("run.steps", StepList, StepPage)
LIST_EVENTS = Operation("run.events", EventList, EventsPage)
GET_LOG_INDEX = Operation("run.log_index", LogIndex, RunLogIndex)
LIST_ARTEFACTS = Operation("run.artefacts", ArtefactList, ArtefactsPage)
READ_ARTEFACT = Operation("run.artefact", ArtefactRead, ArtefactPiece)

CANCEL_RUN = Operation("run.cancel", RunRef, RunView)
PAUSE_RUN = Operation("run.pause", RunRef, RunView)
RESUME_RUN = Operation("run.resume", RunRef, RunView)
RERUN = Operation("run.rerun", RunAgain, RunView)
APPROVE_STEP = Operation("run.approve", StepRef, RunView)
REJECT_STEP = Operation("run.reject", StepRef, RunView)

LIST_PENDING_RECORDS = Operation("record.pending", RecordsPending, RecordPage)
CONFIRM_RECORDS = Operation("record.confirm", RecordsConfirm, Done)
