"""``GET /v1/audit``: who changed what, and when."""

from fastapi import Request

from proctor_api.routes.guard import ViewResponse, needs, pass_on, router
from proctor_api.routes.models import After, Limit
from proctor_common.messages.calls import audit as calls
from proctor_common.messages.pages import AuditPage
from proctor_common.states import Role

routes = router("access")


@routes.get("/v1/audit", summary="Show the audit log", openapi_extra=needs(Role.ADMIN))
async def list_audit(request: Request, limit: Limit = 100, cursor: After = None) -> ViewResponse[AuditPage]:
    """Every action that changed something, newest first. 403 for a token that is bound to groups."""
    return await pass_on(request, calls.LIST_AUDIT, calls.AuditList(limit=limit, cursor=cursor))
