"""``/api/v1/results``: results of test cases."""

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
    dropped_of,
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
EXACT = "Only results with exactly this value"
OTHERS = f"{EXACT}. Members that are not listed here filter in the same way"
FILTERS = [
    parameter("project", "Only results of this project; `project_name` is the same"),
    parameter("case", "Only results of this test case; `case_name` is the same"),
    parameter("pod", "Only results from this pod; `pod_name` is the same"),
    parameter("installer", OTHERS),
    *(parameter(name, EXACT) for name in ("version", "scenario", "build_tag", "criteria")),
    parameter("trust_indicator", EXACT, "number"),
    parameter("period", "Only results that started within this many days before now", "integer"),
    parameter("from", "Only results that started at this time or later: `YYYY-MM-DD`, also with `HH:MM:SS`"),
    parameter("to", "Only results that started before this time"),
    parameter("last", "At most this many results; 0 for all, which is the default", "integer"),
    parameter("descend", "`true` (the default): newest first; anything else: oldest first"),
]
PAGE = parameter("page", "Show this page of 20 results, counted from 1; without it, all results", "integer")

BAD_QUERY = {400: "last must be an integer"}


@router.get("/api/v1/results", "List results", reads(LIST, BAD_QUERY, parameters=[*FILTERS, PAGE]))
async def list_results(request: Request) -> Response:
    """Results that match all filters, newest first, as one streamed list; with `page`, 20 at a time. 400 for a page
    beyond the last one.
    """
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
    """Store a result. The answer is `{href}` with its URL. 400 without `pod_name`, `project_name` or `case_name`; 404
    if one of them is not declared.
    """
    context = context_of(request)
    body = object_of(await request.json())
    now, zone = context.clock.now(), context.settings.zone
    result = read_result(body, now, zone, dropped_of(request), group=group_for(request))
    await Results(context.engine).add(result)
    return href(request, result.id)


@router.get(
    "/api/v1/results/{result}", "Show a result", reads(SHOWN, {404: "no such result: 57adcb09514bc70001e3f5cd"})
)
async def get_result(request: Request, result: str) -> Response:
    """The result with this `_id`. 404 if there is none, or the token may not see it."""
    return Response(await Results(context_of(request).engine).get(result, groups_of(request)), media_type=JSON)


def _whole(rows: list[Shown], page: int, pages: int) -> bytes:
    return b'{"results":' + orjson.dumps(rows) + b"," + _pagination(page, pages) + b"}"


def _pagination(page: int, pages: int) -> bytes:
    return b'"pagination":' + orjson.dumps({"current_page": page, "total_pages": pages})
