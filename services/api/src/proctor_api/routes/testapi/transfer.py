"""``/v1/results/import`` and ``/v1/results/export``: results of the Test API as NDJSON of any length."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from proctor_api.catalog.queries import read_query
from proctor_api.catalog.results import Shown
from proctor_api.catalog.sent import Dropped
from proctor_api.catalog.transfer import Import, lines_of
from proctor_api.routes.guard import STREAMED, caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import ImportView
from proctor_api.routes.testapi.base import group_for, streams_of, tell_dropped, value_beside
from proctor_api.routes.testapi.results import FILTERS
from proctor_common.errors import ProctorError
from proctor_common.states import Role

routes = router("results")
NDJSON = "application/x-ndjson"
BODY: dict[str, Any] = {
    "required": True,
    "description": "One result per line, as for `POST /api/v1/results`; an `_id` is kept",
    "content": {NDJSON: {"schema": {"type": "string"}}},
}

ADDED = 512
"""Bytes that an exported line may be longer than the posted body: its ``_id``, and members that are null."""


@routes.post(
    "/v1/results/import",
    response_model=ImportView,
    summary="Import results",
    openapi_extra=needs(Role.RUNNER, requestBody=BODY, **{STREAMED: True}),
)
async def import_results(
    request: Request,
    declare: Annotated[bool, Query(description="Declare pods, projects and test cases that are missing")] = False,
) -> Response:
    """NDJSON of any length, stored while it is received. A line that cannot be stored is counted, the first 100 are
    listed in `errors`, and the other lines are stored. A line whose `_id` exists is not stored again. 413 for a line
    that is too long; the lines before it are stored.
    """
    context = context_of(request)
    limit = context.settings.result_limit + ADDED
    work = Import(context.engine, context.clock, context.settings.zone, group=group_for(request), declare=declare)
    try:
        async for number, line in lines_of(request.stream(), limit):
            dropped = Dropped()
            try:
                value = await value_beside(request, line, dropped)
            except ProctorError as fault:
                work.report.refuse(number, fault.message)
            else:
                await work.add(number, value, len(line), dropped)
    finally:
        await work.flush()
    response = json_view(orjson.dumps(work.report.view()))
    tell_dropped(response, work.report.dropped)
    return response


@routes.get(
    "/v1/results/export",
    summary="Export results",
    openapi_extra=needs(
        Role.VIEWER,
        parameters=FILTERS,
        responses={"200": {"content": {NDJSON: {"schema": {"type": "string"}}}}},
    ),
)
async def export_results(request: Request) -> Response:
    """The results that match all filters, streamed as NDJSON. 400 for a `from` or `to` that is not a date."""
    context = context_of(request)
    pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "page"]
    groups = caller_of(request).actor.groups
    query = read_query(pairs, context.clock.now(), context.settings.zone, groups, strict=True)
    streams = streams_of(request)
    first, place = await streams.first(query)

    async def body() -> AsyncIterator[bytes]:
        yield _lines(first)
        if place is not None:
            async for batch in streams.rest(query, place):
                yield _lines(batch)

    return StreamingResponse(body(), media_type=NDJSON)


def _lines(rows: list[Shown]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
