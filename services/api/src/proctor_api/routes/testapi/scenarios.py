"""``/api/v1/scenarios``: what a release is made of, and how its parts fare. An order answers 200 without a body."""

from typing import Any

from fastapi import Request, Response

from proctor_api.catalog.dates import creation_date
from proctor_api.catalog.faults import bad
from proctor_api.catalog.fields import new_record_id, object_of, plain_name_of
from proctor_api.catalog.scenarios import edits
from proctor_api.catalog.scenarios.edits import Action, Edit, PlaceInScenario
from proctor_api.catalog.scenarios.shape import Rename, Scenario, read, refuse_twins
from proctor_api.catalog.scenarios.store import Made, Scenarios
from proctor_api.context import caller_of, context_of
from proctor_api.http.bodies import read_body
from proctor_api.routes.guard import JSON
from proctor_api.routes.testapi.base import Router, answer, changes, creates, done, href, parameter, reads, value_of

router = Router()
routes = router.routes
ALL = "/api/v1/scenarios"
ONE = "/api/v1/scenarios/{scenario}"
SCORE = {"date": "2016-05-28 14:42:58", "score": "11/14"}
INDICATOR = {"date": "2016-05-28 14:42:58", "status": "gold"}
PROJECT = {"project": "functest", "customs": ["healthcheck"], "scores": [SCORE], "trust_indicators": [INDICATOR]}
VERSION = {"owner": "somebody", "version": "master", "projects": [PROJECT]}
INSTALLER = {"installer": "apex", "versions": [VERSION]}
EXAMPLE = {"name": "os-odl_l2-nofeature-ha", "installers": [INSTALLER]}
SHOWN = {
    "_id": "57adcb09514bc70001e3f5cd",
    "creator": "somebody",
    "creation_date": "2016-05-28 14:42:58.000000",
    **EXAMPLE,
}
FILTERS = [parameter(name, "Equal") for name in ("name", "installer", "version", "project")]
UNKNOWN = {404: "no such scenario: os-odl_l2-nofeature-ha"}
NO_NAME = {400: "name is missing or empty"}
EXISTS = {403: "the scenario os-odl_l2-nofeature-ha exists already"}
ACTIONS = {"POST": Action.ADD, "PUT": Action.REPLACE, "DELETE": Action.REMOVE}


def _parameters(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": True, "schema": {"type": "string"}, "example": example}
        for name, example in (("installer", "apex"), ("version", "master"), ("project", "functest"))
        if name in names
    ]


def _takes(example: Any, *place: str) -> dict[str, Any]:
    """``openapi_extra`` of an order: its body, and where in the scenario it goes."""
    kind = "array" if isinstance(example, list) else "object"
    schema: dict[str, Any] = {"type": kind, "example": example}
    if kind == "array":
        schema["items"] = {"type": "string" if isinstance(example[0], str) else "object"}
    body = {"required": True, "content": {JSON: {"schema": schema}}}
    refuses = {400: "unknown field: colour", **UNKNOWN}
    if kind == "array" and not isinstance(example[0], str):
        refuses[409] = "the version exists already: master"
    return changes(refuses=refuses, requestBody=body, parameters=_parameters(*place))


@router.get(ALL, "Scenarios", reads({"scenarios": [SHOWN]}, parameters=FILTERS))
async def list_scenarios(request: Request) -> Response:
    """Filters: `name`, `installer`, `version`, `project` (the last three of one and the same installer)."""
    return answer({"scenarios": await Scenarios(context_of(request).engine).list(dict(request.query_params))})


@router.post(
    ALL, "Create a scenario", creates(EXAMPLE, {**NO_NAME, **EXISTS, 409: "the installer is there twice: apex"})
)
async def add_scenario(request: Request) -> Response:
    """400 without a name, 403 where it exists, 409 where a part is there twice. Unknown fields are dropped."""
    body = object_of(await request.json())
    plain_name_of(body)
    scenario = read(Scenario, body, strict=False)
    refuse_twins(scenario.installers)
    context = context_of(request)
    now = context.clock.now()
    made = Made(new_record_id(now), caller_of(request).actor.name, creation_date(now, context.settings.zone))
    await Scenarios(context.engine).add(scenario, made)
    return href(request, scenario.name)


