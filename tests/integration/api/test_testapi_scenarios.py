"""Scenarios of the Test API: every part of one added, replaced and removed, and each refusal."""

from copy import deepcopy
from typing import Any

import httpx
import pytest

from support.api_world import Api

SCENARIOS = "/api/v1/scenarios"
ONE = f"{SCENARIOS}/nosdn-nofeature-ha"
SCORE = {"date": "2017-01-01 10:00:00", "score": "11/14"}
PROJECT = {
    "project": "functest",
    "customs": ["healthcheck", "vping_ssh"],
    "scores": [SCORE],
    "trust_indicators": [{"date": "2017-01-01 10:00:00", "status": "silver"}],
}
VERSION = {"owner": "Lucky", "version": "master", "projects": [PROJECT]}
BODY: dict[str, Any] = {
    "name": "nosdn-nofeature-ha",
    "installers": [{"installer": "apex", "versions": [VERSION]}, {"installer": "fuel"}],
}
AT_VERSION = "installer=apex&version=master"
AT_PROJECT = f"{AT_VERSION}&project=functest"


def _awarded(status: str) -> dict[str, Any]:
    """An installer with a project that has a trust indicator."""
    project = {"project": "functest", "trust_indicators": [{"date": "2017-01-01", "status": status}]}
    return {"installer": "apex", "versions": [{"version": "master", "projects": [project]}]}


@pytest.fixture
async def scenario(api: Api) -> Api:
    made = await api.call("POST", SCENARIOS, json=BODY)
    assert made.json() == {"href": f"{api.url}{ONE}"}
    return api


async def installers(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.call("GET", ONE)).json()["installers"]
    return found


