"""``/v2.1``: the legacy shapes, to the letter."""

from proctor_common.messages.views import AgentView
from proctor_common.states import AgentState, RunResult, RunState
from support.api_world import Api, agent

CASE = {
    "plugin": "linux_system",
    "host": "local-1",
    "method": "run_shell",
    "parameters": {"command": "ls", "args": "-alt"},
}
SPEC = {"methods": {"run_shell": {"description": "words"}, "system_information": {"description": "more words"}}}


def two_agents(api: Api) -> tuple[AgentView, AgentView]:
    first = agent("135.251.149.80", 6, plugins={"linux_system": SPEC, "build_server": SPEC})
    second = agent("135.251.149.81", 7, plugins={"linux_system": SPEC})
    api.world.agents += [first, second, agent("gone", 8, state=AgentState.REMOVED)]
    return first, second


async def test_slaves(api: Api) -> None:
    first, second = two_agents(api)
    methods = {"run_shell": "words", "system_information": "more words"}
    detail = {
        "compute_node_method": {"linux_system": methods, "build_server": methods},
        "compute_node_type": "linux_system,build_server",
        "host": "135.251.149.80",
        "id": 6,
    }
    brief = (await api.call("GET", "/v2.1/slaves")).json()
    assert brief == {first.id: {"host": first.host, "id": 6}, second.id: {"host": second.host, "id": 7}}
    assert (await api.call("GET", "/v2.1/slaves/detail")).json()[first.id] == detail
    assert (await api.call("GET", "/v2.1/slaves/6")).json() == {**detail, "uuid": first.id}
    for wrong in ("99", "8", "0", "-1", "x", "9" * 30, first.id):
        answer = await api.call("GET", f"/v2.1/slaves/{wrong}")
        assert (answer.status_code, answer.json()) == (404, {"code": 404, "message": f"no such slave: {wrong}"})


async def test_a_test_case_from_its_start_to_its_end(api: Api) -> None:
    answer = await api.call("POST", "/v2.1/testcases", json=CASE)
    assert (answer.status_code, answer.json()) == (202, {"CaseId": 1})
    sent = api.world.asked["case.submit"][-1].body
    assert (sent["host"], sent["parameters"]) == ("local-1", CASE["parameters"])
    run = next(iter(api.world.runs.values()))
    api.world.begin(run)
    for state, word in ((RunState.QUEUED, "initing"), (RunState.RUNNING, "execute"), (RunState.CANCELLING, "execute")):
        run.state = state
        assert (await api.call("GET", "/v2.1/testcases/1")).json() == {"CaseId": 1, "Message": "", "Status": word}
    run.outputs = {"stdout": "total 0\n", "exit_code": 0}
    run.state, run.result = RunState.FINISHED, RunResult.PASSED
    done = (await api.call("GET", "/v2.1/testcases/1")).json()
    assert done == {"CaseId": 1, "Message": "total 0\n", "Status": "successfully"}
    run.result = RunResult.TIMED_OUT
    assert (await api.call("GET", "/v2.1/testcases/1")).json()["Status"] == "fail"


async def test_what_is_not_there_is_named(api: Api) -> None:
    for member, value in (("host", "10.0.0.9"), ("plugin", "nope"), ("method", "nope")):
        answer = await api.call("POST", "/v2.1/testcases", json={**CASE, member: value})
        assert answer.status_code == 404
        assert answer.json() == {"code": 404, "message": f"no such {member}: {value}"}
    for number in ("7", "x", "0"):
        answer = await api.call("GET", f"/v2.1/testcases/{number}")
        assert (answer.status_code, answer.json()["message"]) == (404, f"no such testcase: {number}")
    assert not api.world.runs


async def test_faults_keep_the_seed_s_shape(api: Api) -> None:
    for how, status in (({"content": b"{"}, 400), ({"json": {"plugin": "x"}}, 422)):
        answer = await api.call("POST", "/v2.1/testcases", headers={"Content-Type": "application/json"}, **how)
        assert answer.status_code == status
        assert set(answer.json()) == {"code", "message"}
        assert answer.json()["code"] == status
    assert (await api.http.get("/v2.1/slaves")).json()["code"] == 401
    assert (await api.call("GET", "/v2.1/nowhere")).json()["code"] == 404
