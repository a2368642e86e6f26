"""Test plans, verbs of runs, gates and schedules: what the routes ask of the controllers, and whom they let."""

import json
from datetime import UTC, datetime
from typing import Any

from proctor_common.errors import Code, ProctorError, fault, faults
from proctor_common.messages.views import DocumentView, PlanFaults, PlanView, ScheduleView
from support.api_world import Api, Listing

NOW = datetime(2026, 12, 1, tzinfo=UTC)
PLAN = PlanView(name="smoke", version=2, versions=[1, 2], plan="steps: {}\n", created_at=NOW, created_by="alice")
SCHEDULE = ScheduleView(name="nightly", cron="@daily", timezone="UTC", plan="smoke", next_at=NOW)
JSON = {"Content-Type": "application/json"}
FAULT = fault("cycle", "a cycle: a, b", "steps.a", 4, 3)


def body_of(api: Api, op: str) -> dict[str, Any]:
    return api.world.asked[op][-1].body


async def test_stored_plans(api: Api) -> None:
    api.world.answers |= {"plan.put": PLAN, "plan.get": PLAN, "plan.delete": PLAN, "plan.list": Listing(items=[PLAN])}
    text = "testplan_version: '2026-12-01'\n"
    answer = await api.call("PUT", "/v1/testplans/smoke", json={"plan": text, "group": "lab-a"})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert body_of(api, "plan.put") == {"name": "smoke", "plan": text, "group": "lab-a"}
    answer = await api.call("GET", "/v1/testplans/smoke?version=1")
    assert answer.json()["plan"] == "steps: {}\n"
    assert body_of(api, "plan.get") == {"name": "smoke", "version": 1}
    answer = await api.call("GET", "/v1/testplans?limit=7")
    assert [item["name"] for item in answer.json()["items"]] == ["smoke"]
    assert body_of(api, "plan.list")["limit"] == 7
    assert (await api.call("DELETE", "/v1/testplans/smoke")).status_code == 200
    for path in ("/v1/testplans/smoke?version=0", "/v1/testplans/smoke?version=x"):
        assert (await api.call("GET", path)).status_code == 422


async def test_a_plan_that_is_none_is_told_once(api: Api) -> None:
    for method, path in (("POST", "/v1/runs"), ("POST", "/v1/testplans/validate"), ("PUT", "/v1/testplans/smoke")):
        answer = await api.call(method, path, json={"plan": [1]})
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        expected = "plan: must be a plan as an object or as text, or the name of a stored plan"
        assert (fault["path"], fault["message"]) == ("plan", expected)


async def test_a_plan_is_checked_and_every_fault_told(api: Api) -> None:
    api.world.answers["plan.validate"] = PlanFaults(errors=[dict(FAULT)])
    answer = await api.call("POST", "/v1/testplans/validate", json={"plan": "a: b", "parameters": {"x": 1}})
    assert (answer.status_code, answer.json()) == (200, {"errors": [FAULT]})
    assert body_of(api, "plan.validate") == {"plan": "a: b", "parameters": {"x": 1}}
    answer = await api.call("POST", "/v1/testplans/validate", json={"plan": "a: b", "wrong": 1})
    assert answer.json()["errors"][0]["path"] == "wrong"
    assert (await api.call("POST", "/v1/testplans/validate", content=b"")).json()["code"] == "bad_json"


