"""What clients of the Test API send that it cannot store as it is: the rest is stored, and what was lost is named."""

import json
import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proctor_api import migrations
from support.api_world import Api

RESULTS, DEPLOY, IMPORT = "/api/v1/results", "/api/v1/deployresults", "/v1/results/import"
NAMES = {"pod_name": "lab", "project_name": "functest", "case_name": "vPing"}
DEPLOYED = {"pod_name": "lab", "installer": "daisy", "scenario": "os-nosdn"}
DROPPED = "proctor-dropped"
MIGRATION = runpy.run_path(str(Path(migrations.__path__[0]) / "versions" / "0004_arrival.py"))


@pytest.fixture
async def declared(api: Api) -> Api:
    await api.call("POST", IMPORT, params={"declare": True}, content=json.dumps(NAMES))
    connection = await asyncpg.connect(api.database.dsn)
    await connection.execute("DELETE FROM catalog.results")
    await connection.close()
    return api


async def push(api: Api, body: Any, path: str = RESULTS) -> tuple[dict[str, Any], str | None]:
    """The result as it is shown, and the header that says what was dropped."""
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = await api.call("POST", path, content=content)
    assert answer.status_code == 200, answer.text
    found = (await api.call("GET", f"{path}/{answer.json()['href'][-24:]}")).json()
    return found, answer.headers.get(DROPPED)


SENT: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "yardstick's trust": ({"trust_indicator": ""}, {"trust_indicator": 0}, "trust_indicator"),
    "no trust": ({"trust_indicator": None}, {"trust_indicator": 0}, None),
    "trust as text": ({"trust_indicator": " 0.5"}, {"trust_indicator": 0.5}, None),
    "trust as a word": ({"trust_indicator": "high"}, {"trust_indicator": 0}, "trust_indicator"),
    "trust that is true": ({"trust_indicator": True}, {"trust_indicator": 0}, "trust_indicator"),
    "trust of an export": ({"trust_indicator": {"current": 0.25, "histories": []}}, {"trust_indicator": 0.25}, None),
    "trust with histories": (
        {"trust_indicator": {"current": {"$numberDouble": "0.5"}, "histories": [{"step": 1}]}},
        {"trust_indicator": 0.5},
        "trust_indicator.histories",
    ),
    "no current trust": ({"trust_indicator": {"current": None, "histories": None}}, {"trust_indicator": 0}, None),
    "trust that is NaN": ({"trust_indicator": {"$numberDouble": "NaN"}}, {"trust_indicator": 0}, "trust_indicator"),
    "dates of an export": (
        {"start_date": {"$date": "2016-05-28T14:41:58.384Z"}, "stop_date": {"$date": 1464446578384}},
        {"start_date": "2016-05-28T14:41:58.384Z", "stop_date": "2016-05-28T14:42:58.384Z"},
        None,
    ),
    "a date in long": (
        {"start_date": {"$date": {"$numberLong": "1464446518384"}}, "stop_date": {"$timestamp": {"t": 1464446578}}},
        {"start_date": "2016-05-28T14:41:58.384Z", "stop_date": "2016-05-28T14:42:58.000Z"},
        None,
    ),
    "dates as numbers": (
        {"start_date": 1464446518, "stop_date": 1464446578384},
        {"start_date": "2016-05-28T14:41:58.000Z", "stop_date": "2016-05-28T14:42:58.384Z"},
        None,
    ),
    "dates that are none": (
        {"start_date": {"$date": "soon"}, "stop_date": 1e300},
        {"start_date": "soon", "stop_date": None},
        "stop_date",
    ),
    "numbers as texts": ({"version": 1.5, "build_tag": 108}, {"version": "1.5", "build_tag": "108"}, None),
    "criteria that are true": ({"criteria": True}, {"criteria": "true"}, None),
    "texts of an export": (
        {"version": {"$symbol": "D"}, "installer": {"$undefined": True}},
        {"version": "D", "installer": None},
        None,
    ),
    "lists and objects": (
        {"installer": ["fuel"], "criteria": {"$minKey": 1}, "scenario": {}},
        {"installer": None, "criteria": None, "scenario": None},
        "installer, scenario, criteria",
    ),
    "a long text": ({"build_tag": "x" * 501}, {"build_tag": "x" * 500}, "build_tag"),
    "empty texts": ({"installer": "", "version": ""}, {"installer": "", "version": ""}, None),
    "unknown members": ({"_id": "mine", "creation_date": 1, "x y,z": 2, "é": 3}, {}, "x%20y%2Cz, %C3%A9"),
    "details of an export": ({"details": {"n": {"$numberLong": "5"}}}, {"details": {"n": {"$numberLong": "5"}}}, None),
}


