"""``/v1/results/import`` and ``/v1/results/export``: results of the Test API as NDJSON, however many."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from proctor_api.catalog.queries import read_query
from proctor_api.catalog.results import Shown
from proctor_api.catalog.transfer import Import, lines_of
from proctor_api.routes.guard import STREAMED, caller_of, context_of, json_view, needs, router
from proctor_api.routes.models import ImportView
from proctor_api.routes.testapi.base import group_for, streams_of, value_beside
from proctor_api.routes.testapi.results import FILTERS
from proctor_common.errors import ProctorError
from proctor_common.states import Role

routes = router("results")
NDJSON = "application/x-ndjson"
BODY: dict[str, Any] = {
    "required": True,
    "description": "One result a line, as of `POST /api/v1/results`; an `_id` is kept",
    "content": {NDJSON: {"schema": {"type": "string"}}},
}

ADDED = 512
"""Bytes: what an exported line has more than the body that was posted: its ``_id``, members that are null."""


@routes.post(
    "/v1/results/import",
    response_model=ImportView,
    summary="Import results",
    openapi_extra=needs(Role.RUNNER, requestBody=BODY, **{STREAMED: True}),
)
async def import_results(
    request: Request,
    declare: Annotated[bool, Query(description="Declare the pods, projects and test cases that are missing")] = False,
) -> Response:
    """NDJSON of any length, stored as it comes. A line that cannot be stored is counted and, of the first hundred,
    named; the others are stored all the same. A line whose `_id` is known already is not stored again.
    """
    context = context_of(request)
    limit = context.settings.result_limit + ADDED
    work = Import(context.engine, context.clock, context.settings.zone, group=group_for(request), declare=declare)
    try:
        async for number, line in lines_of(request.stream(), limit):
            try:
                value = await value_beside(request, line)
            except ProctorError as fault:
                work.report.refuse(number, fault.message)
            else:
                await work.add(number, value, len(line))
    finally:
        await work.flush()
    return json_view(orjson.dumps(work.report.view()))


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
    """NDJSON of what a query finds, streamed; the parameters are those of `GET /api/v1/results`, without `page`."""
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
