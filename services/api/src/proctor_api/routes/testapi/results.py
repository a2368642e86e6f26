"""``/api/v1/results``: what test cases ended with."""

from collections.abc import AsyncIterator

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from proctor_api.catalog.fields import object_of
from proctor_api.catalog.queries import read_query
from proctor_api.catalog.results import Results, Shown, read_result
from proctor_api.catalog.streams import Place
from proctor_api.context import context_of
from proctor_api.routes.guard import JSON
from proctor_api.routes.testapi.door import Router, creates, group_for, groups_of, href, reads, streams_of

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


@router.get("/api/v1/results", "Results", reads())
async def list_results(request: Request) -> Response:
    """All that the query finds, newest first, as a stream; with `page` 20 at a time."""
    context = context_of(request)
    pairs = request.query_params.multi_items()
    query = read_query(pairs, context.clock.now(), context.settings.zone, groups_of(request))
    if query.page is not None:
        rows, pages = await Results(context.engine).page(query)
        return Response(_whole(rows, query.page, pages), media_type=JSON)
    streams = streams_of(request)
    rows, place = await streams.first(query)
    if place is None:
        return Response(_whole(rows, 1, 1), media_type=JSON)

    async def body(place: Place) -> AsyncIterator[bytes]:
        yield b'{"results":[' + orjson.dumps(rows)[1:-1]
        async for batch in streams.rest(query, place):
            yield b"," + orjson.dumps(batch)[1:-1]
        yield b"]," + _pagination(1, 1) + b"}"

    return StreamingResponse(body(place), media_type=JSON)


@router.post("/api/v1/results", "Add a result", creates(EXAMPLE))
async def add_result(request: Request) -> Response:
    """400 without pod_name, project_name or case_name; 404 where one of them is unknown."""
    context = context_of(request)
    body = object_of(await request.json())
    result = read_result(body, context.clock.now(), context.settings.zone, group=group_for(request))
    await Results(context.engine).add(result)
    return href(request, result.id)


@router.get("/api/v1/results/{result}", "A result", reads())
async def get_result(request: Request, result: str) -> Response:
    """404 where there is none."""
    return Response(await Results(context_of(request).engine).get(result, groups_of(request)), media_type=JSON)


def _whole(rows: list[Shown], page: int, pages: int) -> bytes:
    return b'{"results":' + orjson.dumps(rows) + b"," + _pagination(page, pages) + b"}"


def _pagination(page: int, pages: int) -> bytes:
    return b'"pagination":' + orjson.dumps({"current_page": page, "total_pages": pages})
