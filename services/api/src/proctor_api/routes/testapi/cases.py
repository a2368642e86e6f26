"""``/api/v1/projects/{project}/cases``: the test cases of a project."""

from fastapi import Request, Response

from proctor_api.catalog.cases import Cases
from proctor_api.catalog.dates import creation_date
from proctor_api.catalog.fields import CASE, changes_of, members, name_of, new_record_id, object_of
from proctor_api.catalog.record import CatalogRecord, named
from proctor_api.context import context_of
from proctor_api.routes.testapi.base import BAD_NAME, NAME, Router, answer, changes, creates, done, href, reads

router = Router()
routes = router.routes
ALL = "/api/v1/projects/{project:project}/cases"
ONE = "/api/v1/projects/{project:project}/cases/{case:name}"
EXAMPLE = {"name": "case_foo", "description": "whatever you want", "url": "https://wiki.example.org/case_foo"}
SHOWN = {
    **EXAMPLE,
    "_id": "57adcb09514bc70001e3f5cd",
    "project_name": "functest",
    "creation_date": "2016-08-12 13:12:41.123456",
}

UNKNOWN = {404: "no such test case: functest/case_foo"}
CHANGES = changes(
    {"description": "other words"}, SHOWN, {400: "unknown field: colour", 403: "nothing to update", **UNKNOWN}
)


@router.get(ALL, "List a project's test cases", reads({"testcases": [SHOWN]}, BAD_NAME, parameters=[NAME]))
async def list_cases(request: Request, project: str) -> Response:
    """The test cases of the project, oldest first; an empty list if the project is unknown."""
    found = await Cases(context_of(request).engine).list(project)
    return answer({"testcases": [case.view(CASE) for case in named(found, request.query_params.get("name"))]})


@router.post(
    ALL, "Declare a test case", creates(EXAMPLE, {400: "name is missing or empty", 403: "no such project: functest"})
)
async def add_case(request: Request, project: str) -> Response:
    """Add a test case. The answer is `{href}` with its URL. 400 without a name; 403 if the project is unknown or has a
    test case with this name.
    """
    body = object_of(await request.json())
    context = context_of(request)
    now = context.clock.now()
    case = CatalogRecord(
        new_record_id(now), name_of(body), members(body, CASE), creation_date(now, context.settings.zone), project
    )
    await Cases(context.engine).add(case)
    return href(request, case.name)


@router.get(ONE, "Show a test case", reads(SHOWN, UNKNOWN))
async def get_case(request: Request, project: str, case: str) -> Response:
    """The test case with this name. 404 if there is none."""
    return answer((await Cases(context_of(request).engine).get(project, case.rstrip("/"))).view(CASE))


@router.put(ONE, "Change a test case", CHANGES)
async def change_case(request: Request, project: str, case: str) -> Response:
    """Give any of its members, also `project_name`; its results follow a new name or project. The answer is the whole
    record. 403 if nothing would change.
    """
    wanted = changes_of(await request.json(), (*CASE, "project_name"))
    cases = Cases(context_of(request).engine)
    made = await cases.change(project, case.rstrip("/"), lambda old: old.changed(wanted))
    return answer(made.view(CASE))


@router.delete(
    ONE, "Delete a test case", changes(refuses={401: "results refer to the test case functest/case_foo", **UNKNOWN})
)
async def delete_case(request: Request, project: str, case: str) -> Response:
    """The answer has no body. 401 while results refer to the test case."""
    await Cases(context_of(request).engine).delete(project, case.rstrip("/"))
    return done()
