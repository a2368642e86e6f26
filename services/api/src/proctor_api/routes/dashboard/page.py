"""``/dashboard/``: the results page, its assets, and the data that it draws."""

import gzip
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlencode

import orjson
from fastapi import Depends, Query, Request, Response

from proctor_api.catalog.dashboard.overview import DIMENSIONS, MOST_RESULTS, Overview, Period
from proctor_api.catalog.queries import ResultQuery
from proctor_api.context import caller_of, context_of
from proctor_api.routes.dashboard.views import DashboardMatrix, DashboardOptions, DashboardResults, DashboardTrend
from proctor_api.routes.guard import anyone, json_view, needs, router
from proctor_api.routes.session import PAGE_POLICY
from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.states import Role

routes = router("dashboard")

TEN_YEARS = 3653
OWN = {
    "dashboard.js": "text/javascript",
    "charts.js": "text/javascript",
    "data.js": "text/javascript",
    "tables.js": "text/javascript",
    "words.js": "text/javascript",
    "dashboard.css": "text/css",
}
BUNDLED = {"chart.bundle.js": "text/javascript"}
"""Chart.js with its time scale, from the package chartkick."""


class Asset(NamedTuple):
    """A file of the page, plain and gzipped, with its media type and ETag."""

    data: bytes
    packed: bytes
    kind: str
    tag: str


Name = Annotated[str, Query(max_length=500, description="Only results with this value; empty: any")]


class Filters:
    """The filters of the page; a result must match all that are given."""

    def __init__(  # noqa: PLR0917 - FastAPI gives them by name
        self,
        request: Request,
        days: Annotated[
            int, Query(ge=1, le=TEN_YEARS, description="Only results that started within this many days before now")
        ] = 30,
        project: Name = "",
        case: Name = "",
        scenario: Name = "",
        installer: Name = "",
        pod: Name = "",
        version: Name = "",
    ) -> None:
        given = (project, case, scenario, installer, pod, version)
        names = ("project", "case", "scenario", "installer", "pod", "version")
        groups = caller_of(request).actor.groups
        self.period = Period(context_of(request).clock.now(), days)
        self.query = ResultQuery(
            equal=tuple((DIMENSIONS[name], value) for name, value in zip(names, given, strict=True) if value),
            since=self.period.since,
            groups=None if groups is None else tuple(groups),
        )

    def within(self, since: datetime | None, before: datetime | None) -> ResultQuery:
        """The query, narrowed to results that started at ``since`` or later, and before ``before``."""
        least = self.query.since if since is None else max(since, self.period.since)
        return ResultQuery(equal=self.query.equal, since=least, before=before, groups=self.query.groups)


Filtered = Annotated[Filters, Depends()]


@routes.get("/dashboard", include_in_schema=False, openapi_extra=anyone())
async def find_page(request: Request) -> Response:
    """Redirect to the URL with a slash at the end: URLs in the page are relative."""
    choices = urlencode(request.query_params.multi_items())
    return Response(status_code=308, headers={"Location": f"dashboard/?{choices}" if choices else "dashboard/"})


@routes.get("/dashboard/", include_in_schema=False, openapi_extra=anyone())
async def show_page(request: Request) -> Response:
    """The page. A browser without a session is redirected to the login page, which leads back with the same filters."""
    try:
        (await context_of(request).auth.caller(request)).require(Role.VIEWER)
    except ProctorError as fault:
        if fault.code is not Code.UNAUTHENTICATED or "text/html" not in request.headers.get("accept", ""):
            raise
        back = urlencode([("next", "dashboard"), *request.query_params.multi_items()])
        return Response(status_code=303, headers={"Location": f"../login?{back}"})
    text = (files("proctor_api.routes.dashboard") / "assets" / "index.html").read_bytes()
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


@routes.get("/dashboard/assets/{name}", include_in_schema=False, openapi_extra=needs(Role.VIEWER))
async def show_dashboard_asset(request: Request, name: str) -> Response:
    """A script or style sheet. Browsers revalidate it at each visit (ETag). Raises 404."""
    if name not in OWN and name not in BUNDLED:
        raise not_found("file", name)
    asset = _asset(name)
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "ETag": asset.tag,
        "Vary": "Accept-Encoding",
    }
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, media_type=asset.kind, headers={**headers, "Content-Encoding": "gzip"})
    return Response(asset.data, media_type=asset.kind, headers=headers)


@routes.get(
    "/v1/dashboard/options",
    response_model=DashboardOptions,
    summary="List the values of each filter",
    openapi_extra=needs(Role.VIEWER),
)
async def list_options(request: Request) -> Response:
    """The values that occur in results, at most 500 of each filter."""
    caller = caller_of(request)
    found = await Overview(context_of(request).engine).options(caller.actor.groups)
    return json_view(orjson.dumps({"empty": not found["project"], "session": caller.way == "cookie", **found}))


@routes.get(
    "/v1/dashboard/trend",
    response_model=DashboardTrend,
    summary="Show pass rate and duration over time",
    openapi_extra=needs(Role.VIEWER),
)
async def show_trend(
    request: Request,
    filters: Filtered,
    by: Annotated[
        Literal["", "project", "case", "scenario", "installer", "pod", "version"],
        Query(description="One series for each value of this; empty: one series for all"),
    ] = "",
) -> Response:
    """One point for each span of time, from an hour to 30 days long, depending on the period."""
    overview = Overview(context_of(request).engine)
    return json_view(orjson.dumps(await overview.trend(filters.query, filters.period, by or None)))


@routes.get(
    "/v1/dashboard/matrix",
    response_model=DashboardMatrix,
    summary="Show the last verdict of each scenario and test case",
    openapi_extra=needs(Role.VIEWER),
)
async def show_matrix(request: Request, filters: Filtered) -> Response:
    """The last verdict of each pair within the period, and its trust, computed from the last 50 verdicts. Shows the 50
    scenarios and 50 test cases with the most cells.
    """
    return json_view(orjson.dumps(await Overview(context_of(request).engine).matrix(filters.query)))


@routes.get(
    "/v1/dashboard/results",
    response_model=DashboardResults,
    summary="List the results behind a point or a cell",
    openapi_extra=needs(Role.VIEWER),
)
async def list_dashboard_results(
    request: Request,
    filters: Filtered,
    since: Annotated[datetime | None, Query(alias="from", description="Started at this time or later")] = None,
    before: Annotated[datetime | None, Query(alias="to", description="Started before this time")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS, description="Results at most")] = 50,
) -> Response:
    """Results, newest first, without their `details`. 422 for a time without a zone."""
    query = filters.within(*(_aware(name, at) for name, at in (("from", since), ("to", before))))
    return json_view(orjson.dumps(await Overview(context_of(request).engine).results(query, limit)))


def _aware(name: str, at: datetime | None) -> datetime | None:
    """The time. Raises 422 if it has no time zone."""
    if at is not None and at.tzinfo is None:
        raise invalid(f"{name}: a time with a zone is needed, such as 2026-05-28T00:00:00Z", path=f"query.{name}")
    return at


@cache
def _asset(name: str) -> Asset:
    """A file of the page, read once per process."""
    if name in OWN:
        place, kind = files("proctor_api.routes.dashboard") / "assets" / name, OWN[name]
    else:
        place, kind = files("chartkick") / "django" / "static" / "chartkick" / "Chart.bundle.js", BUNDLED[name]
    data = place.read_bytes()
    return Asset(data, gzip.compress(data, 9, mtime=0), kind, f'"{sha256(data).hexdigest()[:32]}"')
