"""``/v1/results/rejected``: results of steps that could not be recorded, and recording them again."""

import orjson
from fastapi import Request, Response

from proctor_api.catalog.recorder import Recorder
from proctor_api.routes.guard import caller_of, json_view, needs, router
from proctor_api.routes.models import After, Limit, RejectionPage, RetryView
from proctor_common.errors import invalid
from proctor_common.states import Role

routes = router("results")
MAX_ID = 2**63 - 1
AT_ONCE = 100


@routes.get(
    "/v1/results/rejected",
    response_model=RejectionPage,
    summary="List results that could not be recorded",
    openapi_extra=needs(Role.VIEWER),
)
async def list_rejections(request: Request, limit: Limit = 100, cursor: After = None) -> Response:
    """What finished steps asked to record, with the reason why that failed; oldest first."""
    after = _after(cursor)
    found = await _recorder(request).rejections.list(caller_of(request).actor.groups, after, limit + 1)
    following = str(found[limit - 1].item.id) if len(found) > limit else None
    return json_view(orjson.dumps({"items": [each.view() for each in found[:limit]], "next": following}))


@routes.post(
    "/v1/results/rejected/retry",
    response_model=RetryView,
    summary="Record them again",
    openapi_extra=needs(Role.RUNNER),
)
async def retry_rejections(request: Request) -> Response:
    """Try each once more, for example after a missing pod was declared. Those that fail stay, with the new reason."""
    recorder = _recorder(request)
    stored, left, after = 0, 0, 0
    while page := await recorder.rejections.list(caller_of(request).actor.groups, after, AT_ONCE):
        outcomes = [await recorder.store(rejection.item) for rejection in page]
        stored += outcomes.count(True)
        left += outcomes.count(False)
        after = page[-1].item.id
    return json_view(orjson.dumps({"stored": stored, "left": left}))


def _recorder(request: Request) -> Recorder:
    recorder: Recorder = request.app.state.recorder
    return recorder


def _after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 19 or int(cursor) > MAX_ID:
        raise invalid("cursor: not a cursor", path="query.cursor", code="cursor")
    return int(cursor)