async def version(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = (await installers(api))[0]["versions"][0]
    return found


async def ordered(api: Api, method: str, part: str, body: Any) -> httpx.Response:
    return await api.call(method, f"{ONE}/{part}", json=body)


async def done(api: Api, method: str, part: str, body: Any) -> None:
    answer = await ordered(api, method, part, body)
    assert (answer.status_code, answer.content) == (200, b""), answer.text


async def test_a_scenario_from_its_creation_to_its_end(scenario: Api) -> None:
    shown = (await scenario.call("GET", ONE)).json()
    assert len(shown["_id"]) == 24
    assert shown["creation_date"]
    assert shown["creator"] == "first"
    expected = deepcopy(BODY["installers"])
    expected[1]["versions"] = []
    assert shown["installers"] == expected
    assert (await scenario.call("GET", SCENARIOS)).json() == {"scenarios": [shown]}
    renamed = await scenario.call("PUT", ONE, json={"name": "other"})
    assert renamed.json() == {**shown, "name": "other"}
    assert (await scenario.call("GET", ONE)).status_code == 404
    gone = await scenario.call("DELETE", f"{SCENARIOS}/other/")
    assert (gone.status_code, gone.content) == (200, b"")
    assert (await scenario.call("DELETE", f"{SCENARIOS}/other")).status_code == 404


async def test_which_scenarios_a_query_finds(scenario: Api) -> None:
    other = {"name": "odl", "installers": [{"installer": "fuel", "versions": [{"version": "master"}]}]}
    await scenario.call("POST", SCENARIOS, json=other)
    for query, names in {
        "": ["nosdn-nofeature-ha", "odl"],
        "name=odl": ["odl"],
        "installer=apex": ["nosdn-nofeature-ha"],
        "installer=fuel": ["nosdn-nofeature-ha", "odl"],
        "version=master": ["nosdn-nofeature-ha", "odl"],
        "installer=fuel&version=master": ["odl"],
        "project=functest": ["nosdn-nofeature-ha"],
        "project=functest&installer=fuel": [],
        "color=blue": [],
    }.items():
        found = (await scenario.call("GET", f"{SCENARIOS}?{query}")).json()["scenarios"]
        assert [one["name"] for one in found] == names, query


async def test_refusals_of_a_scenario_itself(scenario: Api) -> None:
    for body, status in (
        ({"name": ""}, 400),
        ({}, 400),
        ({"name": None}, 400),
        ([], 400),
        ({"name": "x", "installers": "apex"}, 400),
        ({"name": "x", "installers": [{"versions": []}]}, 400),
        ({"name": "x", "installers": [{"installer": "a"}, {"installer": "a"}]}, 409),
        (BODY, 403),
        ({"name": "x", "installers": [_awarded("bogus")]}, 400),
        ({"name": "x", "unknown": 1, "installers": [{"installer": "a", "more": 1}]}, 200),
    ):
        assert (await scenario.call("POST", SCENARIOS, json=body)).status_code == status, body
    for name, body, status in (
        ("missing", {"name": ""}, 400),
        ("missing", {"name": "y"}, 404),
        (BODY["name"], {"name": BODY["name"]}, 403),
        (BODY["name"], {"name": "x"}, 403),
        (BODY["name"], {"name": "y", "installers": []}, 400),
    ):
        assert (await scenario.call("PUT", f"{SCENARIOS}/{name}", json=body)).status_code == status, (name, body)


async def test_scores_indicators_owner_and_customs(scenario: Api) -> None:
    await done(scenario, "POST", f"scores?{AT_PROJECT}", {"date": "2017-02-01", "score": "14/14"})
    await done(scenario, "POST", f"trust_indicators?{AT_PROJECT}", {"date": "2017-02-01", "status": "gold"})
    await done(scenario, "PUT", f"owner?{AT_VERSION}", {"owner": "new"})
    await done(scenario, "POST", f"customs?{AT_PROJECT}", ["odl", "vping_ssh", "odl"])
    shown = await version(scenario)
    assert shown["owner"] == "new"
    project = shown["projects"][0]
    assert project["scores"] == [SCORE, {"date": "2017-02-01", "score": "14/14"}]
    assert [one["status"] for one in project["trust_indicators"]] == ["silver", "gold"]
    assert project["customs"] == ["healthcheck", "vping_ssh", "odl"]
    await done(scenario, "DELETE", f"customs?{AT_PROJECT}", ["vping_ssh", "unknown"])
    assert (await version(scenario))["projects"][0]["customs"] == ["healthcheck", "odl"]
    await done(scenario, "PUT", f"customs?{AT_PROJECT}", ["a", "b"])
    assert (await version(scenario))["projects"][0]["customs"] == ["a", "b"]


@pytest.mark.parametrize(
    ("part", "key", "old", "read"),
    [
        (f"projects?{AT_VERSION}", "project", "functest", lambda all_: all_[0]["versions"][0]["projects"]),
        ("versions?installer=apex", "version", "master", lambda all_: all_[0]["versions"]),
        ("installers", "installer", "apex", lambda all_: all_),
    ],
)
async def test_parts_are_added_replaced_and_removed(scenario: Api, part: str, key: str, old: str, read: Any) -> None:
    before = [one[key] for one in read(await installers(scenario))]
    await done(scenario, "POST", part, [{key: "new"}])
    assert [one[key] for one in read(await installers(scenario))] == [*before, "new"]
    for method, body, status in (
        ("POST", [{key: old}], 409),
        ("POST", [{key: "twice"}, {key: "twice"}], 409),
        ("PUT", [{key: "twice"}, {key: "twice"}], 409),
        ("POST", [{key: "x", "unknown": None}], 400),
        ("PUT", [{key: "x", "unknown": 1}], 400),
        ("POST", [{}], 400),
        ("POST", {key: "x"}, 400),
        ("DELETE", "x", 400),
        ("DELETE", [1], 400),
    ):
        assert (await ordered(scenario, method, part, body)).status_code == status, (method, body)
    assert [one[key] for one in read(await installers(scenario))] == [*before, "new"]
    await done(scenario, "DELETE", part, ["new", "unknown"])
    assert [one[key] for one in read(await installers(scenario))] == before
    if key != "installer":
        await done(scenario, "PUT", part, [{key: "only"}])
        assert [one[key] for one in read(await installers(scenario))] == ["only"]


async def test_orders_to_what_is_not_there(scenario: Api) -> None:
    for path, status in (
        (f"{ONE}/scores?{AT_VERSION}", 400),
        (f"{ONE}/scores?{AT_VERSION}&project=other", 404),
        (f"{ONE}/scores?installer=apex&version=other&project=functest", 404),
        (f"{ONE}/scores?installer=other&version=master&project=functest", 404),
        (f"{SCENARIOS}/other/scores?{AT_PROJECT}", 404),
    ):
        assert (await scenario.call("POST", path, json=SCORE)).status_code == status, path
    for body, status in (({}, 200), ({"score": 1}, 400), ({"points": "1"}, 400), ([], 400)):
        answer = await ordered(scenario, "POST", f"scores?{AT_PROJECT}", body)
        assert answer.status_code == status, body
    for content in (b"", b"null", b"{", b'["\\u0000"]', b'["\\ud800"]'):
        answer = await scenario.call("DELETE", f"{ONE}/customs?{AT_PROJECT}", content=content)
        assert answer.status_code == 400, content
    for body, status in (({"date": "2017-02-01"}, 200), ({"status": "bogus"}, 400), ({"status": "Gold"}, 400)):
        answer = await ordered(scenario, "POST", f"trust_indicators?{AT_PROJECT}", body)
        assert answer.status_code == status, body
    assert (await ordered(scenario, "PUT", f"owner?{AT_VERSION}", {})).status_code == 400
    assert (await scenario.call("GET", f"{ONE}/scores")).status_code in {404, 405}


async def test_who_may(scenario: Api) -> None:
    viewer = await scenario.token("viewer")
    assert (await scenario.call("GET", ONE, token=viewer)).status_code == 200
    refused = await scenario.call("POST", f"{ONE}/scores?{AT_PROJECT}", token=viewer, json=SCORE)
    assert refused.status_code == 403
    assert (await scenario.http.get(ONE)).status_code == 401
