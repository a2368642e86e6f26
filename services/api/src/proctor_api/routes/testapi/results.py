"""``/api/v1/results``: what test cases ended with."""

from collections.abc import AsyncIterator

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from proctor_api.catalog.fields import object_of
from proctor_api.catalog.queries import read_query
from proctor_api.catalog.results import Results, Shown, read_result
from proctor_api.catalog.streams import ReadSoFar
from proctor_api.context import context_of
from proctor_api.routes.guard import JSON
from proctor_api.routes.testapi.base import (
    Router,
    creates,
    group_for,
    groups_of,
    href,
    pairs_of,
    parameter,
    reads,
    streams_of,
)

router = Router()
routes = router.routes
EXAMPLE = {
    "project_name": "project_foo",
    "case_name": "vPing",
    "pod_name": "pod_foo",
    "installer": "fuel",
    "version": "Colorado",
    "scenario": "odl-l2",
    "build_tag": "jenkins-functest-fuel-baremetal-daily-master-108",
    "criteria": "PASS",
    "trust_indicator": 0.5,
    "start_date": "2016-05-28T14:41:58.384Z",
    "stop_date": "2016-05-28T14:42:58.384Z",
    "details": {"duration": 60},
}
SHOWN = {"_id": "57adcb09514bc70001e3f5cd", **EXAMPLE}
LIST = {"results": [SHOWN], "pagination": {"current_page": 1, "total_pages": 1}}
FILTERS = [
    parameter("project", "Of this project (`project_name` says the same)"),
    parameter("case", "Of this test case"),
    parameter("pod", "On this pod"),
    parameter("installer", "Equal; so is every other member of a result that is not listed here"),
    parameter("version", "Equal"),
    parameter("scenario", "Equal"),
    parameter("build_tag", "Equal"),
    parameter("criteria", "Equal"),
    parameter("trust_indicator", "Equal", "number"),
    parameter("period", "Started in the last so many days", "integer"),
    parameter("from", "Started then or later: a date, or date and time"),
    parameter("to", "Started before"),
    parameter("last", "At most so many; 0: all", "integer"),
    parameter("descend", "`false`: the oldest first"),
]
PAGE = parameter("page", "The so manieth twenty, from 1", "integer")

BAD_QUERY = {400: "last must be an integer"}


@router.get("/api/v1/results", "Results", reads(LIST, BAD_QUERY, parameters=[*FILTERS, PAGE]))
async def list_results(request: Request) -> Response:
    """All that the query finds, newest first, as a stream; with `page` 20 at a time."""
    context = context_of(request)
    pairs = pairs_of(request)
    query = read_query(pairs, context.clock.now(), context.settings.zone, groups_of(request))
    if query.page is not None:
        rows, pages = await Results(context.engine).page(query)
        return Response(_whole(rows, query.page, pages), media_type=JSON)
    streams = streams_of(request)
    rows, place = await streams.first(query)
    if place is None:
        return Response(_whole(rows, 1, 1), media_type=JSON)

    async def body(place: ReadSoFar) -> AsyncIterator[bytes]:
        yield b'{"results":[' + orjson.dumps(rows)[1:-1]
        async for batch in streams.rest(query, place):
            yield b"," + orjson.dumps(batch)[1:-1]
        yield b"]," + _pagination(1, 1) + b"}"

    return StreamingResponse(body(place), media_type=JSON)


@router.post(
    "/api/v1/results",
    "Add a result",
    creates(EXAMPLE, {400: "pod_name is missing or empty", 404: "no such pod: pod_foo"}),
)
async def add_result(request: Request) -> Response:
    """400 without pod_name, project_name or case_name; 404 where one of them is unknown."""
    context = context_of(request)
    body = object_of(await request.json())
    result = read_result(body, context.clock.now(), context.settings.zone, group=group_for(request))
    await Results(context.engine).add(result)
    return href(request, result.id)


@router.get("/api/v1/results/{result}", "A result", reads(SHOWN, {404: "no such result: 57adcb09514bc70001e3f5cd"}))
async def get_result(request: Request, result: str) -> Response:
    """404 where there is none."""
    return Response(await Results(context_of(request).engine).get(result, groups_of(request)), media_type=JSON)


def _whole(rows: list[Shown], page: int, pages: int) -> bytes:
    return b'{"results":' + orjson.dumps(rows) + b"," + _pagination(page, pages) + b"}"


def _pagination(page: int, pages: int) -> bytes:
    return b'"pagination":' + orjson.dumps({"current_page": page, "total_pages": pages})
