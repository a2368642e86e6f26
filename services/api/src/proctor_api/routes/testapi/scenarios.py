"""``/api/v1/scenarios``: installers, versions and projects of a scenario, with scores and trust indicators.

Changes answer 200 without a body.
"""

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
FILTERS = [parameter(name, f"Only scenarios with this {name}") for name in ("name", "installer", "version", "project")]
UNKNOWN = {404: "no such scenario: os-odl_l2-nofeature-ha"}
NO_NAME = {400: "name is missing or empty"}
EXISTS = {403: "the scenario os-odl_l2-nofeature-ha exists already"}
ACTIONS = {"POST": Action.ADD, "PUT": Action.REPLACE, "DELETE": Action.REMOVE}


def _parameters(*names: str) -> list[dict[str, Any]]:
    return [
        {**parameter(name, f"The name of the {name}"), "required": True, "example": example}
        for name, example in (("installer", "apex"), ("version", "master"), ("project", "functest"))
        if name in names
    ]


def _takes(example: Any, *place: str) -> dict[str, Any]:
    """``openapi_extra`` of a change: an example of its body, and the query parameters that name the part."""
    kind = "array" if isinstance(example, list) else "object"
    schema: dict[str, Any] = {"type": kind, "example": example}
    if kind == "array":
        schema["items"] = {"type": "string" if isinstance(example[0], str) else "object"}
    body = {"required": True, "content": {JSON: {"schema": schema}}}
    refuses = {400: "unknown field: colour", **UNKNOWN}
    if kind == "array" and not isinstance(example[0], str):
        refuses[409] = "the version exists already: master"
    return changes(refuses=refuses, requestBody=body, parameters=_parameters(*place))


@router.get(ALL, "List scenarios", reads({"scenarios": [SHOWN]}, parameters=FILTERS))
async def list_scenarios(request: Request) -> Response:
    """Scenarios that match all filters, oldest first. `installer`, `version` and `project` must match within one
    installer.
    """
    return answer({"scenarios": await Scenarios(context_of(request).engine).list(dict(request.query_params))})


@router.post(ALL, "Create a scenario", creates(EXAMPLE, {**NO_NAME, **EXISTS, 409: "the installer occurs twice: apex"}))
async def add_scenario(request: Request) -> Response:
    """Add a scenario. The answer is `{href}` with its URL. Unknown fields are dropped. 400 without a name; 403 if the
    name exists; 409 if a part occurs twice.
    """
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
    """404 if the query names an unknown part."""
    return await _edit(request, scenario, edits.add_score(_place(request), await _body(request)))


@router.post(f"{ONE}/trust_indicators", "Add a trust indicator", _takes(INDICATOR, "installer", "version", "project"))
async def add_trust_indicator(request: Request, scenario: str) -> Response:
    """404 if the query names an unknown part."""
    return await _edit(request, scenario, edits.add_trust_indicator(_place(request), await _body(request)))


@router.put(f"{ONE}/owner", "Change a version's owner", _takes({"owner": "somebody"}, "installer", "version"))
async def change_owner(request: Request, scenario: str) -> Response:
    """404 if the query names an unknown part."""
    return await _edit(request, scenario, edits.change_owner(_place(request), await _body(request)))


async def change_customs(request: Request, scenario: str) -> Response:
    """The project's own test cases, each kept once. The body is a list of names. 404 if the query names an unknown
    part.
    """
    edit = edits.change_customs(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_projects(request: Request, scenario: str) -> Response:
    """400 for an unknown field; 409 if a part exists already or occurs twice. To remove parts, send a list of their
    names.
    """
    edit = edits.change_projects(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_versions(request: Request, scenario: str) -> Response:
    """400 for an unknown field; 409 if a part exists already or occurs twice. To remove parts, send a list of their
    names.
    """
    edit = edits.change_versions(_place(request), await _body(request), ACTIONS[request.method])
    return await _edit(request, scenario, edit)


async def change_installers(request: Request, scenario: str) -> Response:
    """400 for an unknown field; 409 if a part exists already or occurs twice. To remove parts, send a list of their
    names.
    """
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


@router.get(ONE, "Show a scenario", reads(SHOWN, UNKNOWN))
async def get_scenario(request: Request, scenario: str) -> Response:
    """404 if there is none."""
    return answer(await Scenarios(context_of(request).engine).get(scenario.rstrip("/")))


@router.put(ONE, "Rename a scenario", changes({"name": "os-odl-nofeature-ha"}, SHOWN, {**NO_NAME, **EXISTS, **UNKNOWN}))
async def rename_scenario(request: Request, scenario: str) -> Response:
    """403 if the name is unchanged or exists. The answer is the whole record."""
    body = object_of(await request.json())
    new = plain_name_of(read(Rename, body).model_dump())
    return answer(await Scenarios(context_of(request).engine).rename(scenario.rstrip("/"), new))


@router.delete(ONE, "Delete a scenario", changes(refuses=UNKNOWN))
async def delete_scenario(request: Request, scenario: str) -> Response:
    """404 if there is none."""
    await Scenarios(context_of(request).engine).delete(scenario.rstrip("/"))
    return done()


def _place(request: Request) -> PlaceInScenario:
    query = request.query_params
    return PlaceInScenario(query.get("installer"), query.get("version"), query.get("project"))


async def _body(request: Request) -> Any:
    """The JSON body, also of a DELETE. Raises 400 if there is none."""
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
