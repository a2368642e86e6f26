"""``/api/v1/deployresults``: results of deployments."""

from collections.abc import AsyncIterator

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from proctor_api.catalog.deployresults import DeployResults, read_deploy_query, read_deployresult
from proctor_api.catalog.fields import object_of
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
)
from proctor_api.routes.testapi.results import BAD_QUERY, EXACT, OTHERS, PAGE
from proctor_api.routes.testapi.results import FILTERS as RESULT_FILTERS

router = Router()
routes = router.routes
EXAMPLE = {
    "installer": "daisy",
    "version": "master",
    "pod_name": "pod_foo",
    "job_name": "daisy-os-nosdn-nofeature-ha-baremetal-daily-master",
    "build_id": 108,
    "scenario": "os-nosdn-nofeature-ha",
    "upstream_job_name": "daisy-build-daily-master",
    "upstream_build_id": 96,
    "criteria": "PASS",
    "start_date": "2017-09-28 14:41:58",
    "stop_date": "2017-09-28 15:12:07",
    "details": "it went well",
}
SHOWN = {"_id": "57adcb09514bc70001e3f5cd", **EXAMPLE}
LIST = {"deployresults": [SHOWN], "pagination": {"current_page": 1, "total_pages": 1}}
FILTERS = [
    parameter("installer", OTHERS),
    *(parameter(name, EXACT) for name in ("version", "pod_name", "scenario", "job_name")),
    parameter("build_id", EXACT, "integer"),
    parameter("criteria", EXACT),
    *(one for one in RESULT_FILTERS if one["name"] in {"period", "from", "to", "last", "descend"}),
]


@router.get("/api/v1/deployresults", "List deployment results", reads(LIST, BAD_QUERY, parameters=[*FILTERS, PAGE]))
async def list_deployresults(request: Request) -> Response:
    """Deployment results that match all filters, newest first, as one streamed list; with `page`, 20 at a time."""
    context = context_of(request)
    store = DeployResults(context.engine)
    pairs = pairs_of(request)
    query = read_deploy_query(pairs, context.clock.now(), context.settings.zone, groups_of(request))
    if query.page is not None:
        rows, pages = await store.page(query)
        return Response(b'{"deployresults":[' + b",".join(rows) + _end(query.page, pages), media_type=JSON)
    batches = store.stream(query)
    # Read before the answer begins, so that an unavailable database is a 503.
    first: list[bytes] = await anext(batches, [])

    async def body() -> AsyncIterator[bytes]:
        yield b'{"deployresults":[' + b",".join(first)
        async for batch in batches:
            yield b"," + b",".join(batch)
        yield _end(1, 1)

    return StreamingResponse(body(), media_type=JSON)


@router.post(
    "/api/v1/deployresults",
    "Add a deployment result",
    creates(EXAMPLE, {400: "installer is missing or empty", 404: "no such pod: pod_foo"}),
)
async def add_deployresult(request: Request) -> Response:
    """Store a deployment result. The answer is `{href}` with its URL. 400 without `pod_name`, `installer` or
    `scenario`; 404 if the pod is unknown.
    """
    context = context_of(request)
    body = object_of(await request.json())
    now, zone = context.clock.now(), context.settings.zone
    result = read_deployresult(body, now, zone, group_for(request), dropped_of(request))
    await DeployResults(context.engine).add(result)
    return href(request, result.id)


@router.get(
    "/api/v1/deployresults/{result}",
    "Show a deployment result",
    reads(SHOWN, {404: "no such deploy result: 57adcb09514bc70001e3f5cd"}),
)
async def get_deployresult(request: Request, result: str) -> Response:
    """The deployment result with this `_id`. 404 if there is none, or the token may not see it."""
    found = await DeployResults(context_of(request).engine).get(result, groups_of(request))
    return Response(found, media_type=JSON)


def _end(page: int, pages: int) -> bytes:
    return b'],"pagination":' + orjson.dumps({"current_page": page, "total_pages": pages}) + b"}"
