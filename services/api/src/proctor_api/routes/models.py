"""What native routes take and give: strict bodies, typed pages for the OpenAPI document, path and query types."""

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
"""An object, YAML or JSON text, or a stored plan's name (and version)."""
Labels = dict[str, Annotated[str, StringConstraints(max_length=200)]]

RunRef = Annotated[str, Path(description="The run's id or number", max_length=64, examples=["1"])]
AgentRef = Annotated[str, Path(description="The agent's id, host name or number", max_length=64, examples=["local-1"])]
ArtefactRef = Annotated[str, Path(description="The artefact's id in the run", max_length=64, examples=["0-1-0"])]
GroupRef = Annotated[str, Path(description="The group's name", max_length=64, examples=["lab-a"])]
TypeRef = Annotated[str, Path(description="A type of volume", max_length=64, examples=["igw"])]
VolumeRef = Annotated[str, Path(description="The volume's id", max_length=64)]
VnfpRef = Annotated[str, Path(description="The VNF's id", max_length=64)]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many rows; there may be fewer")]
After = Annotated[str | None, Query(alias="cursor", max_length=4096, description="`next` of the page before")]


def printable(text: str) -> str:
    """The text itself. Raises ValueError where it holds a control character: a name is shown on terminals."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("holds a control character")
    return text


class Body(BaseModel):
    """A request's body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RecordText = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(printable)]


class RecordRequest(Body):
    """The result that the Test API gets when the test case is finished, exactly once."""

    project: RecordText
    case: RecordText
    pod: RecordText | None = Field(default=None, description="Absent: the host")
    installer: RecordText | None = None
    version: RecordText | None = None
    scenario: RecordText | None = None
    build_tag: RecordText | None = None
    criteria: RecordText | None = Field(default=None, description="Absent: PASS or FAIL by the verdict")
    details: Any = Field(default=None, description="Stands beside run, step, attempt, host, volume and log")
    declare: bool = Field(default=False, description="Declare the pod, project and case that are missing")


class CaseRequest(Body):
    """A test case: one method of a plugin, once, on one agent. One of host, group, labels says where."""

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
    host: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    group: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    labels: Labels | None = Field(default=None, min_length=1, max_length=MAX_LABELS)
    target: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="One of the agent's SSH endpoints; absent: its default"
    )
    parameters: dict[str, Any] = Field(default={}, description="As the method's JSON Schema says")
    timeout: float | str | None = Field(default=None, description="Seconds, or a number with ms, s, m, h or d")
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    record: RecordRequest | None = None


class RunRequest(Body):
    """A run of a plan: an object, YAML or JSON text, or a stored plan's name (and version)."""

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
    parameters: dict[str, Any] = {}
    group: GroupName | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class EnrolRequest(Body):
    """Permission for a new agent, good once, for 15 minutes and for this host name."""

    host: HostName = Field(examples=["builder-7"])
    groups: list[GroupName] = Field(default=[], max_length=100)
    labels: Labels = Field(default={}, max_length=MAX_LABELS)


class JoinRequest(Body):
    """What an agent joins with."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    public_key: Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")] = Field(
        description="The agent's own nkey: `U` and 55 characters of base32"
    )


class TokenRequest(Body):
    """A new token. ``groups``: bound to them; absent: bound to none."""

    name: Annotated[Word, AfterValidator(printable)] = Field(examples=["ci"])
    role: Role = Field(examples=["runner"])
    groups: list[GroupName] | None = Field(default=None, min_length=1, max_length=100)
    expires: datetime | None = Field(default=None, description="When it ends; absent: never")


class SessionRequest(Body):
    """What a browser's session is opened with."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class TokenView(View):
    """A token as others may see it."""

    id: str
    name: str
    role: Role
    groups: list[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_use: datetime | None


class NewTokenView(TokenView):
    """A new token; ``token`` is shown this once."""

    token: str


class SessionView(View):
    """Who the session belongs to."""

    name: str
    role: Role
    groups: list[str] | None
    expires_at: datetime


class TargetRequest(Body):
    """How many idle spares there shall be."""

    target: int = Field(strict=True, ge=0, le=10_000, examples=[11])


class VnfpRequest(Body):
    """A new VNF. ``size_gb``: at least so large; absent: as the pool's volumes are."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"\S"), AfterValidator(printable)] = (
        Field(examples=["vnf-1"])
    )
    type: Annotated[str, StringConstraints(min_length=1, max_length=63)] = Field(examples=["igw"])
    size_gb: int | None = Field(default=None, strict=True, ge=1, le=100_000)


class TokenPage(Page[TokenView]):
    """A page of tokens, oldest first."""


class RejectionView(View):
    """What a finished step wanted to be recorded, and why it was not. ``record``: as the plan filled it in."""

    id: int
    run: str
    run_number: int
    step: str
    attempt: int
    reason: str
    rejected_at: datetime
    record: dict[str, Any] | None


class RejectionPage(Page[RejectionView]):
    """A page of records that could not be stored, the oldest first."""


class LineFault(View):
    """Why a line could not be stored."""

    line: int
    message: str


class ImportView(View):
    """What became of the lines. ``known``: their `_id` was there already; ``errors``: the first hundred refusals."""

    stored: int
    known: int
    refused: int
    errors: list[LineFault]


class RetryView(View):
    """How many records became results, and how many could not."""

    stored: int
    left: int


class Standing(View):
    """Whether the process lives or may be given work."""

    status: Literal["ok", "failed"]
    checks: dict[str, str] = {}


class VersionView(View):
    """What runs here."""

    version: str
    api: list[str]


def seconds_of(value: float | str | None, path: str) -> float | None:
    """A duration in seconds. Raises 422 that says how one is written."""
    if value is None:
        return None
    seconds = read_duration(value) if isinstance(value, str) else value
    if seconds is None or not 0 < seconds <= MAX_SECONDS:
        text = f"{path}: a duration is a number of seconds, or one with ms, s, m, h or d; above 0, at most 30 d"
        raise invalid(text, path=path, code="duration")
    return seconds