@router.post(f"{ONE}/scores", "Add a score", _takes(SCORE, "installer", "version", "project"))
async def add_score(request: Request, scenario: str) -> Response:
    """404 where the query names a part that is not there."""
    return await _edit(request, scenario, edits.add_score(_place(request), await _body(request)))


@router.post(f"{ONE}/trust_indicators", "Add an indicator", _takes(INDICATOR, "installer", "version", "project"))
async def add_trust_indicator(request: Request, scenario: str) -> Response:
    """404 where the query names a part that is not there."""
    return await _edit(request, scenario, edits.add_trust_indicator(_place(request), await _body(request)))


@router.put(f"{ONE}/owner", "Change a version's owner", _takes({"owner": "somebody"}, "installer", "version"))
async def change_owner(request: Request, scenario: str) -> Response:
    """404 where the query names a part that is not there."""
    return await _edit(request, scenario, edits.change_owner(_place(request), await _body(request)))


async def change_customs(request: Request, scenario: str) -> Response:
    """A project's custom test cases, each once. 404 where the query names a part that is not there."""
    edit = edits.change_customs(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_projects(request: Request, scenario: str) -> Response:
    """400 for an unknown field, 409 where one exists or is there twice."""
    edit = edits.change_projects(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_versions(request: Request, scenario: str) -> Response:
    """400 for an unknown field, 409 where one exists or is there twice."""
    edit = edits.change_versions(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_installers(request: Request, scenario: str) -> Response:
    """400 for an unknown field, 409 where one exists or is there twice."""
    edit = edits.change_installers(await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


for word, function, example, place in (
    ("customs", change_customs, "healthcheck", ("installer", "version", "project")),
    ("projects", change_projects, PROJECT, ("installer", "version")),
    ("versions", change_versions, VERSION, ("installer",)),
    ("installers", change_installers, INSTALLER, ()),
):
    path = f"{ONE}/{word}"
    named = next(iter(example.values())) if isinstance(example, dict) else example
    router.post(path, f"Add {word}", _takes([example], *place))(function)
    router.put(path, f"Replace all {word}", _takes([example], *place))(function)
    router.delete(path, f"Remove {word}", _takes([named], *place))(function)


@router.get(ONE, "A scenario", reads(SHOWN, UNKNOWN))
async def get_scenario(request: Request, scenario: str) -> Response:
    """404 where there is none."""
    return answer(await Scenarios(context_of(request).engine).get(scenario.rstrip("/")))


@router.put(ONE, "Rename a scenario", changes({"name": "os-odl-nofeature-ha"}, SHOWN, {**NO_NAME, **EXISTS, **UNKNOWN}))
async def rename_scenario(request: Request, scenario: str) -> Response:
    """403 where the name is the old one or another's. The answer is the whole record."""
    body = object_of(await request.json())
    new = plain_name_of(read(Rename, body).model_dump())
    return answer(await Scenarios(context_of(request).engine).rename(scenario.rstrip("/"), new))


@router.delete(ONE, "Delete a scenario", changes(refuses=UNKNOWN))
async def delete_scenario(request: Request, scenario: str) -> Response:
    """404 where there is none."""
    await Scenarios(context_of(request).engine).delete(scenario.rstrip("/"))
    return done()


def _place(request: Request) -> PlaceInScenario:
    query = request.query_params
    return PlaceInScenario(query.get("installer"), query.get("version"), query.get("project"))


async def _body(request: Request) -> Any:
    """The body, of a DELETE too. Raises 400 where there is none."""
    if request.method == "DELETE":
        body = value_of(await read_body(request, context_of(request).settings.body_limit))
    else:
        body = await request.json()
    if body is None:
        raise bad("there is no body")
    return body


async def _edit(request: Request, scenario: str, edit: Edit) -> Response:
    await Scenarios(context_of(request).engine).edit(scenario, edit)
    return done()
