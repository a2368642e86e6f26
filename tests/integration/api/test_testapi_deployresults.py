"""Deployment results of the Test API."""

from typing import Any

import pytest

from support.api_world import Api

PATH = "/api/v1/deployresults"
BODY: dict[str, Any] = {
    "installer": "daisy",
    "version": "master",
    "pod_name": "lab",
    "job_name": "daisy-daily",
    "build_id": 108,
    "scenario": "os-nosdn",
    "upstream_job_name": "daisy-build",
    "upstream_build_id": 96,
    "criteria": "PASS",
    "start_date": "2017-09-28 14:41:58",
    "stop_date": "2017-09-28 15:12:07",
    "details": {"a.b": [1, {"$c": None}]},
}


@pytest.fixture
async def lab(api: Api) -> Api:
    assert (await api.call("POST", "/api/v1/pods", json={"name": "lab"})).status_code == 200
    return api


async def test_one_is_kept_as_it_was_sent(lab: Api) -> None:
    href = (await lab.call("POST", PATH, json={**BODY, "unknown": 1})).json()["href"]
    shown = (await lab.call("GET", href.removeprefix(lab.url))).json()
    assert shown == {"_id": href.rpartition("/")[2], **BODY}
    page = {"current_page": 1, "total_pages": 1}
    assert (await lab.call("GET", PATH)).json() == {"deployresults": [shown], "pagination": page}
    assert (await lab.call("GET", f"{PATH}?page=1")).json() == {"deployresults": [shown], "pagination": page}
    for unknown in ("0" * 24, "nonsense"):
        assert (await lab.call("GET", f"{PATH}/{unknown}")).status_code == 404
    assert (await lab.call("DELETE", "/api/v1/pods/lab")).status_code == 401


async def test_refusals(lab: Api) -> None:
    for change, status in (
        ({"pod_name": None}, 400),
        ({"installer": ""}, 400),
        ({"scenario": None}, 400),
        ({"scenario": ["x"]}, 400),
        ({"pod_name": "unknown"}, 404),
        ({"build_id": "109", "upstream_build_id": None}, 200),
    ):
        assert (await lab.call("POST", PATH, json={**BODY, **change})).status_code == status, change
    for content in (b"", b"null", b"[]", b"{"):
        assert (await lab.call("POST", PATH, content=content)).status_code == 400
    assert (await lab.call("DELETE", PATH)).status_code == 405
    found = (await lab.call("GET", PATH)).json()["deployresults"]
    assert [one["build_id"] for one in found] == [109]


async def test_queries_and_pages(lab: Api) -> None:
    for number in range(120):
        day = f"2017-09-{1 + number // 10:02} 10:00:{number % 10:02}"
        scenario = "even" if number % 2 == 0 else "odd"
        body = {**BODY, "build_id": number, "scenario": scenario, "start_date": day}
        assert (await lab.call("POST", PATH, json=body)).status_code == 200

    async def builds(query: str) -> list[int]:
        answer = await lab.call("GET", f"{PATH}?{query}")
        assert answer.status_code == 200, answer.text
        return [one["build_id"] for one in answer.json()["deployresults"]]

    assert await builds("") == list(range(119, -1, -1))
    assert await builds("descend=false&last=101") == list(range(101))
    assert await builds("scenario=odd&last=3") == [119, 117, 115]
    assert await builds("build_id=7&pod=lab&installer=daisy") == [7]
    assert await builds("from=2017-09-02&to=2017-09-03&descend=false") == list(range(10, 20))
    assert await builds("period=30") == []
    assert await builds("colour=blue") == []
    assert await builds("from=soon&build_id=7") == []
    assert await builds("page=6") == list(range(19, -1, -1))
    assert (await lab.call("GET", f"{PATH}?page=1&last=30")).json()["pagination"]["total_pages"] == 2
    for query in ("page=7", "page=x", "last=x", "period=x"):
        assert (await lab.call("GET", f"{PATH}?{query}")).status_code == 400, query
