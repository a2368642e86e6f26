"""Bodies and parameters of the routes under ``/v1``, and the views of the api's own answers.

The docstring under a field is its description in the OpenAPI document.
"""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from proctor_common.durations import MAX_SECONDS, read_duration
from proctor_common.errors import invalid
from proctor_common.limits import MAX_LABELS
from proctor_common.messages.pages import Page
from proctor_common.messages.views import View
from proctor_common.states import Role

LABEL_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z")

HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _plan(value: Any) -> Any:
    if not isinstance(value, dict | str):
        raise ValueError("must be a plan as an object or as text, or the name of a stored plan")
    return value


PlanGiven = Annotated[dict[str, Any] | str, BeforeValidator(_plan)]
"""An object, YAML or JSON text, or the name of a stored plan (``name`` or ``name@version``)."""
Labels = dict[str, Annotated[str, StringConstraints(max_length=200)]]

RunRef = Annotated[str, Path(description="The run's id or number", max_length=64, examples=["1"])]
AgentRef = Annotated[str, Path(description="The agent's id, host name or number", max_length=64, examples=["local-1"])]
ArtefactRef = Annotated[str, Path(description="The artefact's id in the run", max_length=64, examples=["0-1-0"])]
GroupRef = Annotated[str, Path(description="The group's name", max_length=64, examples=["lab-a"])]
TypeRef = Annotated[str, Path(description="The type of volume", max_length=64, examples=["igw"])]
VolumeRef = Annotated[str, Path(description="The volume's id", max_length=64)]
VnfpRef = Annotated[str, Path(description="The VNF's id", max_length=64)]
Limit = Annotated[
    int, Query(ge=1, le=1000, description="Rows per page at most; a page may have fewer and still not be the last")
]
After = Annotated[str | None, Query(alias="cursor", max_length=4096, description="`next` of the previous page")]


def printable(text: str) -> str:
    """The text. Raises ValueError if it has a control character, because names are shown on terminals."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("holds a control character")
    return text


class Body(BaseModel):
    """The body of a request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


RecordText = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(printable)]


class RecordRequest(Body):
    """The result to record in the Test API, exactly once, when the test case has finished."""

    project: RecordText
    case: RecordText
    pod: RecordText | None = Field(default=None, description="Absent: the host's name")
    installer: RecordText | None = None
    version: RecordText | None = None
    scenario: RecordText | None = None
    build_tag: RecordText | None = None
    criteria: RecordText | None = Field(default=None, description="Absent: PASS or FAIL, by the step's result")
    details: Any = Field(default=None, description="Stored together with run, step, attempt, host, volume and log")
    declare: bool = Field(default=False, description="Declare the pod, project and test case if they are missing")


class CaseRequest(Body):
    """A test case: one method of a plugin, once, on one agent. One of `host`, `labels` and `group` says where."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "plugin": "linux_system",
                "method": "run_shell",
                "host": "local-1",
                "parameters": {"command": "echo", "args": "hello"},
            }
        }
    )

    plugin: Word
    method: Word
    host: Word | None = None
    """The host name of the agent."""
    group: Word | None = None
    """An agent of this group; beside `host` or `labels`: the group that the run belongs to."""
    labels: Labels | None = Field(default=None, min_length=1, max_length=MAX_LABELS)
    """An agent that has all these labels."""
    target: Word | None = None
    """The name of one of the agent's targets; absent: its default."""
    parameters: dict[str, Any] = {}
    """Parameters of the method, as its JSON Schema says."""
    timeout: float | str | None = None
    """Seconds, or a number with ms, s, m, h or d; above 0, at most 30 d. Absent: the controller's default."""
    name: Word | None = None
    """The run's name; absent: the method and where it runs."""
    record: RecordRequest | None = None


class RunRequest(Body):
    """A plan to run."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "plan": {
                    "testplan_version": "2026-12-01",
                    "name": "hello",
                    "steps": {
                        "hello": {
                            "uses": "linux_system.run_shell",
                            "runs_on": {"host": "local-1"},
                            "with": {"command": "echo", "args": "hello"},
                        }
                    },
                }
            }
        }
    )

    plan: PlanGiven
    """The plan as an object, as YAML or JSON text, or the name of a stored one (`name` or `name@version`)."""
    parameters: dict[str, Any] = {}
    """Values of the plan's parameters; absent ones have their defaults."""
    group: GroupName | None = None
    """The group that the run belongs to; absent: the token's, if it is bound to one."""
    name: Word | None = None
    """The run's name; absent: the plan's."""


