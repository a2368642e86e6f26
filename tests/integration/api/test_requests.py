"""Bad input gets the documented error, naming what is wrong; nothing is started."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx

from proctor_common.errors import Code, ProctorError
from support.api_world import Api

CASE = {"plugin": "linux_system", "method": "run_shell", "host": "local-1", "parameters": {"command": "x"}}
JSON = {"Content-Type": "application/json"}


async def post(api: Api, content: bytes, path: str = "/v1/testcases", **headers: str) -> Any:
    return await api.call("POST", path, content=content, headers={**JSON, **headers})


def nested(depth: int) -> bytes:
    return json.dumps({**CASE, "parameters": {"x": 1}}).encode().replace(b"1}}", b"[" * depth + b"]" * depth + b"}}")


NO_JSON = [
    b"",
    b"   ",
    b"not json",
    b"{",
    b'{"a":1,}',
    b'{"a":NaN}',
    b"\xff\xfe",
    b'{"plugin":"\\ud800"}',
    b"'a'",
    b"[1] [2]",
]


async def test_a_body_that_is_no_json_is_400_bad_json(api: Api) -> None:
    for content in NO_JSON:
        answer = await post(api, content)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")
        assert answer.headers["content-type"] == "application/problem+json"
        assert not api.world.asked


async def test_a_form_is_no_json(api: Api) -> None:
    answer = await api.call("POST", "/v1/testcases", data={"plugin": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


WRONG = [
    (json.dumps({**CASE, "parameters": {"command": "a\0b"}}).encode(), "parameters.command"),
    (json.dumps({**CASE, "parameters": {"a\0b": 1}}).encode(), "parameters.a\\u0000b"),
    (json.dumps({**CASE, "wrong": 1}).encode(), "wrong"),
    (json.dumps({**CASE, "plugin": 7}).encode(), "plugin"),
    (json.dumps({**CASE, "timeout": "soon"}).encode(), "timeout"),
    (json.dumps({**CASE, "timeout": -1}).encode(), "timeout"),
    (json.dumps({**CASE, "labels": {"os": "debian"}}).encode(), "host"),
    (json.dumps({k: v for k, v in CASE.items() if k != "host"}).encode(), "host"),
    (json.dumps({k: v for k, v in CASE.items() if k != "plugin"}).encode(), "plugin"),
    (b"[1, 2]", ""),
    (b"null", ""),
    (b'"text"', ""),
    (nested(150), ""),
]


async def test_a_body_that_is_wrong_is_422_and_names_the_place(api: Api) -> None:
    for content, path in WRONG:
        answer = await post(api, content)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
        assert answer.json()["errors"][0]["path"] == path
        assert set(answer.json()["errors"][0]) == {"code", "message", "path", "line", "column"}
        assert not api.world.asked


async def test_a_body_that_is_no_object_is_told_what_it_is(api: Api) -> None:
    for content, kind in ((b"[1, 2]", "an array"), (b"null", "null"), (b'"text"', "a text"), (b"true", "a boolean")):
        said = (await post(api, content)).json()["detail"]
        assert said == f"must be an object, not {kind}", content


async def test_all_faults_are_told_at_once(api: Api) -> None:
    answer = await post(api, json.dumps({"plugin": 1, "method": [], "host": "h", "a": 1, "b": 2}).encode())
    assert [e["path"] for e in answer.json()["errors"]] == ["plugin", "method", "a", "b"]


async def test_depth_up_to_the_limit_passes(api: Api) -> None:
    assert (await post(api, nested(98))).status_code == 202


async def test_numbers_of_any_size_do_not_break_anything(api: Api) -> None:
    huge = b'{"plugin":"linux_system","method":"run_shell","host":"local-1","parameters":{"n":%s}}'
    assert (await post(api, huge % (b"9" * 30))).status_code == 202
    assert api.world.asked["case.submit"][-1].body["parameters"] == {"n": int("9" * 30)}
    for number in (b"9" * 5000, b"1e400"):
        assert (await post(api, huge % number)).status_code in {202, 400, 422}
    timeout = b'{"plugin":"linux_system","method":"run_shell","host":"local-1","timeout":%s}'
    for number in (b"9" * 400, b"1e308", b'"%s"' % (b"9" * 100)):
        assert (await post(api, timeout % number)).status_code in {400, 422}


async def test_a_body_over_the_limit_is_413_with_the_limit(api: Api) -> None:
    answer = await post(api, b'{"plugin":"' + b"x" * 1024 * 1024 + b'"}')
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "too_large", 1024 * 1024)
    assert answer.json()["detail"] == f"the body is over the limit of 1048576 bytes: it has {answer.json()['size']}"


async def test_an_endless_body_is_refused_while_it_comes(api: Api) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 200 * 1024 * 1024:
            sent += 65536
            yield b"x" * 65536
            await asyncio.sleep(0)

    # The client may notice the closed connection before it reads the answer.
    with suppress(httpx.TransportError):
        answer = await api.call("POST", "/v1/testcases", content=endless(), headers=JSON)
        assert answer.status_code == 413
    assert sent < 100 * 1024 * 1024
    assert not api.world.asked


async def test_a_stranger_s_body_is_not_even_read(api: Api) -> None:
    answer = await api.http.post("/v1/testcases", content=b"x" * 2 * 1024 * 1024, headers=JSON)
    assert answer.status_code == 401


async def test_a_url_over_8_kib_and_a_nul_in_it(api: Api) -> None:
    long = await api.call("GET", f"/v1/runs?plan={'x' * 9000}")
    assert (long.status_code, long.json()["limit"]) == (413, 8192)
    for path in ("/v1/runs/%00", "/v1/runs?plan=%00"):
        answer = await api.call("GET", path)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "nul_character"), path


QUERIES = ["limit=0", "limit=1001", "limit=x", "state=nowhere", "result=fine", "group=%20", "cursor=" + "x" * 5000]


async def test_a_wrong_query_is_422(api: Api) -> None:
    for query in QUERIES:
        answer = await api.call("GET", f"/v1/runs?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert answer.json()["errors"][0]["path"] == f"query.{query.partition('=')[0]}"


async def test_what_the_controller_refuses_is_passed_on(api: Api) -> None:
    answer = await api.call("POST", "/v1/testcases", json={**CASE, "plugin": "linux_sytem"})
    assert (answer.status_code, answer.json()["what"], answer.json()["name"]) == (404, "plugin", "linux_sytem")
    api.world.refusals["case.submit"] = ProctorError(Code.AGENT_UNAVAILABLE, "agent local-1 is lost", host="local-1")
    answer = await api.call("POST", "/v1/testcases", json=CASE)
    assert (answer.status_code, answer.json()["code"], answer.json()["host"]) == (409, "agent_unavailable", "local-1")


async def test_no_such_path_and_no_such_method(api: Api) -> None:
    for path in ("/nowhere", "/v1/nowhere", "/v1/runs/1/2/3"):
        assert (await api.call("GET", path)).json()["code"] == "not_found"
    answer = await api.call("DELETE", "/v1/runs")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


async def test_headers_that_make_no_sense_break_nothing(api: Api) -> None:
    for headers in ({"Host": "["}, {"Host": "a b"}, {"Origin": "http://["}, {"Cookie": "proctor_session=["}):
        for path in ("/healthz", "/v1/nowhere", "/v1/runs"):
            answer = await api.call("GET", path, headers=headers)
            assert answer.status_code in {200, 400, 404}, (headers, path, answer.text)
    odd = await api.http.get("/v1/runs", headers={"Cookie": "proctor_session=[", "Origin": "http://["})
    assert odd.status_code == 401


async def test_without_controllers_it_is_503_at_once_and_heals(api: Api) -> None:
    await api.world.stop()
    answer = await api.call("POST", "/v1/testcases", json=CASE)
    assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    await api.world.start()
    assert (await api.call("POST", "/v1/testcases", json=CASE)).status_code == 202


async def test_a_question_without_an_answer_is_sent_again_and_starts_nothing_twice(start_api: Any) -> None:
    api: Api = await start_api(call_timeout=1.0)
    api.world.silent.add("case.submit")
    answer = await api.call("POST", "/v1/testcases", json=CASE)
    assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
    asked = api.world.asked["case.submit"]
    assert len(asked) > 1
    assert len({call.body["run"] for call in asked}) == 1


async def test_the_same_key_starts_once_and_answers_twice(api: Api) -> None:
    first = await api.call("POST", "/v1/testcases", json=CASE, headers={"Idempotency-Key": "k1"})
    again = await api.call("POST", "/v1/testcases", json=CASE, headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json(), again.headers["location"]) == (
        202,
        first.json(),
        first.headers["location"],
    )
    assert again.headers["idempotency-replayed"] == "true"
    assert len(api.world.asked["case.submit"]) == 1
    other = await api.call("POST", "/v1/testcases", json={**CASE, "name": "x"}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    runner = await api.token("runner")
    await api.call("POST", "/v1/testcases", runner, json=CASE, headers={"Idempotency-Key": "k1"})
    assert len(api.world.runs) == 2
    assert "command" not in api.database.psql("SELECT request_hash FROM access.idempotency_keys")


async def test_many_at_once_with_one_key_start_one(api: Api) -> None:
    answers = await asyncio.gather(
        *(api.call("POST", "/v1/testcases", json=CASE, headers={"Idempotency-Key": "k2"}) for _ in range(8))
    )
    codes = {answer.status_code for answer in answers}
    assert codes <= {202, 409}
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"idempotency_in_progress"}
    assert len(api.world.runs) == 1


async def test_a_key_of_a_request_that_failed_is_free_or_goes_on_with_the_same_run(start_api: Any) -> None:
    api: Api = await start_api(call_timeout=0.6)
    headers = {"Idempotency-Key": "k3"}
    wrong = await api.call("POST", "/v1/testcases", json={**CASE, "plugin": "nope"}, headers=headers)
    assert wrong.status_code == 404
    api.world.silent.add("case.submit")
    assert (await api.call("POST", "/v1/testcases", json=CASE, headers=headers)).status_code == 503
    tried = api.world.asked["case.submit"][-1].body["run"]
    api.world.silent.clear()
    done = await api.call("POST", "/v1/testcases", json=CASE, headers=headers)
    assert (done.status_code, done.json()["id"]) == (202, tried)


async def test_a_key_that_is_none_is_refused(api: Api) -> None:
    for key in ("", "x" * 256):
        answer = await api.call("POST", "/v1/testcases", json=CASE, headers={"Idempotency-Key": key})
        assert answer.status_code == 422


async def test_lists_and_views_are_passed_on_as_they_are(api: Api) -> None:
    run = api.world.add_run()
    listed = await api.call("GET", "/v1/runs?state=running&limit=5")
    assert listed.json()["items"][0]["id"] == run.id
    assert api.world.asked["run.list"][-1].body == {"state": "running", "limit": 5}
    assert (await api.call("GET", f"/v1/runs/{run.number}")).json()["result"] is None
    assert (await api.call("POST", f"/v1/runs/{run.id}/cancel")).status_code == 202


async def test_a_route_that_takes_no_body_refuses_one_that_says_something(api: Api) -> None:
    run = api.world.add_run()
    for method, path in (("PUT", "/v1/groups/lab-c"), ("POST", f"/v1/runs/{run.id}/cancel")):
        assert (await api.call(method, path, content=b"{}")).is_success
        assert (await api.call(method, path)).is_success
        refused = await api.call(method, path, json={"agents": []})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "agents")
        assert (await api.call(method, path, json=[])).status_code == 422
        assert (await api.call(method, path, content=b"{")).status_code == 400
    assert len(api.world.asked["group.put"]) == 2


async def test_the_document_is_openapi_3_0_and_every_route_says_who_may(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.0")
    text = json.dumps(document)
    assert '"type": "null"' not in text
    assert '"const"' not in text
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert "default" in operation["responses"], (path, method)
            assert "x-proctor-role" not in operation
            if method in {"post", "put"} and "application/json" in operation.get("requestBody", {}).get("content", {}):
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                if path.startswith("/api/v1/"):
                    assert "example" in schema, path
                else:
                    assert document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], path
    assert document["paths"]["/v1/testcases"]["post"]["responses"]["202"]["content"]
    example = document["components"]["schemas"]["CaseRequest"]["example"]
    assert (await api.call("POST", "/v1/testcases", json=example)).status_code == 202


async def test_docs_have_no_script_in_the_page_and_nothing_from_elsewhere(api: Api) -> None:
    for path in ("/docs", "/login"):
        page = await api.http.get(path)
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "<script>" not in page.text
        assert "http" not in page.text.replace("http-equiv", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "docs.js", "login.js", "login.css", "favicon-32x32.png"):
        asset = await api.http.get(f"/docs/assets/{name}")
        assert asset.status_code == 200, name
        assert asset.headers["x-content-type-options"] == "nosniff"
    assert (await api.http.get("/docs/assets/..%2f..%2fmain.py")).status_code == 404


async def test_nothing_that_is_sent_is_an_internal_error(api: Api) -> None:
    odd = [
        "%ff",
        "%ed%a0%80",
        "%F0%9F%98%80",
        "..%2f..",
        "%0a",
        "%25",
        "a" * 70,
        "%2e%2e",
        "*",
        ">",
        "1.5",
        "-1",
        "9" * 40,
    ]
    paths = [f"/v1/runs/{x}" for x in odd] + [f"/v1/runs/{x}/logs" for x in odd] + [f"/v2.1/slaves/{x}" for x in odd]
    paths += [f"/v1/tokens/{x}" for x in odd] + [f"/v1/agents/{x}" for x in odd] + [f"/docs/assets/{x}" for x in odd]
    paths += [f"/v1/runs?{name}={x}" for name in ("plan", "cursor", "since", "limit") for x in odd]
    for path in paths:
        answer = await api.call("GET", path)
        assert answer.status_code < 500, (path, answer.text)
    bodies = [
        {**CASE, "parameters": {"\u202e": "\ufffe", "": None}},
        {**CASE, "labels": {}},
        {**CASE, "host": "x" * 100_000},
        {**CASE, "timeout": {}},
        {**CASE, "name": ""},
        {"plan": [], "parameters": None},
    ]
    for body in bodies:
        for path in ("/v1/testcases", "/v1/runs", "/v1/tokens", "/v1/session", "/v1/agents/join", "/v2.1/testcases"):
            answer = await api.call("POST", path, json=body)
            assert answer.status_code < 500, (path, body, answer.text)