async def test_what_clients_send_is_stored_and_what_is_lost_is_named(declared: Api) -> None:
    for name, (sent, kept, dropped) in SENT.items():
        found, told = await push(declared, {**NAMES, **sent})
        assert {key: found[key] for key in kept} == kept, name
        assert told == dropped, name
        report = await declared.call("POST", IMPORT, content=json.dumps({**NAMES, **sent}))
        assert report.json()["stored"] == 1, name
        assert report.headers.get(DROPPED) == dropped, name
    named = ({"$numberLong": "5"}, 5)
    await declared.call("POST", "/api/v1/pods", json={"name": "5"})
    for pod in named:
        assert (await push(declared, {**NAMES, "pod_name": pod}))[0]["pod_name"] == "5"


DETAILS: dict[bytes, tuple[Any, str | None]] = {
    b'{"mean": NaN, "max": Infinity, "min": -Infinity}': (
        {"mean": None, "max": None, "min": None},
        "details.mean, details.max, details.min",
    ),
    b'[1, {"a": [NaN, 2]}]': ([1, {"a": [None, 2]}], "details.1.a.0"),
    b"NaN": (None, "details"),
    b'{"a": 1e400, "b": ' + b"9" * 400 + b"}": ({"a": None, "b": None}, "details.a, details.b"),
    rb'{"log": "a\u0000b", "b\u0000": 1, "c": 2}': (
        {"log": "a\ufffdb", "b\ufffd": 1, "c": 2},
        "details.b%EF%BF%BD, details.log",
    ),
    rb'["\ud800", "\ud83d\ude00", "\udcff x"]': (["\ufffd", "\U0001f600", "\ufffd x"], "details.0, details.2"),
    b'{"NaN": "Infinity"}': ({"NaN": "Infinity"}, None),
}


async def test_numbers_and_characters_that_cannot_be_stored_are_replaced(declared: Api) -> None:
    names = json.dumps(NAMES).encode()[:-1]
    for details, (kept, dropped) in DETAILS.items():
        found, told = await push(declared, names + b', "details": ' + details + b"}")
        assert (found["details"], told) == (kept, dropped), details
    assert (await push(declared, b"\xef\xbb\xbf" + names + b"}"))[1] is None
    many = {"details": {f"n{number:02d}": float("nan") for number in range(30)}}
    told = (await push(declared, {**NAMES, **many}))[1] or ""
    assert told.split(", ") == [f"details.n{number:02d}" for number in range(20)]
    for wrong in (b"nan", b"-NaN", b"{'a': 1}", b"[1,]", b'"\xff"', b"Inf", b'"\\ud800" x'):
        answer = await declared.call("POST", RESULTS, content=names + b', "details": ' + wrong + b"}")
        assert answer.status_code == 400, wrong
    for name in (rb'"lab\u0000"', rb'"\ud800"', b"NaN"):
        content = names.replace(b'"lab"', name) + b"}"
        assert (await declared.call("POST", RESULTS, content=content)).status_code == 400, name
    # All else is as strict as it was.
    assert (await declared.call("POST", "/api/v1/pods", content=b'{"name": "p", "details": NaN}')).status_code == 400


async def test_an_import_counts_what_was_dropped_and_keeps_ids_of_exports(declared: Api) -> None:
    id_ = "5" * 24
    lines = [{**NAMES, "_id": {"$oid": id_}, "trust_indicator": ""}, {**NAMES, "trust_indicator": "", "run": 1}]
    content = "\n".join([*map(json.dumps, lines), '{"a": NaN}'])
    report = (await declared.call("POST", IMPORT, content=content)).json()
    assert (report["stored"], report["refused"]) == (2, 1)
    assert report["dropped"] == {"trust_indicator": 2, "run": 1}
    assert (await declared.call("GET", f"{RESULTS}/{id_}")).status_code == 200
    assert (await declared.call("POST", IMPORT, content=json.dumps(lines[0]))).json()["known"] == 1


async def test_deployment_results_of_releng(declared: Api) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
        ({"upstream_build_id": "", "build_id": "5"}, {"upstream_build_id": None, "build_id": 5}, "upstream_build_id"),
        ({"build_id": 5.0}, {"build_id": 5}, None),
        ({"build_id": {"$numberLong": "5"}, "details": ""}, {"build_id": 5, "details": ""}, None),
        ({"build_id": "#108"}, {"build_id": None}, "build_id"),
        ({"build_id": -1, "upstream_build_id": 2**40}, {"build_id": None}, "build_id, upstream_build_id"),
        ({"job_name": ["x"], "criteria": 1}, {"job_name": None, "criteria": "1"}, "job_name"),
        ({"start_date": {"$date": 1464446518384}}, {"start_date": "2016-05-28T14:41:58.384Z"}, None),
        ({"details": {"a": float("inf")}, "more": 1}, {"details": {"a": None}}, "details.a, more"),
    ]
    for sent, kept, dropped in cases:
        found, told = await push(declared, {**DEPLOYED, **sent}, DEPLOY)
        assert ({key: found[key] for key in kept}, told) == (kept, dropped), sent


