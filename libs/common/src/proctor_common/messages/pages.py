"""Pages of lists: at most as many rows as fit into one reply, and the cursor of the next page."""

from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar

from pydantic_core import to_json

from proctor_common.messages.base import Encoded
from proctor_common.messages.pool_views import PoolView, VnfpView, VolumeView
from proctor_common.messages.views import (
    AgentView,
    ArtefactView,
    AuditView,
    EventView,
    GroupView,
    PlanView,
    RecordView,
    RunView,
    ScheduleView,
    StepView,
    View,
)

MAX_REPLY = 1024 * 1024
"""Maximum bytes of an answer. A longer list returns fewer rows than requested, and a ``next``."""
ROOM = MAX_REPLY - 4096
"""Bytes for the rows: MAX_REPLY without the envelope."""
V = TypeVar("V", bound=View)


class Page(View, Generic[V]):
    """One page of a list."""

    items: list[V]
    next: str | None
    """The `cursor` of the next page; null on the last one."""

    @classmethod
    def of(
        cls, views: Sequence[V], limit: int, cursor: Callable[[V], str], following: str | None = None
    ) -> Encoded[Self]:
        """A page of at most ``limit`` views; ``next`` is the cursor of the last one shown if more follow.

        Pass ``limit + 1`` views, so that the end is known. ``following``: value of ``next`` if all views are shown.
        """
        rows: list[bytes] = []
        size = 0
        for view in views[:limit]:
            row = view.encode()
            size += len(row) + 1
            if rows and size > ROOM:
                break
            rows.append(row)
        if rows and len(rows) < len(views):
            following = cursor(views[len(rows) - 1])
        return Encoded(b'{"items":[%s],"next":%s}' % (b",".join(rows), to_json(following)))


class RunPage(Page[RunView]):
    """A page of runs, newest first."""


class StepPage(Page[StepView]):
    """A page of steps, in the order of the plan."""


class AgentPage(Page[AgentView]):
    """A page of agents, by host name."""


class GroupPage(Page[GroupView]):
    """A page of groups, by name."""


class PoolPage(Page[PoolView]):
    """All pools, by type."""


class VolumePage(Page[VolumeView]):
    """A page of volumes, newest first."""


class VnfpPage(Page[VnfpView]):
    """A page of VNFs, newest first."""


class AuditPage(Page[AuditView]):
    """A page of the audit log, newest first."""


class ArtefactsPage(Page[ArtefactView]):
    """A page of artefacts."""


class EventsPage(Page[EventView]):
    """A page of state changes, oldest first."""


class PlanPage(Page[PlanView]):
    """A page of stored plans, by name, without their text."""


class SchedulePage(Page[ScheduleView]):
    """A page of schedules, by name."""


class RecordPage(Page[RecordView]):
    """A page of records, oldest first."""
