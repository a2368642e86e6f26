"""The parts of a scenario, and reading them from the body of a request. No I/O."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from proctor_api.catalog.faults import bad
from proctor_common.errors import Code, ProctorError

Text = Annotated[StrictStr, Field(max_length=1024)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=1024)]
MOST_MEMBERS = 10_000
"""Members of one list; the size of the body is limited before."""


SENT = object()
"""Validation context for values from a client, as opposed to stored ones."""
STATUSES = ("silver", "gold")


class Part(BaseModel):
    """A part of a scenario. Null is the same as absent. ``KEY``: the field that identifies it within its list."""

    model_config = ConfigDict(extra="ignore")
    KEY: ClassVar[str] = ""
    CHILDREN: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # Keep unknown fields, so that they are refused even if they are null.
        return {name: value for name, value in given.items() if value is not None or name not in cls.model_fields}

    @property
    def key(self) -> str:
        """The value of the field ``KEY``."""
        return str(getattr(self, self.KEY))


class Score(Part):
    """How many of a project's test cases passed."""

    date: Text | None = None
    score: Text = Field(default="0", examples=["11/14"])


class TrustIndicator(Part):
    """The award of a project."""

    date: Text | None = None
    status: Text = Field(default="silver", examples=["gold"])

    @field_validator("status")
    @classmethod
    def _awarded(cls, status: str, info: ValidationInfo) -> str:
        # Values that are stored already are not checked.
        if info.context is SENT and status not in STATUSES:
            raise ValueError(f"must be one of {', '.join(STATUSES)}")
        return status


class Project(Part):
    """A project in a version."""

    KEY: ClassVar[str] = "project"
    project: Name
    customs: list[Text] = Field(default=[], max_length=MOST_MEMBERS)
    scores: list[Score] = Field(default=[], max_length=MOST_MEMBERS)
    trust_indicators: list[TrustIndicator] = Field(default=[], max_length=MOST_MEMBERS)


class Version(Part):
    """A version of the platform."""

    KEY: ClassVar[str] = "version"
    CHILDREN: ClassVar[str] = "projects"
    owner: Text | None = None
    version: Name
    projects: list[Project] = Field(default=[], max_length=MOST_MEMBERS)


class Installer(Part):
    """An installer."""

    KEY: ClassVar[str] = "installer"
    CHILDREN: ClassVar[str] = "versions"
    installer: Name
    versions: list[Version] = Field(default=[], max_length=MOST_MEMBERS)


class Scenario(Part):
    """A scenario as it is created."""

    KEY: ClassVar[str] = "name"
    name: Name
    creator: Text | None = None
    installers: list[Installer] = Field(default=[], max_length=MOST_MEMBERS)


class NewOwner(Part):
    """A version's new owner."""

    owner: Name


class Rename(Part):
    """A scenario's new name."""

    name: Name


SomePart = TypeVar("SomePart", bound=Part)
NAMES = TypeAdapter(Annotated[list[Text], Field(max_length=MOST_MEMBERS)])


def refuse_twins(parts: Sequence[Part]) -> None:
    """Raises 409 if two parts of one list, at any depth, have the same name."""
    seen: set[str] = set()
    for part in parts:
        if part.key in seen:
            raise ProctorError(Code.CONFLICT, f"the {part.KEY} occurs twice: {part.key}")
        seen.add(part.key)
        if part.CHILDREN:
            refuse_twins(getattr(part, part.CHILDREN))


def read(kind: type[SomePart], value: Any, *, strict: bool = True) -> SomePart:
    """A part from a value. An unknown field raises 400 if ``strict``, else it is dropped. Raises 400."""
    try:
        return kind.model_validate(value, extra="forbid" if strict else "ignore", context=SENT)
    except ValidationError as error:
        raise bad(_first(error)) from None


def read_all(kind: type[SomePart], value: Any) -> list[SomePart]:
    """A list of parts. Raises 400, also for an unknown field; 409 if two have the same name."""
    if not isinstance(value, list):
        raise bad(f"the body must be a list of {kind.KEY}s")
    if len(value) > MOST_MEMBERS:
        raise bad(f"the body has more than {MOST_MEMBERS} members")
    parts = [read(kind, member) for member in value]
    refuse_twins(parts)
    return parts


def read_names(value: Any) -> list[str]:
    """A list of texts without duplicates. Raises 400."""
    try:
        return list(dict.fromkeys(NAMES.validate_python(value)))
    except ValidationError as error:
        raise bad(_first(error)) from None


def _first(error: ValidationError) -> str:
    """The first fault as a sentence that does not quote the input."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "the body"
    if fault["type"] == "extra_forbidden":
        return f"unknown field: {where[:200]}"
    if fault["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"
