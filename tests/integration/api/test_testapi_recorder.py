"""The recorder: each finished step that is to be recorded becomes one result, whatever dies in between."""

from collections.abc import Callable
from typing import Any

from proctor_common.ids import new_id
from proctor_common.messages.views import RecordView
from support.api_world import Api
from support.wait import eventually

RESULTS = "/api/v1/results"
BODY = {
    "project": "functest",
    "case": "vPing",
    "pod": "local-1",
    "version": 5,
    "criteria": "PASS",
    "start_date": "2026-11-21 04:00:00",
    "stop_date": "2026-11-21 04:00:09",
}


def finished(number: int = 1, **changes: Any) -> RecordView:
    """A record as the controllers keep it."""
    about: dict[str, Any] = {
        "id": number,
        "run": new_id(),
        "run_number": number,
        "step": new_id(),
        "step_name": "smoke[a b]",
        "attempt": 1,
        "host": "local-1",
        "volume": [{"key": "data", "name": "vol-1"}],
    }
    body = {**BODY, "declare": True, **changes.pop("body", {})}
    return RecordView.model_validate({**about, "body": body, **changes})


async def results(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.call("GET", RESULTS, params=params)).json()["results"]
    return found


async def confirmed(api: Api, *ids: int) -> None:
    await eventually(lambda: set(ids) <= set(api.world.confirmed), 10, f"the records {ids} to be confirmed")


async def rejected(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.call("GET", "/v1/results/rejected")).json()["items"]
    return found


async def test_a_finished_step_becomes_a_result_that_says_where_it_comes_from(start_api: Any) -> None:
    api: Api = await start_api(public_url="https://proctor.example.org/", timezone="Europe/Berlin")
    record = finished(body={"details": {"duration": 9}})
    await api.world.record(record)
    await confirmed(api, 1)
    (found,) = await results(api)
    assert found["details"] == {
        "run": record.run,
        "run_number": 1,
        "step": "smoke[a b]",
        "attempt": 1,
        "host": "local-1",
        "volume": [{"key": "data", "name": "vol-1"}],
        "log": f"https://proctor.example.org/v1/runs/{record.run}/logs?step=smoke%5Ba%20b%5D",
        "duration": 9,
    }
    assert {key: found[key] for key in ("project_name", "case_name", "pod_name", "version", "criteria")} == {
        "project_name": "functest",
        "case_name": "vPing",
        "pod_name": "local-1",
        "version": "5",
        "criteria": "PASS",
    }
    assert (found["start_date"], found["stop_date"]) == ("2026-11-21 05:00:00", "2026-11-21 05:00:09")
    assert len(await results(api, **{"from": "2026-11-21T04:00:00Z", "to": "2026-11-21T04:00:01Z"})) == 1


async def test_details_of_other_shapes_stand_beside_their_origin(api: Api) -> None:
    await api.world.record(*(finished(n, body={"details": given}) for n, given in enumerate(([1], "x", {"run": 1}), 1)))
    await confirmed(api, 1, 2, 3)
    found = [result["details"] for result in await results(api)]
    assert sorted(str(details["details"]) for details in found) == ["[1]", "x", "{'run': 1}"]
    assert all(len(details["run"]) == 36 for details in found)


async def test_a_nul_in_an_output_becomes_the_replacement_character(api: Api) -> None:
    await api.world.record(finished(body={"details": {"a\0": ["x\0y", {"z": "\0"}], "n": 1}}))
    await confirmed(api, 1)
    details = (await results(api))[0]["details"]
    assert (details["a\ufffd"], details["n"]) == (["x\ufffdy", {"z": "\ufffd"}], 1)


async def test_the_same_record_again_makes_no_second_result(api: Api) -> None:
    first = finished(1)
    for number in range(1, 4):
        await api.world.record(first.model_copy(update={"id": number}))
        await confirmed(api, number)
    again = first.model_copy(update={"id": 4, "attempt": 2})
    await api.world.record(again)
    await confirmed(api, 4)
    assert sorted(result["details"]["attempt"] for result in await results(api)) == [1, 2]


async def test_what_is_unknown_is_declared_only_where_the_plan_says_so(api: Api) -> None:
    await api.world.record(finished(1, body={"declare": False}))
    await confirmed(api, 1)
    assert await results(api) == []
    (found,) = await rejected(api)
    assert (found["run_number"], found["step"], found["reason"]) == (1, "smoke[a b]", "no such pod: local-1")
    metrics = (await api.call("GET", "/metrics")).text
    assert "proctor_api_records_rejected_total 1.0" in metrics
    assert (await api.call("POST", "/v1/results/rejected/retry")).json() == {"stored": 0, "left": 1}
    for path, name in (("pods", "local-1"), ("projects", "functest"), ("projects/functest/cases", "vPing")):
        await api.call("POST", f"/api/v1/{path}", json={"name": name})
    assert (await api.call("POST", "/v1/results/rejected/retry")).json() == {"stored": 1, "left": 0}
    assert (len(await results(api)), await rejected(api)) == (1, [])


async def test_a_record_that_nobody_can_store_stands_in_nobodys_way(api: Api) -> None:
    wrong: list[Callable[[int], RecordView]] = [
        lambda n: finished(n, body={"project": None}),
        lambda n: finished(n, body={"scenario": ["x"]}),
        lambda n: finished(n, body={"scenario": "a\0b"}),
        lambda n: finished(n, body={"build_tag": "x" * 501}),
        lambda n: finished(n, body={"case": "x" * 256}),
        lambda n: finished(n).model_copy(update={"body": None}),
    ]
    await api.world.record(*(make(n) for n, make in enumerate(wrong, 1)), finished(99))
    await confirmed(api, *range(1, len(wrong) + 1), 99)
    assert len(await results(api)) == 1
    assert len(await rejected(api)) == len(wrong)


async def test_records_are_found_without_being_told_and_in_pages(start_api: Any, world: Any) -> None:
    await world.record(*(finished(n) for n in range(1, 251)), told=False)
    api: Api = await start_api()
    await confirmed(api, *range(1, 251))
    assert len(await results(api)) == 250


async def test_a_bound_token_sees_results_of_its_groups_only(api: Api) -> None:
    await api.world.record(finished(1, group="lab-a"), finished(2, group="lab-b"), finished(3))
    await confirmed(api, 1, 2, 3)
    token = await api.token("viewer", ["lab-a"])
    seen = (await api.call("GET", RESULTS, token)).json()["results"]
    assert [result["details"]["run_number"] for result in seen] == [1]
    hidden = next(r["_id"] for r in await results(api) if r["details"]["run_number"] == 2)
    assert (await api.call("GET", f"{RESULTS}/{hidden}", token)).status_code == 404
    assert (await api.call("GET", f"{RESULTS}?page=1", token)).json()["pagination"]["total_pages"] == 1


async def test_a_test_case_may_ask_to_be_recorded(api: Api) -> None:
    case = {"plugin": "linux_system", "method": "run_shell", "host": "local-1", "parameters": {"command": "x"}}
    record = {"project": "functest", "case": "vPing", "declare": True, "details": {"a": [1]}}
    assert (await api.call("POST", "/v1/testcases", json={**case, "record": record})).status_code == 202
    assert api.world.asked["case.submit"][-1].body["record"] == record
    faulty: list[Any] = [{}, [], {"project": "x"}, {**record, "unknown": 1}, {**record, "case": ""}]
    for wrong in [*faulty, {**record, "pod": "a\nb"}]:
        answer = await api.call("POST", "/v1/testcases", json={**case, "record": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["path"][:6]) == (422, "record")
