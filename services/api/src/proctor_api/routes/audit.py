"""``GET /v1/audit``: who did what, when."""

from fastapi import Request, Response

from proctor_api.routes.guard import caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import After, AuditPage, Limit
from proctor_common.messages import calls
from proctor_common.states import Role

routes = router()


@routes.get(
    "/v1/audit", response_model=AuditPage, tags=["access"], summary="The audit", openapi_extra=needs(Role.ADMIN)
)
async def list_audit(request: Request, limit: Limit = 100, cursor: After = None) -> Response:
    """Deeds, newest first."""
    body = calls.AuditList(limit=limit, cursor=cursor)
    return json_view(await context_of(request).controllers.ask("audit.list", caller_of(request).actor, body))
