"""Pods, projects and test cases of the Test API: paths, codes, bodies, and the order of the checks."""

import re
from base64 import b64encode
from typing import Any

import httpx

from support.api_world import FIRST_TOKEN, Api

PODS, PROJECTS, CASES = "/api/v1/pods", "/api/v1/projects", "/api/v1/projects/functest/cases"


async def declare(api: Api) -> None:
    """A pod, a project and a test case."""
    for path, name in ((PODS, "lab"), (PROJECTS, "functest"), (CASES, "vPing")):
        assert (await api.call("POST", path, json={"name": name})).status_code == 200


async def codes(api: Api, method: str, path: str, *bodies: bytes) -> list[int]:
    return [(await api.call(method, path, content=body)).status_code for body in bodies]


def told(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """The answer's JSON; that it has this status and, where it is a refusal, says these words."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    if status >= 400:
        assert body["code"] == status
        for word in words:
            assert word in body["message"]
    return body


async def test_versions(api: Api) -> None:
    expected = {"versions": [{"version": "v1.0", "description": "basics"}]}
    assert told(await api.call("GET", "/versions"), 200) == expected
    assert told(await api.call("GET", "/versions/"), 200) == expected


async def test_a_pod_from_its_declaration_to_its_end(api: Api) -> None:
    assert told(await api.call("GET", PODS), 200) == {"pods": []}
    body = {"name": "pod_foo", "mode": "metal", "role": "ci-pod", "details": "words", "unknown": 1, "_id": "mine"}
    assert told(await api.call("POST", PODS, json=body), 200) == {"href": f"{api.url}{PODS}/pod_foo"}
    pod = told(await api.call("GET", f"{PODS}/pod_foo"), 200)
    assert re.fullmatch(r"[0-9a-f]{24}", pod["_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", pod["creation_date"])
    assert {k: pod[k] for k in ("name", "mode", "role", "details")} == {
        "name": "pod_foo",
        "mode": "metal",
        "role": "ci-pod",
        "details": "words",
    }
    assert set(pod) == {"_id", "name", "mode", "role", "details", "creation_date"}
    told(await api.call("POST", PODS, json={"name": "pod_foo"}), 403, "pod_foo", "exists")
    assert told(await api.call("GET", PODS), 200) == {"pods": [pod]}
    gone = await api.call("DELETE", f"{PODS}/pod_foo")
    assert (gone.status_code, gone.content) == (200, b"")
    told(await api.call("DELETE", f"{PODS}/pod_foo"), 404, "pod_foo")
    told(await api.call("GET", f"{PODS}/pod_foo"), 404, "pod_foo")


NO_RECORDS = [b"", b"null", b"not json", b"{}", b'{"name":null}', b'{"name":""}', b"[1]", b'"x"', b'{"name":5}']


async def test_a_body_without_a_name_is_400(api: Api) -> None:
    await declare(api)
    for path in (PODS, PROJECTS, CASES, "/api/v1/projects/unknown/cases"):
        assert set(await codes(api, "POST", path, *NO_RECORDS)) == {400}
    assert set(await codes(api, "PUT", f"{PROJECTS}/unknown", b"", b"null", b"[]", b'{"name":""}', b'{"x":1}')) == {400}
    assert len((await api.call("GET", PODS)).json()["pods"]) == 1


async def test_a_project_is_changed_in_any_part(api: Api) -> None:
    await declare(api)
    told(await api.call("POST", PROJECTS, json={"name": "other"}), 200)
    old = told(await api.call("GET", f"{PROJECTS}/functest"), 200)
    made = told(await api.call("PUT", f"{PROJECTS}/functest", json={"description": "words"}), 200)
    assert made == {**old, "description": "words"}
    told(await api.call("PUT", f"{PROJECTS}/functest", json={"description": "words"}), 403, "nothing to update")
    told(await api.call("PUT", f"{PROJECTS}/functest", json={}), 403, "nothing to update")
    told(await api.call("PUT", f"{PROJECTS}/functest", json=made), 403, "nothing to update")
    told(await api.call("PUT", f"{PROJECTS}/functest", json={"name": "other"}), 403, "exists")
    told(await api.call("PUT", f"{PROJECTS}/unknown", json={"description": "x"}), 404, "unknown")
    renamed = told(await api.call("PUT", f"{PROJECTS}/functest", json={"name": "functest2"}), 200)
    assert renamed == {**made, "name": "functest2"}
    cases = told(await api.call("GET", f"{PROJECTS}/functest2/cases"), 200)["testcases"]
    assert [(case["name"], case["project_name"]) for case in cases] == [("vPing", "functest2")]
    told(await api.call("DELETE", f"{PROJECTS}/functest2"), 401, "test cases refer")
    assert (await api.call("DELETE", f"{PROJECTS}/other")).status_code == 200


async def test_a_test_case_and_its_moves(api: Api) -> None:
    await declare(api)
    for name in ("yardstick", "qtip"):
        await api.call("POST", PROJECTS, json={"name": name})
    assert told(await api.call("GET", "/api/v1/projects/unknown/cases"), 200) == {"testcases": []}
    told(await api.call("POST", "/api/v1/projects/unknown/cases", json={"name": "x"}), 403, "unknown")
    told(await api.call("POST", CASES, json={"name": "vPing"}), 403, "exists")
    body = {"name": "Ping", "url": "u", "tier": "smoke", "run": {"module": "x"}, "tags": ["a"], "nobody": 1}
    assert told(await api.call("POST", CASES, json=body), 200) == {"href": f"{api.url}{CASES}/Ping"}
    case = told(await api.call("GET", f"{CASES}/Ping"), 200)
    assert {k: v for k, v in case.items() if v is not None and k not in {"_id", "creation_date"}} == {
        **{k: v for k, v in body.items() if k != "nobody"},
        "project_name": "functest",
    }
    told(await api.call("PUT", f"{CASES}/Ping", json={"project_name": "unknown"}), 403, "unknown")
    told(await api.call("PUT", f"{CASES}/Ping", json={"name": "vPing"}), 403, "exists")
    told(await api.call("PUT", f"{CASES}/nope", json={"project_name": "yardstick"}), 404)
    moved = told(await api.call("PUT", f"{CASES}/Ping", json={"project_name": "yardstick"}), 200)
    assert moved == {**case, "project_name": "yardstick"}
    assert [c["name"] for c in told(await api.call("GET", CASES), 200)["testcases"]] == ["vPing"]
    assert (await api.call("DELETE", "/api/v1/projects/yardstick/cases/Ping")).content == b""
    told(await api.call("GET", "/api/v1/projects/yardstick/cases/Ping"), 404)


async def test_names_are_found_by_a_bounded_expression(api: Api) -> None:
    for name in ("LF-pod1", "lf-pod2", "zte-pod1"):
        await api.call("POST", PODS, json={"name": name})

    async def found(pattern: str) -> list[str]:
        answer = await api.call("GET", PODS, params={"name": pattern})
        return [pod["name"] for pod in told(answer, 200)["pods"]]

    assert await found("lf") == ["LF-pod1", "lf-pod2"]
    assert await found("POD1$") == ["LF-pod1", "zte-pod1"]
    assert await found("(a+)+$") == []
    for wrong in ("(", "a" * 257, "((a{1000}){1000}){1000}", "(?=a)"):
        told(await api.call("GET", PODS, params={"name": wrong}), 400, "name")


async def test_no_redirect_and_no_other_methods(api: Api) -> None:
    await declare(api)
    assert told(await api.call("POST", f"{PODS}/", json={"name": "x"}), 200) == {"href": f"{api.url}{PODS}/x"}
    for path in (PODS, PROJECTS, CASES, f"{PODS}/lab", f"{PROJECTS}/functest", f"{CASES}/vPing", "/api/v1/results"):
        assert (await api.call("GET", f"{path}/")).status_code == 200
    wrong = [("PUT", PODS), ("DELETE", PODS), ("POST", f"{PODS}/lab"), ("PATCH", f"{PROJECTS}/functest")]
    wrong += [("PUT", CASES), ("DELETE", f"{CASES}/"), ("DELETE", f"{PROJECTS}/"), ("DELETE", f"{PODS}/")]
    wrong += [("GET", "/api/v1/scenarios/x/owner")]
    for method, path in [*wrong, ("DELETE", "/versions"), ("PUT", "/api/v1/results"), ("POST", f"{CASES}/vPing")]:
        told(await api.call(method, path, json={"name": "y"}), 405)


async def test_every_name_that_is_taken_has_an_address_of_its_own(api: Api) -> None:
    for project in ("cases", "a/b", "a b?#%41", "a/casesque"):
        made = (await api.call("POST", PROJECTS, json={"name": project})).json()["href"]
        assert told(await api.call("GET", made), 200)["name"] == project
        for case in ("cases", "c/cases", "cases/c", "x/cases/y"):
            href = told(await api.call("POST", f"{made}/cases", json={"name": case}), 200)["href"]
            found = told(await api.call("GET", href), 200)
            assert (found["project_name"], found["name"]) == (project, case)
            assert (await api.call("DELETE", href)).status_code == 200
        assert (await api.call("DELETE", made)).status_code == 200
    for name in ("a\nb", "..", "a/../b", ".", "\x7f"):
        for path in (PODS, PROJECTS, "/api/v1/scenarios"):
            told(await api.call("POST", path, json={"name": name}), 400, "name")
    for name in ("x/cases", "x/cases/y"):
        told(await api.call("POST", PROJECTS, json={"name": name}), 400, "cases")
    told(await api.call("POST", "/api/v1/scenarios", json={"name": "x/scores"}), 400, "slash")


async def test_the_short_way_past_the_framework_answers_as_the_long_one(api: Api) -> None:
    """Lists go the short way, single things the long one."""
    await declare(api)
    short, long = await api.call("GET", PODS), await api.call("GET", f"{PODS}/lab")
    kept = {"content-length", "date"}
    assert {n: v for n, v in short.headers.items() if n not in kept} == {
        n: v for n, v in long.headers.items() if n not in kept
    }
    assert short.headers["content-security-policy"].startswith("default-src 'none'")
    for method, path, status in (("PATCH", PODS, 405), ("HEAD", PODS, 200), ("GET", f"{PODS}x", 404)):
        assert (await api.call(method, path)).status_code == status
    told(await api.http.get(PODS), 401, "token")
    assert (await api.http.get(PODS)).headers["www-authenticate"] == 'Bearer realm="proctor"'
    told(await api.call("POST", PODS, json={"name": ""}), 400, "name")
    told(await api.call("GET", f"{PODS}?name=%00"), 400, "NUL")
    counted = (await api.call("GET", "/metrics")).text
    assert f'proctor_api_requests_total{{method="GET",route="{PODS}",status="401"}} 2.0' in counted


async def test_the_ways_of_a_token(api: Api) -> None:
    async def by(**headers: str) -> int:
        return (await api.http.get(PODS, headers=headers)).status_code

    def basic(text: str) -> dict[str, str]:
        return {"Authorization": f"Basic {b64encode(text.encode()).decode()}"}

    assert await by() == 401
    assert await by(**{"X-Auth-Token": FIRST_TOKEN}) == 200
    assert await by(**{"X-Auth-Token": "wrong"}) == 401
    assert await by(**basic(f"opnfv:{FIRST_TOKEN}")) == 200
    assert await by(**basic("opnfv:api@opnfv")) == 401
    assert await by(Authorization="Basic ???") == 401
    assert (await api.http.get("/v1/runs", headers={"X-Auth-Token": FIRST_TOKEN})).status_code == 401
    viewer = await api.token("viewer")
    assert (await api.call("POST", PODS, viewer, json={"name": "x"})).status_code == 403
    assert (await api.call("GET", PODS, viewer)).status_code == 200


async def test_a_bound_token_changes_nothing_that_all_share(api: Api) -> None:
    await declare(api)
    bound = await api.token("runner", ["lab-a"])
    assert (await api.call("POST", PODS, bound, json={"name": "mine"})).status_code == 200
    told(await api.call("PUT", f"{PROJECTS}/functest", bound, json={"name": "x"}), 403, "bound")
    told(await api.call("DELETE", f"{PODS}/mine", bound), 403, "bound")
    several = await api.token("runner", ["lab-a", "lab-b"])
    result = {"pod_name": "lab", "project_name": "functest", "case_name": "vPing"}
    told(await api.call("POST", "/api/v1/results", several, json=result), 403, "several groups")
    assert (await api.call("POST", "/api/v1/results", bound, json=result)).status_code == 200
    other = await api.token("viewer", ["lab-b"])
    assert told(await api.call("GET", "/api/v1/results", other), 200)["results"] == []


async def test_callers_without_a_token_create_where_the_operator_lets_them(start_api: Any) -> None:
    api: Api = await start_api(anonymous="results")
    for path, name in ((PODS, "lab"), (PROJECTS, "functest"), (CASES, "vPing")):
        assert (await api.http.post(path, json={"name": name})).status_code == 200
    result = {"pod_name": "lab", "project_name": "functest", "case_name": "vPing"}
    assert (await api.http.post("/api/v1/results", json=result)).status_code == 200
    old, expired = ("opnfv", "api@opnfv"), ("opnfv", f"prt_{'x' * 40}")
    assert (await api.http.post("/api/v1/results", json=result, auth=old)).status_code == 200
    assert (await api.http.post("/api/v1/results", json=result, auth=expired)).status_code == 401
    assert (await api.http.delete(f"{PODS}/lab", auth=old)).status_code == 401
    assert (await api.http.get("/v1/runs", auth=old)).status_code == 401
    assert (await api.http.put(f"{PROJECTS}/functest", json={"description": "x"})).status_code == 401
    assert (await api.http.delete(f"{PODS}/lab")).status_code == 401
    assert (await api.http.post("/v1/testcases", json={})).status_code == 401


async def test_the_address_follows_root_path_and_trusted_proxies(start_api: Any) -> None:
    forwarded = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "testresults.example.org",
        "X-Forwarded-For": "203.0.113.9, 127.0.0.1",
    }
    api: Api = await start_api(root_path="/test", trusted_proxies=("127.0.0.0/8",))
    plain = await api.call("POST", PODS, json={"name": "a"})
    assert plain.json() == {"href": f"{api.url}/test{PODS}/a"}
    kept = await api.call("POST", f"/test{PODS}/", json={"name": "b"}, headers=forwarded)
    assert kept.json() == {"href": f"https://testresults.example.org/test{PODS}/b"}
    prefixed = await api.call("POST", PODS, json={"name": "c"}, headers={**forwarded, "X-Forwarded-Prefix": "/other"})
    assert prefixed.json() == {"href": f"https://testresults.example.org/other{PODS}/c"}


async def test_strangers_are_not_believed(api: Api) -> None:
    answer = await api.call("POST", PODS, json={"name": "a b/c"}, headers={"X-Forwarded-Host": "evil.example"})
    assert answer.json() == {"href": f"{api.url}{PODS}/a%20b%2Fc"}
    assert (await api.call("GET", f"{PODS}/a%20b%2Fc")).json()["name"] == "a b/c"
