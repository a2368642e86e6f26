"""``/api/v1/pods``: the platforms that tests run on."""

from fastapi import Request, Response

from proctor_api.catalog.dates import creation_date
from proctor_api.catalog.fields import POD, members, name_of, new_record_id, object_of
from proctor_api.catalog.pods import Pods
from proctor_api.catalog.record import CatalogRecord, named
from proctor_api.context import context_of
from proctor_api.routes.testapi.base import BAD_NAME, NAME, Router, answer, changes, creates, done, href, reads

router = Router()
routes = router.routes
EXAMPLE = {"name": "pod_foo", "mode": "metal", "role": "ci-pod", "details": "it is a ci pod"}
SHOWN = {**EXAMPLE, "_id": "57adcb09514bc70001e3f5cd", "creation_date": "2016-08-12 13:12:41.123456"}

UNKNOWN = {404: "no such pod: pod_foo"}


@router.get("/api/v1/pods", "List pods", reads({"pods": [SHOWN]}, BAD_NAME, parameters=[NAME]))
async def list_pods(request: Request) -> Response:
    """All pods, oldest first."""
    found = await Pods(context_of(request).engine).list()
    return answer({"pods": [pod.view(POD) for pod in named(found, request.query_params.get("name"))]})


@router.post(
    "/api/v1/pods",
    "Declare a pod",
    creates(EXAMPLE, {400: "name is missing or empty", 403: "the pod pod_foo exists already"}),
)
async def add_pod(request: Request) -> Response:
    """Add a pod. The answer is `{href}` with its URL. 400 without a name; 403 if the name exists."""
    body = object_of(await request.json())
    context = context_of(request)
    now = context.clock.now()
    pod = CatalogRecord(
        new_record_id(now), name_of(body), members(body, POD), creation_date(now, context.settings.zone)
    )
    await Pods(context.engine).add(pod)
    return href(request, pod.name)


@router.get("/api/v1/pods/{pod:name}", "Show a pod", reads(SHOWN, UNKNOWN))
async def get_pod(request: Request, pod: str) -> Response:
    """The pod with this name. 404 if there is none."""
    return answer((await Pods(context_of(request).engine).get(pod.rstrip("/"))).view(POD))


@router.delete(
    "/api/v1/pods/{pod:name}", "Delete a pod", changes(refuses={401: "results refer to the pod pod_foo", **UNKNOWN})
)
async def delete_pod(request: Request, pod: str) -> Response:
    """The answer has no body. 401 while results refer to the pod."""
    await Pods(context_of(request).engine).delete(pod.rstrip("/"))
    return done()
