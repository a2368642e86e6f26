"""``/dashboard/v1``: graphs and bars of a test case's results, computed at each request."""

from dataclasses import replace

from fastapi import Request, Response

from proctor_api.catalog.dashboard.boards import PROJECTS, STATUS, board_of, is_named, status_board
from proctor_api.catalog.dashboard.readings import MOST_RESULTS, Readings
from proctor_api.catalog.faults import refused
from proctor_api.catalog.queries import read_query
from proctor_api.context import context_of
from proctor_api.routes.testapi.base import Router, answer, groups_of, pairs_of, parameter, reads
from proctor_api.routes.testapi.results import FILTERS

router = Router()
routes = router.routes
SHOWN = [
    {"description": "vPing results for Dashboard"},
    {
        "name": "vPing duration",
        "info": {"type": "graph", "xlabel": "time", "ylabel": "duration (s)"},
        "data_set": [{"x": "2016-05-28 14:41:58", "y": 60}],
    },
    {"name": "vPing status", "info": {"type": "bar"}, "data_set": [{"Nb tests": 1, "Nb Success": 1}]},
]
NEEDED = [
    {**parameter("project", "A project of `GET /dashboard/v1/projects`"), "required": True, "example": "functest"},
    {
        **parameter("case", "A test case of the project that has results or a dashboard of its own"),
        "required": True,
        "example": "vPing",
    },
]
REFUSED = {400: "period must be an integer", 404: "the project is not dashboard-ready: project_foo"}
OTHERS = [one for one in FILTERS if one["name"] not in {"project", "case", "descend"}]


@router.get("/dashboard/v1/projects", "List projects with a dashboard", reads(list(PROJECTS)))
async def list_dashboard_projects(request: Request) -> Response:
    """A JSON list of names: the projects of OPNFV, then every other project that has results."""
    return answer(await Readings(context_of(request).engine).projects(groups_of(request)))


@router.get(
    "/dashboard/v1/results",
    "Show a test case's dashboard",
    reads(SHOWN, REFUSED, parameters=[*NEEDED, *OTHERS]),
)
async def show_dashboard(request: Request) -> Response:
    """A JSON list of a description, graphs and bars. 404 if project or case is missing in the query or has no
    dashboard.
    """
    context, groups = context_of(request), groups_of(request)
    pairs = pairs_of(request)
    query = read_query(pairs, context.clock.now(), context.settings.zone, groups)
    readings = Readings(context.engine)
    project, case = request.query_params.get("project"), request.query_params.get("case")
    if not project:
        raise refused("the query must name the project: ?project=<name>&case=<name>")
    if project not in PROJECTS and not await readings.has_results(project, None, groups):
        raise refused(f"the project is not dashboard-ready: {project[:200]}")
    if not case:
        raise refused(f"the query must name a case of {project[:200]}: &case=<name>")
    if (project, case) == STATUS:
        equal = tuple(pair for pair in query.equal if pair[0] != "case_name")
        return answer(status_board(await readings.status(replace(query, equal=equal))))
    if not is_named(project, case) and not await readings.has_results(project, case, groups):
        raise refused(f"the case is not dashboard-ready: {project[:200]}/{case[:200]}")
    board = board_of(project, case)
    await readings.fill(board, query, context.settings.zone)
    return answer(board.finish())


show_dashboard.__doc__ = f"{show_dashboard.__doc__} Only the newest {MOST_RESULTS:,} results are used."