async def test_a_clock_that_is_ahead_heads_nothing(declared: Api) -> None:
    now = datetime.now(UTC)

    def at(**ahead: float) -> str:
        return f"{now + timedelta(**ahead):%Y-%m-%d %H:%M:%S}"

    async def tags(**params: Any) -> list[str]:
        answer = await declared.call("GET", RESULTS, params=params)
        return [result["build_tag"] for result in answer.json()["results"]]

    await push(declared, {**NAMES, "build_tag": "old", "start_date": at(days=-20)})
    wrong = {"start_date": "2099-01-01 00:00:00", "stop_date": "2099-01-01 00:01:00"}
    found, told = await push(declared, {**NAMES, "build_tag": "2099", "criteria": "PASS", **wrong})
    assert (found["start_date"], told) == (wrong["start_date"], None)
    await push(declared, {**NAMES, "build_tag": "new", "start_date": at(seconds=30), "criteria": "PASS"})
    await push(declared, {**NAMES, "build_tag": "east", "start_date": at(hours=13), "stop_date": "2199-01-01"})
    assert await tags() == ["east", "new", "2099", "old"]
    assert await tags(last=1) == ["east"]
    assert await tags(period=1) == ["east", "new", "2099"]
    assert await tags(**{"from": "2098-01-01"}) == []
    assert await tags(to=at(days=2), descend="false") == ["old", "2099", "new", "east"]
    assert await tags(start_date=wrong["start_date"]) == ["2099"]
    assert [await tags(page=1, last=2)] == [["east", "new"]]
    trend = (await declared.call("GET", "/v1/dashboard/trend", params={"days": 7})).json()
    assert trend["sum"]["newest"] < at(days=2) and trend["sum"]["runs"] == 3
    assert trend["sum"]["seconds"] == 60
    assert all(point["at"] < at(days=2) for series in trend["series"] for point in series["points"])
    board = await declared.call("GET", "/dashboard/v1/results", params={"project": "functest", "case": "vPing"})
    assert "2099" not in board.text
    await declared.call("POST", "/api/v1/projects/functest/cases", json={"name": "other"})
    for start in (wrong["start_date"], at(seconds=-5)):
        await push(declared, {**NAMES, "case_name": "other", "start_date": start})
    graphs = await declared.call("GET", "/dashboard/v1/results", params={"project": "functest", "case": "other"})
    assert "2099" not in graphs.text
    for start, tag in (("2099-01-01", "2099"), (at(seconds=30), "new")):
        await push(declared, {**DEPLOYED, "start_date": start, "version": tag}, DEPLOY)
    listed = (await declared.call("GET", DEPLOY, params={"period": 1})).json()["deployresults"]
    assert [each["version"] for each in listed] == ["new", "2099"]


async def test_an_imported_result_keeps_the_place_of_its_first_arrival(declared: Api) -> None:
    first = f"{int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()):08x}{'0' * 16}"
    lines = [{**NAMES, "_id": first, "start_date": "2099-01-01"}, {**NAMES, "start_date": "2024-01-01"}]
    await declared.call("POST", IMPORT, content="\n".join(map(json.dumps, lines)))
    found = (await declared.call("GET", RESULTS)).json()["results"]
    assert [each["start_date"] for each in found] == ["2024-01-01", "2099-01-01"]


async def test_the_migration_takes_stored_ones_from_the_head(declared: Api) -> None:
    for tag in ("plain", "2099", "stop"):
        await push(declared, {**NAMES, "build_tag": tag, "start_date": "2020-01-01", "stop_date": "2020-01-02"})
    await push(declared, {**DEPLOYED, "version": "2099"}, DEPLOY)
    connection = await asyncpg.connect(declared.database.dsn)
    ahead = "'2099-01-01'::timestamptz"
    await connection.execute(
        f"UPDATE catalog.results SET start_at = {ahead}, stop_at = {ahead} + interval '1 h' WHERE build_tag = '2099'"
    )
    await connection.execute(f"UPDATE catalog.results SET stop_at = {ahead} WHERE build_tag = 'stop'")
    await connection.execute(f"UPDATE catalog.deployresults SET start_at = {ahead}")
    await connection.execute(MIGRATION["UP"])
    rows = await connection.fetch(
        "SELECT build_tag, start_at, stored_at, NULLIF(stop_at, '-infinity') - start_at AS took FROM catalog.results"
    )
    found = {row["build_tag"]: row for row in rows}
    assert found["2099"]["start_at"] == found["2099"]["stored_at"] and found["2099"]["took"] == timedelta(hours=1)
    assert found["plain"]["took"] == timedelta(days=1)
    assert found["stop"]["took"] is None and found["stop"]["start_at"].year == 2020
    assert await connection.fetchval("SELECT start_at < now() + interval '1 s' FROM catalog.deployresults")
    await connection.close()
