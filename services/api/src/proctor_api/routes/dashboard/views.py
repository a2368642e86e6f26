"""The answers that the results page reads, for the OpenAPI document only: routes encode them from rows.

The docstring under a field is its description in the OpenAPI document.
"""

from pydantic import Field

from proctor_common.messages.views import View


class DashboardOptions(View):
    """The values of each filter, at most 500 of each."""

    empty: bool = Field(description="Whether there is no result at all")
    session: bool = Field(description="Whether the caller is a browser that can log out")
    project: list[str]
    case: list[str]
    scenario: list[str]
    installer: list[str]
    pod: list[str]
    version: list[str]


class TrendSum(View):
    """Figures of a set of results."""

    runs: int
    """The number of results, with those that have no verdict."""
    passed: int
    failed: int
    seconds: float | None
    """The median duration; null if no result has one."""


class TrendPoint(TrendSum):
    """Figures of the results that started within one span of time."""

    at: str = Field(examples=["2026-05-28T00:00:00Z"])
    """The start of the span."""


class TrendTotal(TrendSum):
    """Figures of all results."""

    newest: str | None
    """When the newest one started; null if there is none."""


class TrendSeries(View):
    """The points of one series."""

    name: str | None
    """The value of `by` that it stands for; null without `by`."""
    points: list[TrendPoint]


class DashboardTrend(View):
    """Figures over time, in at most eight series."""

    since: str = Field(alias="from")
    to: str
    bucket_seconds: int
    by: str | None
    sum: TrendTotal
    series: list[TrendSeries]
    left_off: int
    """The number of series with fewer results, which are not shown."""
    truncated: bool
    """Whether there are more than 50,000 results: only the newest are counted."""


class MatrixTrust(View):
    """The share of passes that is certain with a confidence of 95 % (lower bound of Wilson's score interval)."""

    value: float = Field(ge=0, le=1)
    passed: int
    known: int
    """The number of verdicts that it was computed from."""


class MatrixCell(View):
    """The last result of a test case on a scenario."""

    project: str
    case: str
    scenario: str
    passed: bool | None
    """Null if its criteria are neither pass nor fail."""
    at: str
    result: str
    """The id of that result."""
    trust_sent: float
    """The `trust_indicator` that the client sent with that result."""
    trust: MatrixTrust | None
    """Null if there is no verdict."""


class MatrixCase(View):
    """A column of the matrix."""

    project: str
    case: str


class DashboardMatrix(View):
    """Scenarios by test cases, at most 50 of each. A pair without a cell has no result."""

    looked_back: int
    """How many of the last verdicts trust is computed from."""
    scenarios: list[str]
    cases: list[MatrixCase]
    cells: list[MatrixCell]
    truncated: bool
    """Whether there are cells that are not shown."""


class DashboardResult(View):
    """A result without its details."""

    id: str
    project: str
    case: str
    scenario: str | None
    installer: str | None
    pod: str
    version: str | None
    criteria: str | None
    passed: bool | None
    """Null if `criteria` is neither pass nor fail."""
    start_date: str | None
    """The start as the client sent it."""
    at: str | None
    """The start in UTC; null if `start_date` is missing or no date."""
    seconds: float | None
    """The duration; null if a date is missing, or the stop is before the start."""
    trust_sent: float
    """The `trust_indicator` that the client sent."""
    run: str | None
    """The id of the run that recorded it; null if a client sent it. The same goes for `step` and `attempt`."""
    step: str | None
    attempt: int | None


class DashboardResults(View):
    """Results, newest first."""

    items: list[DashboardResult]
    more: bool
    """Whether there are older ones."""