async def test_a_repeated_name_in_a_json_object_reaches_whoever_tells_it(api: Api) -> None:
    """A parser keeps the last one: the text goes on as it is, where a name is repeated in it, else the object."""
    api.world.answers |= {"plan.validate": PlanFaults(), "plan.put": PLAN, "schedule.put": SCHEDULE}
    plan = '{"name": "x", "steps": {"a": 1, "b": {}, "a": [2, "}"]}}'
    for method, path, op in (
        ("POST", "/v1/testplans/validate", "plan.validate"),
        ("PUT", "/v1/testplans/x", "plan.put"),
        ("PUT", "/v1/schedules/x", "schedule.put"),
        ("POST", "/v1/runs", "run.submit"),
    ):
        more = ', "cron": "@daily"' if "schedules" in path else ""
        content = f'{{"group": null, "plan" : {plan}{more}}}'.encode()
        await api.call(method, path, content=content, headers=JSON)
        assert body_of(api, op)["plan"] == plan, path
        await api.call(method, path, content=content.replace(b'"a": 1, ', b""), headers=JSON)
        assert body_of(api, op)["plan"] == {"name": "x", "steps": {"b": {}, "a": [2, "}"]}}, path
        twice = await api.call(method, path, content=b'{"plan": {}, "plan": {}, ' + content[1:], headers=JSON)
        assert (twice.status_code, twice.json()["errors"][0]["code"]) == (422, "duplicate_key"), path
    legacy = '{"name": "x", "testplan": {"1": {}, "1": {}}}'
    api.world.refusals["run.submit"] = faults([FAULT, {**FAULT, "path": "steps.b"}])
    answer = await api.call("POST", "/v2.1/testplan", content=legacy.encode(), headers=JSON)
    assert body_of(api, "run.submit")["plan"] == legacy
    assert answer.json() == {"code": 422, "message": "steps.a: a cycle: a, b; steps.b: a cycle: a, b"}


async def test_editors_get_the_schema_without_a_token(api: Api) -> None:
    api.world.answers["plan.schema"] = PlanFaults(errors=[])
    answer = await api.http.get("/docs/testplan.schema.json")
    assert (answer.status_code, answer.json()) == (200, {"errors": []})
    assert answer.headers["content-type"] == "application/schema+json"


