"""Results of the Test API: what is stored of them, what is refused, and every query."""

import gc
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proctor_api.catalog.sent import read_json
from proctor_api.routes.testapi import base
from support.api_world import Api

RESULTS = "/api/v1/results"
BODY = {
    "project_name": "functest",
    "case_name": "vPing",
    "pod_name": "lab",
    "installer": "fuel",
    "version": "Colorado",
    "scenario": "odl-l2",
    "build_tag": "jenkins-108",
    "criteria": "PASS",
    "trust_indicator": 0.5,
    "start_date": "2016-05-28T14:41:58.384Z",
    "stop_date": "2016-05-28 14:42:58",
    "details": {"z.x": {"$set": [1, 2.5, None, "é"]}, "a": 12345678901234567890123},
}


@pytest.fixture
async def declared(api: Api) -> Api:
    """An api with a pod, a project and two test cases."""
    for path, name in (("pods", "lab"), ("pods", "lab2"), ("projects", "functest"), ("projects", "yardstick")):
        await api.call("POST", f"/api/v1/{path}", json={"name": name})
    for project, name in (("functest", "vPing"), ("functest", "Tempest"), ("yardstick", "Ping")):
        await api.call("POST", f"/api/v1/projects/{project}/cases", json={"name": name})
    return api


async def push(api: Api, **changes: Any) -> str:
    """Its ``_id``."""
    answer = await api.call("POST", RESULTS, json={**BODY, **changes})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["href"].rpartition("/")[2])


async def query(api: Api, **params: Any) -> list[str]:
    """The build tags of what a query finds."""
    answer = await api.call("GET", RESULTS, params=params)
    assert answer.status_code == 200, answer.text
    return [result["build_tag"] for result in answer.json()["results"]]


async def test_a_result_comes_back_as_it_was_sent(declared: Api) -> None:
    answer = await declared.call("POST", RESULTS, json={**BODY, "unknown": 1, "_id": "mine", "creation_date": "x"})
    href = answer.json()["href"]
    id_ = href.rpartition("/")[2]
    assert href == f"{declared.url}{RESULTS}/{id_}"
    found = await declared.call("GET", f"{RESULTS}/{id_}")
    assert found.json() == {"_id": id_, **BODY}
    assert '"details":{"z.x":{"$set":[1,2.5,null,"é"]},"a":12345678901234567890123}' in found.text
    listed = (await declared.call("GET", RESULTS)).json()
    assert listed == {"results": [found.json()], "pagination": {"current_page": 1, "total_pages": 1}}


async def test_the_same_result_twice_makes_two(declared: Api) -> None:
    assert await push(declared) != await push(declared)
    assert len(await query(declared)) == 2


async def test_what_a_client_leaves_out(declared: Api) -> None:
    names = {key: BODY[key] for key in ("project_name", "case_name", "pod_name")}
    id_ = (await declared.call("POST", RESULTS, json=names)).json()["href"][-24:]
    rest = {key: None for key in BODY if key not in names}
    found = (await declared.call("GET", f"{RESULTS}/{id_}")).json()
    assert found == {"_id": id_, **names, **rest, "trust_indicator": 0}


async def test_trust_stands_between_0_and_1(declared: Api) -> None:
    for given, kept in ((-1, 0), (0.25, 0.25), (7, 1), (None, 0), (1e308, 1)):
        id_ = await push(declared, trust_indicator=given)
        assert (await declared.call("GET", f"{RESULTS}/{id_}")).json()["trust_indicator"] == kept


async def test_what_is_unknown_is_404(declared: Api) -> None:
    for key, value in (("pod_name", "x1"), ("project_name", "x2"), ("case_name", "x3"), ("case_name", "Ping")):
        answer = await declared.call("POST", RESULTS, json={**BODY, key: value})
        assert answer.status_code == 404, answer.text
        assert value in answer.json()["message"]
    for wrong in ("0" * 24, "x", "57" * 13, "A" * 24):
        assert (await declared.call("GET", f"{RESULTS}/{wrong}")).status_code == 404


def body(**changes: Any) -> bytes:
    return json.dumps({**BODY, **changes}).encode()


