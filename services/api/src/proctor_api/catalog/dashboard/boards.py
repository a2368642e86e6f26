"""The figures of each test case: those of OPNFV's dashboards, and general ones for all others."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from proctor_api.catalog.dashboard.figures import BarFigure, Board, Figure, Graph, Point, Row
from proctor_api.catalog.dashboard.values import Number, dig, mean, members, number, objects, plain

PROJECTS = ("functest", "yardstick", "vsperf", "bottlenecks", "qtip", "promise", "doctor")
"""Projects that always have a dashboard; others have one once they have results."""
STATUS = ("functest", "status")
SECONDS = "duration (s)"
RUN_AND_FAILED = "Total number of tests run/failure tests"
FRAME_SIZES = ("64", "128", "512", "1024", "1518")
WINDOW = 20
"""The number of last results in the general pass rate."""


def board_of(project: str, case: str) -> Board:
    """The empty board of a test case."""
    make = NAMED.get((project, case))
    if make is None:
        make = _frames if project == "vsperf" else _general
    return Board(f"{case} results for Dashboard", make(case), reads_details=make is not _general)


def is_named(project: str, case: str) -> bool:
    """Whether the test case has a board of its own, even without results."""
    return (project, case) in NAMED or (project == "vsperf" and case in VSPERF)


def _ping(case: str) -> Sequence[Figure]:
    """vPing, vPing_userdata, doctor-notification."""
    return (
        Graph(f"{case} duration", [SECONDS], lambda row: [plain(dig(row["details"], "duration"))]),
        BarFigure(
            f"{case} status",
            ["Nb tests", "Nb Success"],
            lambda row: [1, int(dig(row["details"], "status") == "OK")],
        ),
    )


def _tempest(_: str) -> Sequence[Figure]:
    def rate(row: Row) -> Point:
        run, failed = number(dig(row["details"], "tests")), number(dig(row["details"], "failures"))
        if run is None or failed is None:
            return None
        return [number(100 * (run - failed) / run) if run > 0 else 0]

    def counts(row: Row) -> list[Number]:
        return [number(dig(row["details"], name)) or 0 for name in ("tests", "failures")]

    return (
        Graph("Tempest duration", [SECONDS], lambda row: [plain(dig(row["details"], "duration"))]),
        Graph(
            "Tempest nb tests/nb failures",
            ["Number of tests", "Number of failures"],
            lambda row: [plain(dig(row["details"], name)) for name in ("tests", "failures")],
        ),
        BarFigure(RUN_AND_FAILED, ["Run", "Failed"], counts),
        Graph("Tempest success rate", ["Success rate"], rate, numbered=True),
    )


def _odl(_: str) -> Sequence[Figure]:
    def counts(row: Row) -> Point:
        tests = dig(row["details"], "details")
        if not isinstance(tests, list):
            return None
        return [len(tests), sum(dig(test, "test_status", "@status") == "FAIL" for test in tests)]

    return (Graph("ODL nb tests/nb failures", ["Number of tests", "Number of failures"], counts),)


def _rally(_: str) -> Sequence[Figure]:
    def last(row: Row, name: str) -> Number | None:
        parts = members(row["details"])
        return number(dig(parts[-1], "summary", name)) if parts else None

    return (
        Graph("rally duration", [SECONDS], lambda row: [last(row, "duration")]),
        Graph("rally success rate", ["success rate (%)"], lambda row: [last(row, "nb success")]),
    )


def _vims(_: str) -> Sequence[Figure]:
    def durations(row: Row) -> Point:
        return [plain(dig(row["details"], part, "duration")) for part in ("orchestrator", "vIMS", "sig_test")]

    def verdicts(row: Row) -> list[int] | None:
        tests = dig(row["details"], "sig_test", "result")
        if not isinstance(tests, list):
            return None
        words = [test.get("result") for test in objects(tests)]
        return [words.count(word) for word in ("Passed", "Failed", "Skipped")]

    def totals(row: Row) -> list[Number]:
        passed, failed, _ = verdicts(row) or [0, 0, 0]
        return [passed + failed, failed]

    return (
        Graph(
            "vIMS orchestrator/VNF/test duration",
            ["orchestrator deployment duration", "vIMS deployment duration", "vIMS test duration"],
            durations,
        ),
        Graph(
            "vIMS nb tests passed/failed/skipped",
            ["Number of tests passed", "Number of tests failed", "Number of tests skipped"],
            verdicts,
        ),
        BarFigure(RUN_AND_FAILED, ["Run", "Failed"], totals),
    )


def _yardstick_ping(_: str) -> Sequence[Figure]:
    def benchmarks(row: Row) -> list[object]:
        return [record["benchmark"] for record in objects(row["details"]) if "benchmark" in record]

    def trip(row: Row) -> Point:
        times = (number(dig(benchmark, "data", "rtt")) for benchmark in benchmarks(row))
        return [mean([time for time in times if time is not None])]

    def status(row: Row) -> list[Number]:
        return [1, int(not any(dig(benchmark, "errors") for benchmark in benchmarks(row)))]

    return (
        Graph("ping duration", [SECONDS], trip),
        BarFigure("ping status", ["Nb tests", "Nb Success"], status),
    )


def _frames(_: str) -> Sequence[Figure]:
    return (
        Graph(
            "Rx frames per second",
            [f"frame size {size}B" for size in FRAME_SIZES],
            lambda row: [plain(dig(row["details"], size)) for size in FRAME_SIZES],
        ),
    )


def _general(case: str) -> Sequence[Figure]:
    """Pass rate, duration and status, which need no ``details``."""
    verdicts: deque[bool] = deque(maxlen=WINDOW)

    def rate(row: Row) -> Point:
        if row["passed"] is None:
            return None
        verdicts.append(row["passed"])
        return [round(100 * sum(verdicts) / len(verdicts), 2)]

    return (
        Graph(f"{case} pass rate", [f"pass rate of the last {WINDOW} (%)"], rate),
        Graph(f"{case} duration", [SECONDS], lambda row: [row["seconds"]]),
        BarFigure(f"{case} status", ["Nb tests", "Nb Success"], lambda row: [1, int(row["passed"] is True)]),
    )


NAMED: dict[tuple[str, str], Callable[[str], Sequence[Figure]]] = {
    ("functest", "vPing"): _ping,
    ("functest", "vPing_userdata"): _ping,
    ("functest", "Tempest"): _tempest,
    ("functest", "ODL"): _odl,
    ("functest", "Rally"): _rally,
    ("functest", "vIMS"): _vims,
    ("yardstick", "Ping"): _yardstick_ping,
    ("doctor", "doctor-notification"): _ping,
}
_TRAFFIC = ("ovsdpdkuser", "ovsdpdkcuse", "ovsvirtio")
VSPERF = frozenset(
    [
        f"{test}_{switch}"
        for test in ("tput", "b2b", "tput_mod_vlan", "cont", "scalability", "cpu_load", "mem_load")
        for switch in ("ovsdpdk", "ovs")
    ]
    + [f"{path}_{test}_{switch}" for path in ("pvp", "pvvp") for test in ("tput", "b2b", "cont") for switch in _TRAFFIC]
)


def status_board(counts: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """A bar of results and passes for each test case of functest, from (case, results, passed)."""
    status: list[dict[str, Any]] = [{"description": "Functest status"}]
    for case, run, passed in counts:
        sums = [{"Nb tests": run, "Nb Success": passed}]
        status.append({"name": f"{case} status", "info": {"type": "bar"}, "data_set": sums})
    return status
