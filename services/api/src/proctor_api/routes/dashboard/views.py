"""What the page of results is told, for the OpenAPI document."""

from pydantic import BaseModel, Field


class DashboardOptions(BaseModel):
    """The values of each filter, at most 500 of each."""

    empty: bool = Field(description="There is no result at all")
    session: bool = Field(description="The caller is a browser with a session that can be ended")
    project: list[str]
    case: list[str]
    scenario: list[str]
    installer: list[str]
    pod: list[str]
    version: list[str]


class TrendSum(BaseModel):
    """Figures of a set of results; what has no verdict is in ``runs`` alone. ``seconds``: the median duration."""

    runs: int
    passed: int
    failed: int
    seconds: float | None


class TrendPoint(TrendSum):
    """Those that started within a bucket."""

    at: str = Field(examples=["2026-05-28T00:00:00Z"])


class TrendTotal(TrendSum):
    """All of them."""

    newest: str | None


class TrendSeries(BaseModel):
    """The points of one value of ``by``; its name is null where nothing groups."""

    name: str | None
    points: list[TrendPoint]


class DashboardTrend(BaseModel):
    """Figures over time, of the newest 50,000 results at most (``truncated``), in eight series at most."""

    since: str = Field(alias="from")
    to: str
    bucket_seconds: int
    by: str | None
    sum: TrendTotal
    series: list[TrendSeries]
    left_off: int = Field(description="Series with fewer results that are not shown")
    truncated: bool


class MatrixTrust(BaseModel):
    """The lower bound of Wilson's interval, of ``passed`` among ``known`` verdicts."""

    value: float = Field(ge=0, le=1)
    passed: int
    known: int


class MatrixCell(BaseModel):
    """The last result of a case on a scenario."""

    project: str
    case: str
    scenario: str
    passed: bool | None
    at: str
    result: str
    trust_sent: float = Field(description="The number that the last result's client gave")
    trust: MatrixTrust | None


class MatrixCase(BaseModel):
    """A column."""

    project: str
    case: str


class DashboardMatrix(BaseModel):
    """Scenario by test case, 50 of each at most; a pair that is not in ``cells`` never ran."""

    looked_back: int
    scenarios: list[str]
    cases: list[MatrixCase]
    cells: list[MatrixCell]
    truncated: bool


class DashboardResult(BaseModel):
    """A result and the way to its run: ``run``, ``step`` and ``attempt`` where it was recorded."""

    id: str
    project: str
    case: str
    scenario: str | None
    installer: str | None
    pod: str
    version: str | None
    criteria: str | None
    passed: bool | None
    start_date: str | None
    at: str | None
    seconds: float | None
    trust_sent: float
    run: str | None
    step: str | None
    attempt: int | None


class DashboardResults(BaseModel):
    """Newest first; ``more``: there are older ones."""

    items: list[DashboardResult]
    more: bool