HOSTILE: dict[str, bytes] = {
    "no body": b"",
    "null": b"null",
    "no JSON": b"{",
    "an array": b"[]",
    "a text": b'"x"',
    "no pod": body(pod_name=None),
    "an empty project": body(project_name=""),
    "a pod that is a list": body(pod_name=["lab"]),
    "a pod that is true": body(pod_name=True),
    "no case": json.dumps({k: v for k, v in BODY.items() if k != "case_name"}).encode(),
    "a NUL in a pod": body(pod_name="a\0"),
    "an integer of many digits": body(details="X").replace(b'"X"', b"9" * 5000),
    "depth 101": body(details="X").replace(b'"X"', b"[" * 101 + b"]" * 101),
    "depth 10,000": body(details="X").replace(b'"X"', b"[" * 10_000 + b"]" * 10_000),
    "depth 10,000 of objects": body(details="X").replace(b'"X"', b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "invalid UTF-8": body(details="X").replace(b'"X"', b'"\xff"'),
}


async def test_bad_input_is_400_and_nothing_is_stored(declared: Api) -> None:
    for name, content in HOSTILE.items():
        answer = await declared.call("POST", RESULTS, content=content)
        assert answer.status_code == 400, f"{name}: {answer.text}"
        assert answer.json()["message"], name
    assert await query(declared) == []


async def test_a_large_body_is_looked_through_beside_the_others(declared: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def noted(raw: bytes, dropped: Any) -> Any:
        threads.append(threading.current_thread())
        return read_json(raw, dropped)

    monkeypatch.setattr(base, "read_json", noted)
    large = body(details="X").replace(b'"X"', b"[" + b"[]," * 100_000 + b"1,]")
    assert (await declared.call("POST", RESULTS, content=large)).status_code == 400
    assert len(await push(declared, details=["x" * 1000] * 1000)) == 24
    assert len(await push(declared)) == 24
    beside = [thread is not threading.current_thread() for thread in threads]
    assert beside == [True, True, False]
    assert gc.isenabled()


async def test_a_body_over_the_limit_is_413(start_api: Any) -> None:
    api: Api = await start_api(result_limit=4096)
    answer = await api.call("POST", RESULTS, content=body(details="x" * 5000))
    assert (answer.status_code, answer.json()["code"]) == (413, 413)


async def test_every_field_filters(declared: Api) -> None:
    mine = await push(declared, build_tag="mine")
    other = {"pod_name": "lab2", "project_name": "yardstick", "case_name": "Ping", "installer": "apex", "version": "D"}
    more = {"scenario": "os", "criteria": "FAIL", "trust_indicator": 0.75, "start_date": "x", "stop_date": "y"}
    await push(declared, **other, **more, build_tag="other", details="words")
    for key, value in BODY.items():
        if key not in {"details", "build_tag"}:
            assert await query(declared, **{key: value}) == ["mine"], key
    for key, value in {**other, **more, "details": "words", "build_tag": "other"}.items():
        assert await query(declared, **{key: value}) == ["other"], key
    assert await query(declared, project="functest", case="vPing", pod="lab") == ["mine"]
    assert await query(declared, project="functest", pod="lab2") == []
    assert await query(declared, case_name="Ping", case="Ping", trust_indicator="0.75") == ["other"]
    assert await query(declared, _id=mine) == ["mine"]
    for key, value in (("nobody", "1"), ("trust_indicator", "x"), ("details.a", "1"), ("criteria", "pass")):
        assert await query(declared, **{key: value}) == [], key
    assert await query(declared, installer="' OR true --") == []


async def test_dates_in_every_spelling_are_put_in_order(start_api: Any, declared: Api) -> None:
    dates = {
        "a": "2016-05-28 10:00:00",
        "b": "2016-05-28T10:30:00.5Z",
        "c": "2016-05-28 11:00:00.123456",
        "d": "2016-05-28T13:30:00+02:00",
        "e": "2016-05-29",
    }
    for tag, date in [*dates.items(), ("none", None), ("odd", "yesterday"), ("blank", "")]:
        await push(declared, build_tag=tag, start_date=date)
    assert (await query(declared))[:5] == list("edcba")
    assert (await query(declared, descend="false"))[3:] == list("abcde")
    assert await query(declared, last=2) == ["e", "d"]
    assert len(await query(declared, last=0)) == 8
    assert await query(declared, **{"from": "2016-05-28 10:30:00", "to": "2016-05-29"}) == ["d", "c", "b"]
    assert await query(declared, to="2016-05-28T11:30:00Z", descend="false") == ["a", "b", "c"]
    assert await query(declared, **{"from": "2016-05-28T13:30:00 02:00"}) == ["e", "d"]
    assert (await declared.call("GET", f"{RESULTS}?start_date=yesterday")).json()["results"][0]["build_tag"] == "odd"
    for wrong in ("soon", "2016-13-01", ""):
        assert await query(declared, **{"from": wrong}) == await query(declared, to=wrong, last=3) == []
    berlin: Api = await start_api(timezone="Europe/Berlin")
    assert await query(berlin, **{"from": "2016-05-28 13:00:00", "to": "2016-05-28 14:00:00"}) == ["d", "c"]


async def test_period_counts_days_and_knows_no_dates_that_do_not_parse(declared: Api) -> None:
    now = datetime.now(UTC)
    for tag, days in (("new", 0.5), ("week", 6.5), ("old", 40)):
        await push(declared, build_tag=tag, start_date=f"{now - timedelta(days=days):%Y-%m-%d %H:%M:%S}")
    for tag, date in (("none", None), ("odd", "0000-00-00")):
        await push(declared, build_tag=tag, start_date=date)
    assert await query(declared, period=1) == ["new"]
    assert await query(declared, period=7) == ["new", "week"]
    assert await query(declared, period=7, last=1) == ["new"]
    assert await query(declared, period=9999999999) == ["new", "week", "old"]
    assert len(await query(declared, period=0)) == 5


async def test_numbers_in_a_query_must_be_numbers(declared: Api) -> None:
    for key in ("period", "last", "page"):
        for wrong in ("x", "", "1.5", "1e3", "٣"):
            answer = await declared.call("GET", RESULTS, params={key: wrong})
            assert (answer.status_code, key in answer.json()["message"]) == (400, True)
    for key, wrong in (("page", "0"), ("page", "-1"), ("last", "-1")):
        assert (await declared.call("GET", RESULTS, params={key: wrong})).status_code == 400


async def test_pages_of_twenty(declared: Api) -> None:
    for number in range(45):
        await push(declared, build_tag=f"{number:02d}", start_date=f"2016-05-28 10:00:{number:02d}")

    async def page(**params: Any) -> tuple[int, Any, Any]:
        answer = (await declared.call("GET", RESULTS, params=params)).json()
        return len(answer["results"]), answer["results"][-1]["build_tag"], answer["pagination"]

    assert await page(page=1) == (20, "25", {"current_page": 1, "total_pages": 3})
    assert await page(page=3) == (5, "00", {"current_page": 3, "total_pages": 3})
    assert await page(page=2, last=30) == (10, "15", {"current_page": 2, "total_pages": 2})
    assert await page(page=1, descend="false") == (20, "19", {"current_page": 1, "total_pages": 3})
    assert await page(page=1, build_tag="07") == (1, "07", {"current_page": 1, "total_pages": 1})
    for beyond in ({"page": 4}, {"page": 3, "last": 40}, {"page": 2**40}):
        assert (await declared.call("GET", RESULTS, params=beyond)).status_code == 400
    empty = (await declared.call("GET", RESULTS, params={"page": 1, "pod": "x"})).json()
    assert empty == {"results": [], "pagination": {"current_page": 1, "total_pages": 0}}


async def test_what_results_refer_to_stays(declared: Api) -> None:
    await push(declared)
    for path in ("pods/lab", "projects/functest", "projects/functest/cases/vPing"):
        assert (await declared.call("DELETE", f"/api/v1/{path}")).status_code == 401
    await declared.call("PUT", "/api/v1/projects/functest", json={"name": "renamed"})
    await declared.call("PUT", "/api/v1/projects/renamed/cases/vPing", json={"project_name": "yardstick"})
    assert len(await query(declared, project="yardstick", case="vPing")) == 1
    assert (await declared.call("DELETE", "/api/v1/pods/lab2")).status_code == 200
