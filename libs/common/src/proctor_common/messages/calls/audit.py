"""Operations on the audit, and the round trip that readiness asks for."""

from pydantic import Field

from proctor_common.messages.base import JsonObject, WireMessage
from proctor_common.messages.calls.operation import Operation
from proctor_common.messages.pages import AuditPage
from proctor_common.messages.views import AuditView, Done


class PingRequest(WireMessage):
    """A round trip that includes a query, for readiness."""


class AuditAdd(WireMessage):
    """One of the api's own actions (tokens, sessions)."""

    action: str
    object: str = ""
    detail: JsonObject = {}


class AuditList(WireMessage):
    """Newest first."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = None


PING = Operation("ping", PingRequest, Done)
ADD_AUDIT = Operation("audit.add", AuditAdd, AuditView, once=True)
LIST_AUDIT = Operation("audit.list", AuditList, AuditPage)
