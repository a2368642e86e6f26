"""``/dashboard/v1`` over stored results: which projects and cases it shows, and out of what."""

from typing import Any

import pytest

from proctor_api.catalog.dashboard import readings
from support.api_world import Api

PROJECTS = ["functest", "yardstick", "vsperf", "bottlenecks", "qtip", "promise", "doctor"]


async def store(api: Api, project: str, case: str, *results: dict[str, Any], token: str | None = None) -> None:
    """Results, and what they refer to."""
    await api.call("POST", "/api/v1/pods", json={"name": "lab"})
    await api.call("POST", "/api/v1/projects", json={"name": project})
    await api.call("POST", f"/api/v1/projects/{project}/cases", json={"name": case})
    for result in results:
        body = {"pod_name": "lab", "project_name": project, "case_name": case, **result}
        given = {} if token is None else {"token": token}
        answer = await api.call("POST", "/api/v1/results", json=body, **given)
        assert answer.status_code == 200, answer.text


async def board(api: Api, query: str) -> list[dict[str, Any]]:
    answer = await api.call("GET", f"/dashboard/v1/results?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def test_which_are_dashboard_ready(api: Api) -> None:
    assert (await api.call("GET", "/dashboard/v1/projects")).json() == PROJECTS
    await store(api, "mine", "boot")
    for query, word in (
        ("", "project"),
        ("case=vPing", "project"),
        ("project=mine&case=boot", "mine"),
        ("project=functest", "case"),
        ("project=functest&case=unknown", "unknown"),
    ):
        refused = await api.call("GET", f"/dashboard/v1/results?{query}")
        assert refused.status_code == 404, query
        assert word in refused.json()["message"]
    assert (await api.call("GET", "/dashboard/v1/results?project=functest&case=vPing&period=x")).status_code == 400
    await store(api, "mine", "boot", {"criteria": "PASS"})
    assert (await api.call("GET", "/dashboard/v1/projects")).json() == [*PROJECTS, "mine"]
    assert (await board(api, "project=mine&case=boot"))[0] == {"description": "boot results for Dashboard"}


async def test_a_board_is_made_of_what_the_query_finds_oldest_first(api: Api) -> None:
    def ping(day: int, duration: Any, status: str, **more: Any) -> dict[str, Any]:
        return {"start_date": f"2016-05-{day:02} 10:00:00", "details": {"duration": duration, "status": status}, **more}

    odd = {"start_date": "2016-05-04T10:00:00Z", "details": [1, None], "installer": "fuel"}
    results = [ping(3, 3, "KO", installer="fuel"), ping(1, 1.5, "OK", installer="apex"), ping(2, 2, "OK"), odd]
    await store(api, "functest", "vPing", *results)
    head, graph, bar = await board(api, "project=functest&case=vPing")
    assert head == {"description": "vPing results for Dashboard"}
    assert graph["data_set"] == [{"x": f"2016-05-0{day} 10:00:00", "y": y} for day, y in ((1, 1.5), (2, 2), (3, 3))]
    assert bar["data_set"] == [{"Nb tests": 4, "Nb Success": 2}]
    _, graph, bar = await board(api, "project=functest&case=vPing&installer=fuel")
    assert ([point["y"] for point in graph["data_set"]], bar["data_set"]) == ([3], [{"Nb tests": 2, "Nb Success": 0}])
    _, graph, bar = await board(api, "project=functest&case=vPing&period=7")
    assert (graph["data_set"], bar["data_set"]) == ([], [])
    assert bar["info"] == {"type": "bar"}
    _, graph, _ = await board(api, "project=functest&case=vPing&last=2")
    assert [point["y"] for point in graph["data_set"]] == [3]


async def test_any_case_and_the_status_of_functest(api: Api) -> None:
    times = {"start_date": "2016-05-01 10:00:00", "stop_date": "2016-05-01 10:01:30.5"}
    await store(api, "mine", "boot", {**times, "criteria": "pass"}, {"criteria": "FAILED"}, {"criteria": "odd"})
    _, _, duration, status = await board(api, "project=mine&case=boot")
    assert duration["data_set"] == [{"x": "2016-05-01 10:00:00", "y": 90.5}]
    assert status["data_set"] == [{"Nb tests": 3, "Nb Success": 1}]
    assert await board(api, "project=functest&case=status") == [{"description": "Functest status"}]
    await store(api, "functest", "vPing", {"criteria": "PASS"}, {"criteria": "FAIL"})
    head, *figures = await board(api, "project=functest&case=status")
    assert head == {"description": "Functest status"}
    assert figures == [
        {"name": "vPing status", "info": {"type": "bar"}, "data_set": [{"Nb tests": 2, "Nb Success": 1}]}
    ]


async def test_a_board_is_bounded_and_passes_over_huge_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "MOST_RESULTS", 3)
    monkeypatch.setattr(readings, "LARGEST_DETAILS", 1000)
    rows = [{"start_date": f"2016-05-0{day}", "details": {"duration": day, "status": "OK"}} for day in range(1, 6)]
    rows.append({"start_date": "2016-05-06", "details": {"duration": 6, "status": "OK", "more": "x" * 2000}})
    await store(api, "functest", "vPing", *rows)
    _, graph, bar = await board(api, "project=functest&case=vPing")
    assert [point["y"] for point in graph["data_set"]] == [4, 5]
    assert bar["data_set"] == [{"Nb tests": 3, "Nb Success": 2}]


async def test_a_token_of_a_group_sees_its_own(api: Api) -> None:
    api.world.groups.update({"mine", "other"})
    mine, other = await api.token("runner", ["mine"]), await api.token("viewer", ["other"])
    await store(api, "secret", "boot", {"criteria": "PASS"}, token=mine)
    assert "secret" in (await api.call("GET", "/dashboard/v1/projects", token=mine)).json()
    assert "secret" not in (await api.call("GET", "/dashboard/v1/projects", token=other)).json()
    query = "/dashboard/v1/results?project=secret&case=boot"
    assert (await api.call("GET", query, token=mine)).status_code == 200
    assert (await api.call("GET", query, token=other)).status_code == 404
    assert (await api.http.get(query)).status_code == 401