class EnrolRequest(Body):
    """Permission for one new agent, valid for 15 minutes."""

    host: HostName = Field(examples=["builder-7"])
    """The host name that the agent will have."""
    groups: list[GroupName] = Field(default=[], max_length=100)
    """The groups that it becomes a member of."""
    labels: Labels = Field(default={}, max_length=MAX_LABELS)


class JoinRequest(Body):
    """What an agent sends to join."""

    token: Word
    """The join token."""
    public_key: Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")]
    """The agent's public nkey: `U` and 55 characters of base32."""


class TokenRequest(Body):
    """A token to create."""

    name: Annotated[Word, AfterValidator(printable)] = Field(examples=["ci"])
    role: Role = Field(examples=["runner"])
    groups: list[GroupName] | None = Field(default=None, min_length=1, max_length=100)
    """The groups that it is bound to: it sees and uses their agents and runs only. Absent: not bound."""
    expires: datetime | None = None
    """When it expires, with a time zone; absent: never."""


class SessionRequest(Body):
    """What a browser sends to log in."""

    token: Word


class TokenView(View):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    groups: list[str] | None
    """The groups that it is bound to; null if to none."""
    created_at: datetime
    created_by: str
    """The name of the token that created it."""
    expires_at: datetime | None
    """Null: never."""
    last_use: datetime | None
    """When it was last used, to within half a minute; null: not yet."""


class NewTokenView(TokenView):
    """A token that was just created."""

    token: str
    """The secret. It is shown only in this answer."""


class SessionView(View):
    """A browser's session."""

    name: str
    """The name of its token."""
    role: Role
    groups: list[str] | None
    """The groups that the token is bound to; null if to none."""
    expires_at: datetime


class TargetRequest(Body):
    """A pool's new target."""

    target: int = Field(strict=True, ge=0, le=10_000, examples=[11])
    """How many spares to keep ready."""


class VnfpRequest(Body):
    """A VNF to create."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"\S"), AfterValidator(printable)] = (
        Field(examples=["vnf-1"])
    )
    type: Annotated[str, StringConstraints(min_length=1, max_length=63)] = Field(examples=["igw"])
    """The type of its volume."""
    size_gb: int | None = Field(default=None, strict=True, ge=1, le=100_000)
    """The least size of its volume in GB; absent: the size of the pool's volumes."""


class TokenPage(Page[TokenView]):
    """A page of tokens, oldest first."""


class RejectionView(View):
    """A result that a finished step asked to record, and why that failed."""

    id: int
    run: str
    run_number: int
    step: str
    attempt: int
    reason: str
    rejected_at: datetime
    record: dict[str, Any] | None
    """The plan's `record` with its expressions evaluated; null if it is too large."""


class RejectionPage(Page[RejectionView]):
    """A page of results that could not be recorded, oldest first."""


class LineFault(View):
    """Why a line was refused."""

    line: int
    """Its number, from 1."""
    message: str


class ImportView(View):
    """How many lines were stored, known or refused."""

    stored: int
    known: int
    """Lines that were not stored again, because a result has their `_id`."""
    refused: int
    errors: list[LineFault]
    """The first 100 refused lines."""
    dropped: dict[str, int] = {}
    """Members that were dropped or changed, since they cannot be stored as they were sent: by name, in how many lines;
    at most 20 names. Absent if there were none.
    """


class RetryView(View):
    """What came of recording them again."""

    stored: int
    """How many are results now."""
    left: int
    """How many failed again."""


class Standing(View):
    """The state of the service."""

    status: Literal["ok", "failed"]
    checks: dict[str, str] = {}
    """`ok` or `failed` by check: `bus`, `database`. Empty for liveness."""


class VersionView(View):
    """Versions."""

    version: str
    """The version of Proctor."""
    api: list[str]
    """The versions of the API that it serves."""


def seconds_of(value: float | str | None, path: str) -> float | None:
    """A duration in seconds; None if none is given. Raises 422 with the accepted notation."""
    if value is None:
        return None
    seconds = read_duration(value) if isinstance(value, str) else value
    if seconds is None or not 0 < seconds <= MAX_SECONDS:
        text = f"{path}: a duration is a number of seconds, or one with ms, s, m, h or d; above 0, at most 30 d"
        raise invalid(text, path=path, code="duration")
    return seconds
