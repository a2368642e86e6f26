"""The dashboards' figures, case by case as their users know them; odd details never break one."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_api.catalog.dashboard.boards import NAMED, board_of, is_named, status_board
from proctor_api.catalog.dashboard.values import number
from proctor_api.catalog.dashboard.verdicts import LAST, trust_of


def row(details: Any = None, day: int = 1, passed: bool | None = True, seconds: float | None = 60.0) -> dict[str, Any]:
    return {"start_date": f"2016-05-{day:02} 10:00:00", "passed": passed, "seconds": seconds, "details": details}


def drawn(project: str, case: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    board = board_of(project, case)
    for one in rows:
        board.add(one)
    return board.finish()


@pytest.mark.parametrize(
    ("project", "case"),
    [("functest", "vPing"), ("functest", "vPing_userdata"), ("doctor", "doctor-notification")],
)
def test_a_ping_shows_durations_and_how_many_were_ok(project: str, case: str) -> None:
    rows = [row({"duration": 66.1, "status": "OK"}), row({"duration": 70, "status": "KO"}, 2)]
    assert drawn(project, case, *rows) == [
        {"description": f"{case} results for Dashboard"},
        {
            "name": f"{case} duration",
            "info": {"type": "graph", "xlabel": "time", "ylabel": "duration (s)"},
            "data_set": [{"x": "2016-05-01 10:00:00", "y": 66.1}, {"x": "2016-05-02 10:00:00", "y": 70}],
        },
        {"name": f"{case} status", "info": {"type": "bar"}, "data_set": [{"Nb tests": 2, "Nb Success": 1}]},
    ]


def test_tempest_shows_counts_sums_and_rates() -> None:
    rows = [
        row({"duration": 100, "tests": 200, "failures": 50}),
        row({"duration": 90, "tests": 3, "failures": 1}, 2),
        row({"duration": 1, "tests": 0, "failures": 0}, 3),
    ]
    head, duration, counts, sums, rates = drawn("functest", "Tempest", *rows)
    assert head == {"description": "Tempest results for Dashboard"}
    assert duration["name"] == "Tempest duration"
    assert [point["y"] for point in duration["data_set"]] == [100, 90, 1]
    assert counts["name"] == "Tempest nb tests/nb failures"
    assert counts["info"] == {
        "type": "graph",
        "xlabel": "time",
        "y1label": "Number of tests",
        "y2label": "Number of failures",
    }
    assert counts["data_set"][0] == {"x": "2016-05-01 10:00:00", "y1": 200, "y2": 50}
    assert sums == {
        "name": "Total number of tests run/failure tests",
        "info": {"type": "bar"},
        "data_set": [{"Run": 203, "Failed": 51}],
    }
    assert rates["name"] == "Tempest success rate"
    assert "y1label" in rates["info"]
    assert [point["y1"] for point in rates["data_set"]] == [75, pytest.approx(66.67, abs=0.01), 0]


def test_odl_counts_its_tests_and_those_that_failed() -> None:
    tests = [{"test_status": {"@status": status}} for status in ("PASS", "FAIL", "FAIL")]
    _, counts = drawn("functest", "ODL", row({"details": tests}))
    assert counts["name"] == "ODL nb tests/nb failures"
    assert counts["data_set"] == [{"x": "2016-05-01 10:00:00", "y1": 3, "y2": 2}]


def test_rally_reads_the_last_element() -> None:
    details = [{"summary": {"duration": 5, "nb success": 1}}, {"summary": {"duration": 1200, "nb success": "91.43"}}]
    _, duration, success = drawn("functest", "Rally", row(details))
    assert (duration["name"], success["name"]) == ("rally duration", "rally success rate")
    assert duration["data_set"][0]["y"] == 1200
    assert success["data_set"][0]["y"] == 91.43


def test_vims_shows_three_durations_and_three_verdicts() -> None:
    details = {
        "orchestrator": {"duration": 10},
        "vIMS": {"duration": 20},
        "sig_test": {"duration": 30, "result": [{"result": w} for w in ("Passed", "Passed", "Failed", "Skipped")]},
    }
    _, durations, verdicts, sums = drawn("functest", "vIMS", row(details))
    assert durations["name"] == "vIMS orchestrator/VNF/test duration"
    assert durations["data_set"] == [{"x": "2016-05-01 10:00:00", "y1": 10, "y2": 20, "y3": 30}]
    assert verdicts["name"] == "vIMS nb tests passed/failed/skipped"
    assert verdicts["data_set"] == [{"x": "2016-05-01 10:00:00", "y1": 2, "y2": 1, "y3": 1}]
    assert sums["data_set"] == [{"Run": 3, "Failed": 1}]


def test_yardstick_ping_shows_the_mean_trip() -> None:
    good = [{"benchmark": {"data": {"rtt": 0.5}, "errors": ""}}, {"benchmark": {"data": {"rtt": 1.5}, "errors": ""}}]
    bad = [{"runner": 1}, {"benchmark": {"data": {"rtt": 3}, "errors": "no route"}}]
    _, trip, status = drawn("yardstick", "Ping", row(good), row(bad, 2))
    assert (trip["name"], status["name"]) == ("ping duration", "ping status")
    assert [point["y"] for point in trip["data_set"]] == [1.0, 3.0]
    assert status["data_set"] == [{"Nb tests": 2, "Nb Success": 1}]


def test_vsperf_shows_frame_sizes_as_they_were_sent() -> None:
    details = {"64": "26.804", "128": 100.5, "512": 178, "1024": 1097, "1518": 12635}
    _, frames = drawn("vsperf", "tput_ovs", row(details))
    assert frames["name"] == "Rx frames per second"
    assert frames["data_set"] == [
        {"x": "2016-05-01 10:00:00", "y1": "26.804", "y2": 100.5, "y3": 178, "y4": 1097, "y5": 12635}
    ]


def test_any_other_case_shows_its_pass_rate_and_durations() -> None:
    rows = [row(day=1), row(day=2, passed=False, seconds=None), row(day=3, passed=None)]
    head, rate, duration, status = drawn("mine", "boot", *rows)
    assert head == {"description": "boot results for Dashboard"}
    assert rate["name"] == "boot pass rate"
    assert [point["y"] for point in rate["data_set"]] == [100, 50]
    assert [point["x"][8:10] for point in duration["data_set"]] == ["01", "03"]
    assert status["data_set"] == [{"Nb tests": 3, "Nb Success": 1}]


def test_what_is_no_number_makes_no_point() -> None:
    odd: list[object] = [True, None, "long", [1], {}, 10**400, "1e999", float("nan")]
    _, duration, status = drawn("functest", "vPing", *(row({"duration": value, "status": "OK"}) for value in odd))
    assert duration["data_set"] == []
    assert status["data_set"] == [{"Nb tests": len(odd), "Nb Success": len(odd)}]


def test_nothing_in_range_leaves_the_figures_empty() -> None:
    for project, case in NAMED:
        _, *figures = drawn(project, case)
        assert figures
        assert all(figure["data_set"] == [] for figure in figures)


def test_which_cases_have_a_board_of_their_own() -> None:
    assert is_named("functest", "Tempest")
    assert is_named("vsperf", "pvvp_b2b_ovsvirtio")
    assert not is_named("functest", "tempest")
    assert not is_named("mine", "vPing")


def test_the_status_names_every_case() -> None:
    assert status_board([("vPing", 3, 2)]) == [
        {"description": "Functest status"},
        {"name": "vPing status", "info": {"type": "bar"}, "data_set": [{"Nb tests": 3, "Nb Success": 2}]},
    ]


WORDS = (
    "details,duration,status,tests,failures,summary,nb success,orchestrator,vIMS,sig_test,result,benchmark,data,rtt,"
    "errors,test_status,@status,64,1518,"
)
NAMES = st.sampled_from(WORDS.split(","))
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | st.text(max_size=5)
    | st.sampled_from(["OK", "FAIL", "Passed", "1e999", "nan", "12", "\u0663"])
)  # fmt: skip
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)


@given(
    rows=st.lists(JSON, max_size=4), start=st.none() | st.just("") | st.just("2016"), passed=st.none() | st.booleans()
)
def test_odd_details_never_break_a_board(rows: list[Any], start: str | None, passed: bool | None) -> None:
    for project, case in [*NAMED, ("vsperf", "tput_ovs"), ("mine", "boot")]:
        board = board_of(project, case)
        for details in rows:
            board.add({"start_date": start, "passed": passed, "seconds": None, "details": details})
        figures = board.finish()
        for figure in figures[1:]:
            for point in figure["data_set"]:
                values = [value for name, value in point.items() if name != "x"]
                assert all(number(value) is not None for value in values), (project, case, point)
        orjson.dumps(figures)


@given(known=st.integers(0, LAST), part=st.floats(0, 1))
def test_trust_grows_with_passes_and_never_beyond_their_share(known: int, part: float) -> None:
    passed = round(known * part)
    trust = trust_of(passed, known)
    if known == 0:
        assert trust is None
        return
    assert trust is not None
    assert 0 <= trust.value <= passed / known + 1e-4
    more = trust_of(passed + 1, known + 1)
    assert more is not None
    assert more.value >= trust.value
    assert math.isfinite(trust.value)


def test_trust_in_known_cases() -> None:
    values = [trust.value for trust in map(trust_of, (1, 10, 50, 0), (1, 10, 50, 10)) if trust is not None]
    assert values == [0.2065, 0.7225, 0.9286, 0.0]