async def test_verbs_answer_with_the_run(api: Api) -> None:
    run = api.world.add_run()
    for verb in ("cancel", "pause", "resume"):
        api.world.answers[f"run.{verb}"] = run.view()
        answer = await api.call("POST", f"/v1/runs/{run.id}/{verb}")
        assert (answer.status_code, answer.json()["id"]) == (202, run.id)
        assert body_of(api, f"run.{verb}") == {"run": run.id}
        assert (await api.call("POST", f"/v1/runs/{run.id}/{verb}", json={"wrong": 1})).status_code == 422
        api.world.refusals[f"run.{verb}"] = ProctorError(Code.CONFLICT, "the run is being rolled back")
        answer = await api.call("POST", f"/v1/runs/{run.id}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_run_is_run_again_once_a_key(api: Api) -> None:
    run = api.world.add_run()
    api.world.answers["run.rerun"] = run.view()
    for content, failed_only in ((b"", False), (b"{}", False), (b'{"failed_only": true}', True)):
        answer = await api.call("POST", f"/v1/runs/{run.id}/rerun", content=content, headers=JSON)
        assert answer.status_code == 202, answer.text
        sent = body_of(api, "run.rerun")
        assert (sent["run"], sent.get("failed_only", False)) == (run.id, failed_only)
        assert answer.headers["location"] == f"/v1/runs/{sent['new_run']}"
    before = len(api.world.asked["run.rerun"])
    for _ in range(2):
        answer = await api.call("POST", f"/v1/runs/{run.id}/rerun", headers={"Idempotency-Key": "k"})
        assert answer.status_code == 202
    assert len(api.world.asked["run.rerun"]) == before + 1
    assert (await api.call("POST", f"/v1/runs/{run.id}/rerun", content=b"[", headers=JSON)).json()["code"] == "bad_json"
    assert (await api.call("POST", f"/v1/runs/{run.id}/rerun", json={"failed": True})).status_code == 422


async def test_gates(api: Api) -> None:
    run = api.world.add_run()
    for verb in ("approve", "reject"):
        api.world.answers[f"run.{verb}"] = run.view()
        answer = await api.call("POST", f"/v1/runs/{run.id}/steps/release[a]/{verb}")
        assert answer.status_code == 202
        assert body_of(api, f"run.{verb}") == {"run": run.id, "step": "release[a]"}


async def test_the_document_of_a_run(api: Api) -> None:
    run = api.world.add_run()
    api.world.answers["run.document"] = DocumentView(run=run.id, plan="smoke", version=3, document="a: 1  # kept\n")
    answer = await api.call("GET", f"/v1/runs/{run.id}/document")
    assert answer.json() == {"run": run.id, "plan": "smoke", "version": 3, "document": "a: 1  # kept\n"}


async def test_schedules(api: Api) -> None:
    api.world.answers |= {f"schedule.{verb}": SCHEDULE for verb in ("put", "get", "delete")}
    api.world.answers["schedule.list"] = Listing(items=[SCHEDULE])
    wanted = {"cron": "@daily", "plan": "smoke@2", "parameters": {"a": 1}, "overlap": "skip"}
    answer = await api.call("PUT", "/v1/schedules/nightly", json=wanted)
    assert (answer.status_code, answer.json()["next_at"]) == (200, "2026-12-01T00:00:00Z")
    sent = body_of(api, "schedule.put")
    assert {name: sent[name] for name in wanted if name in sent} | {"overlap": "skip"} == wanted
    assert sent["name"] == "nightly"
    assert (await api.call("GET", "/v1/schedules/nightly")).json()["cron"] == "@daily"
    assert (await api.call("GET", "/v1/schedules")).json()["items"][0]["name"] == "nightly"
    assert (await api.call("DELETE", "/v1/schedules/nightly")).status_code == 200
    for wrong in ({"overlap": "queue"}, {"cron": ""}, {"every": 5}, {"group": "a b"}):
        answer = await api.call("PUT", "/v1/schedules/nightly", json={**wanted, **wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), wrong


async def test_who_may(api: Api) -> None:
    viewer, runner = await api.token("viewer"), await api.token("runner")
    run = api.world.add_run()
    api.world.answers |= {op: run.view() for op in ("run.pause", "run.resume", "run.rerun", "run.approve")}
    api.world.answers |= {"plan.put": PLAN, "plan.delete": PLAN, "plan.list": Listing(items=[])}
    api.world.answers |= {"plan.validate": PlanFaults(), "schedule.put": SCHEDULE}
    changing: list[tuple[str, str, Any]] = [
        ("PUT", "/v1/testplans/smoke", {"plan": "x"}),
        ("DELETE", "/v1/testplans/smoke", None),
        ("PUT", "/v1/schedules/nightly", {"cron": "@daily", "plan": "smoke"}),
        ("POST", f"/v1/runs/{run.id}/pause", None),
        ("POST", f"/v1/runs/{run.id}/resume", None),
        ("POST", f"/v1/runs/{run.id}/rerun", None),
        ("POST", f"/v1/runs/{run.id}/steps/a/approve", None),
    ]
    for method, path, body in changing:
        how = {"json": body} if body is not None else {}
        assert (await api.call(method, path, viewer, **how)).status_code == 403, path
        assert (await api.call(method, path, runner, **how)).status_code in {200, 202}, path
        assert (await api.http.request(method, path)).status_code == 401
    assert (await api.call("GET", "/v1/testplans", viewer)).status_code == 200
    assert (await api.call("POST", "/v1/testplans/validate", viewer, json={"plan": "x"})).status_code == 200


async def test_the_examples_of_the_document_are_taken(api: Api) -> None:
    api.world.answers |= {"plan.put": PLAN, "plan.validate": PlanFaults(), "schedule.put": SCHEDULE}
    run = api.world.add_run()
    api.world.answers["run.rerun"] = run.view()
    document = (await api.http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for method, path, name in (
        ("PUT", "/v1/testplans/x", "PlanRequest"),
        ("POST", "/v1/testplans/validate", "ValidateRequest"),
        ("PUT", "/v1/schedules/x", "ScheduleRequest"),
        ("POST", f"/v1/runs/{run.id}/rerun", "AgainRequest"),
        ("POST", "/v2.1/testplan", "LegacyPlan"),
    ):
        answer = await api.call(method, path, json=schemas[name]["example"])
        assert answer.status_code in {200, 202}, (path, answer.text)
    assert json.dumps(document).count("/v1/runs/{run}/junit")
