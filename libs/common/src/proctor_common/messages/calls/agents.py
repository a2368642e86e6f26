"""Operations on agents and their groups."""

from pydantic import Field

from proctor_common.messages.base import WireMessage
from proctor_common.messages.calls.operation import Operation
from proctor_common.messages.pages import AgentPage, GroupPage
from proctor_common.messages.views import AgentView, EnrolmentView, GroupView, JoinView


class AgentRef(WireMessage):
    """``agent``: id, host name or number as text."""

    agent: str


class AgentList(WireMessage):
    """By host name."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class Enrol(WireMessage):
    """Permission for a new agent, valid once."""

    host: str
    groups: list[str] = []
    labels: dict[str, str] = {}


class Join(WireMessage):
    """``public_key``: the agent's own nkey (``U…``). Within the permission's time the same key gets the same answer."""

    token: str
    public_key: str


class GroupRef(WireMessage):
    """The answer to a delete is the group before it."""

    name: str


class GroupList(WireMessage):
    """By name."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


class GroupBinding(WireMessage):
    """``agent``: id, host name or number as text."""

    name: str
    agent: str


LIST_AGENTS = Operation("agent.list", AgentList, AgentPage)
GET_AGENT = Operation("agent.get", AgentRef, AgentView)
DRAIN_AGENT = Operation("agent.drain", AgentRef, AgentView)
UNDRAIN_AGENT = Operation("agent.undrain", AgentRef, AgentView)
RELEASE_AGENT = Operation("agent.release", AgentRef, AgentView)
REMOVE_AGENT = Operation("agent.remove", AgentRef, AgentView)
ENROL_AGENT = Operation("agent.enrol", Enrol, EnrolmentView, once=True)
JOIN_AGENT = Operation("agent.join", Join, JoinView)

LIST_GROUPS = Operation("group.list", GroupList, GroupPage)
GET_GROUP = Operation("group.get", GroupRef, GroupView)
PUT_GROUP = Operation("group.put", GroupRef, GroupView)
DELETE_GROUP = Operation("group.delete", GroupRef, GroupView)
BIND_AGENT = Operation("group.bind", GroupBinding, GroupView)
UNBIND_AGENT = Operation("group.unbind", GroupBinding, GroupView)
