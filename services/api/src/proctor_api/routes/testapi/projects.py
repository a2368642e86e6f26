"""``/api/v1/projects``: the owners of test cases."""

from fastapi import Request, Response

from proctor_api.catalog.dates import creation_date
from proctor_api.catalog.fields import PROJECT, changes_of, members, new_record_id, object_of, project_name_of
from proctor_api.catalog.projects import Projects
from proctor_api.catalog.record import CatalogRecord, named
from proctor_api.context import context_of
from proctor_api.routes.testapi.base import BAD_NAME, NAME, Router, answer, changes, creates, done, href, reads

router = Router()
routes = router.routes
EXAMPLE = {"name": "project_foo", "description": "whatever you want"}
SHOWN = {**EXAMPLE, "_id": "57adcb09514bc70001e3f5cd", "creation_date": "2016-08-12 13:12:41.123456"}

UNKNOWN = {404: "no such project: project_foo"}
CHANGES = changes(
    {"description": "other words"}, SHOWN, {400: "unknown field: colour", 403: "nothing to update", **UNKNOWN}
)


@router.get("/api/v1/projects", "List projects", reads({"projects": [SHOWN]}, BAD_NAME, parameters=[NAME]))
async def list_projects(request: Request) -> Response:
    """All projects, oldest first."""
    found = await Projects(context_of(request).engine).list()
    shown = [project.view(PROJECT) for project in named(found, request.query_params.get("name"))]
    return answer({"projects": shown})


@router.post(
    "/api/v1/projects",
    "Declare a project",
    creates(EXAMPLE, {400: "name is missing or empty", 403: "the project project_foo exists already"}),
)
async def add_project(request: Request) -> Response:
    """Add a project. The answer is `{href}` with its URL. 400 without a name; 403 if the name exists."""
    body = object_of(await request.json())
    context = context_of(request)
    now = context.clock.now()
    about = members(body, PROJECT)
    project = CatalogRecord(new_record_id(now), project_name_of(body), about, creation_date(now, context.settings.zone))
    await Projects(context.engine).add(project)
    return href(request, project.name)


@router.get("/api/v1/projects/{project:project}", "Show a project", reads(SHOWN, UNKNOWN))
async def get_project(request: Request, project: str) -> Response:
    """The project with this name. 404 if there is none."""
    return answer((await Projects(context_of(request).engine).get(project.rstrip("/"))).view(PROJECT))


@router.put("/api/v1/projects/{project:project}", "Change a project", CHANGES)
async def change_project(request: Request, project: str) -> Response:
    """Give any of its members; its test cases and results follow a new name. The answer is the whole record. 403 if
    nothing would change.
    """
    wanted = changes_of(await request.json(), PROJECT)
    if "name" in wanted:
        project_name_of(wanted)
    made = await Projects(context_of(request).engine).change(project.rstrip("/"), lambda old: old.changed(wanted))
    return answer(made.view(PROJECT))


@router.delete(
    "/api/v1/projects/{project:project}",
    "Delete a project",
    changes(refuses={401: "test cases refer to the project project_foo", **UNKNOWN}),
)
async def delete_project(request: Request, project: str) -> Response:
    """The answer has no body. 401 while test cases refer to the project."""
    await Projects(context_of(request).engine).delete(project.rstrip("/"))
    return done()
