"""Operations on test plans and their schedules."""

from typing import Literal

from pydantic import Field

from proctor_common.messages.base import JsonObject, WireMessage
from proctor_common.messages.calls.operation import Operation
from proctor_common.messages.pages import PlanPage, SchedulePage
from proctor_common.messages.views import PlanFaults, PlanView, ScheduleView


class PlanValidate(WireMessage):
    """All faults at once; starts nothing. ``parameters`` None: required parameters may be missing."""

    plan: JsonObject | str
    parameters: JsonObject | None = None
    group: str | None = None


class PlanSchema(WireMessage):
    """The answer is the JSON Schema of test plans."""


class PlanPut(WireMessage):
    """A new version, unless the text is that of the newest one. ``plan``: YAML or JSON text, stored unchanged, or an
    object. ``group``: the plan's group (None: unchanged, or none).
    """

    name: str
    plan: JsonObject | str
    group: str | None = None


class PlanRef(WireMessage):
    """``version`` None: the newest; delete removes all versions."""

    name: str
    version: int | None = None


class PlanList(WireMessage):
    """By name, the newest version of each, without its text."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class SchedulePut(WireMessage):
    """``cron``: five fields, or ``@daily`` and the like; ``timezone``: an IANA name; ``plan``, ``parameters``,
    ``group``: as in ``run.submit``; ``overlap``: skip: a tick is skipped while the former run goes on.
    """

    name: str
    cron: str
    timezone: str = "UTC"
    plan: JsonObject | str
    parameters: JsonObject = {}
    overlap: Literal["skip"] = "skip"
    group: str | None = None


class ScheduleRef(WireMessage):
    """The answer to a delete is the schedule before it."""

    name: str


class ScheduleList(WireMessage):
    """By name."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


VALIDATE_PLAN = Operation("plan.validate", PlanValidate, PlanFaults)
SHOW_PLAN_SCHEMA = Operation("plan.schema", PlanSchema, JsonObject)
PUT_PLAN = Operation("plan.put", PlanPut, PlanView)
GET_PLAN = Operation("plan.get", PlanRef, PlanView)
LIST_PLANS = Operation("plan.list", PlanList, PlanPage)
DELETE_PLAN = Operation("plan.delete", PlanRef, PlanView)

LIST_SCHEDULES = Operation("schedule.list", ScheduleList, SchedulePage)
GET_SCHEDULE = Operation("schedule.get", ScheduleRef, ScheduleView)
PUT_SCHEDULE = Operation("schedule.put", SchedulePut, ScheduleView)
DELETE_SCHEDULE = Operation("schedule.delete", ScheduleRef, ScheduleView)
