"""``/v2.1/testplan``: the legacy shapes, to the letter."""

import json
from typing import Any

from proctor_common.errors import fault, faults
from proctor_common.messages.views import DocumentView, StepView
from proctor_common.states import RunResult, RunState, StepResult, StepState
from support.api_world import Api

STEP = {"plugin": "linux_system", "method": "run_shell", "parameters": {"command": "echo", "args": "a  b"}}
PLAN = {
    "name": "两 steps",
    "environment": {"Data": {"STA1": "10.0.0.1", "WORDS": {"who": "x"}}, "Unused": {"a": 1}},
    "testplan": {
        "2": {"Serial-Step-1": {"1": {**STEP, "host": "h"}}},
        "1": {
            "Parallel-Step-1": {
                "DESCRIPTION": "two at once",
                "1": {**STEP, "host": {"get_param": "Data:STA1"}},
                "2": {
                    **STEP, "host": "h",
                    "parameters": {"deep": [{"get_param": "Data:WORDS"}], "no": {"get_param": "X:Y"}},
                },
            },
            "Serial-Step-1": {"1": {**STEP, "host": "h", "parameters": {"token": "t0p"}}},
        },
    },
}  # fmt: skip


async def test_a_plan_from_its_start_to_its_end(api: Api) -> None:
    answer = await api.call("POST", "/v2.1/testplan", json={**PLAN, "ignored": True})
    assert (answer.status_code, answer.json()) == (202, {"TestPlan": 1})
    assert api.world.asked["run.submit"][-1].body["plan"] == PLAN
    run = next(iter(api.world.runs.values()))
    run.kind, run.name = "seed", "两 steps"
    attempts = {name: api.world.begin(run, name) for name in ("case-1-step-1", "case-1-step-2")}
    api.world.answers["run.document"] = DocumentView(run=run.id, document=json.dumps(PLAN))
    view = (await api.call("GET", "/v2.1/testplan/1")).json()
    assert view == {
        "TestCase : 1": {
            "TestStep : 1": {"input": {"host": "10.0.0.1", **STEP}, "output": {}},
            "TestStep : 2": {
                "input": {
                    **STEP, "host": "h", "parameters": {"deep": [{"who": "x"}], "no": {"get_param": "X:Y"}}
                },
                "output": {},
            },
        }
    }  # fmt: skip

    await api.world.write(run, attempts["case-1-step-1"], "one\n", "two\n")
    run.attempts.clear()
    common: dict[str, Any] = {"state": StepState.FINISHED, "attempt": 1}
    api.world.waiting_steps = [
        StepView(id=attempts["case-1-step-1"].step_id, agent=attempts["case-1-step-1"].agent, step="case-1-step-1",
                 result=StepResult.PASSED, log_bytes=8, output={"stdout": "one\n"}, **common),
        StepView(id=attempts["case-1-step-1"].step_id, agent=attempts["case-1-step-1"].agent, step="case-1-step-5",
                 result=StepResult.ERROR, log_bytes=8, error={"message": "no ping"}, **common),
        StepView(id="x", step="case-1-step-2", result=StepResult.ERROR, error={"message": "no route"}, **common),
        StepView(id="y", step="case-1-step-3", result=StepResult.FAILED, parameters={"token": "***"},
                 output={"stdout": "x" * 100_000}, log_bytes=100_000, **common),
        StepView(id="w", step="case-1-step-4", result=StepResult.CANCELLED, **common),
        StepView(id="z", step="case-2-step-1", state=StepState.RUNNING, attempt=1),
    ]  # fmt: skip
    run.state, run.result = RunState.FINISHED, RunResult.FAILED
    view = (await api.call("GET", "/v2.1/testplan/1")).json()
    first = view["TestCase : 1"]
    assert list(view) == ["TestCase : 1", "TestCase : 2"]
    assert first["TestStep : 1"]["output"] == {"log": "one\ntwo\n", "result": "PASS"}
    assert first["TestStep : 2"]["output"] == {"log": "no route", "result": "FAIL"}
    assert first["TestStep : 3"]["output"] == {"log": "x" * 64 * 1024, "result": "FAIL"}
    assert first["TestStep : 3"]["input"]["parameters"] == {"token": "***"}
    assert first["TestStep : 5"]["output"] == {"log": "one\ntwo\nno ping\n", "result": "FAIL"}
    assert first["TestStep : 4"]["output"] == {"log": "cancelled", "result": "FAIL"}
    assert view["TestCase : 2"]["TestStep : 1"] == {"input": {**STEP, "host": "h"}, "output": {}}


async def test_faults_keep_the_seed_s_shape(api: Api) -> None:
    for number in ("7", "x", "0"):
        answer = await api.call("GET", f"/v2.1/testplan/{number}")
        assert (answer.status_code, answer.json()) == (404, {"code": 404, "message": f"no such testplan: {number}"})
    api.world.add_run()
    assert (await api.call("GET", "/v2.1/testplan/1")).status_code == 404  # a test case's number
    errors = [fault("invalid", "must be a mapping", "testplan.1"), fault("too_large", "the plan is too large")]
    api.world.refusals["run.submit"] = faults(errors)
    answer = await api.call("POST", "/v2.1/testplan", json={**PLAN, "environment": None})
    said = "testplan.1: must be a mapping; the plan is too large"
    assert (answer.status_code, answer.json()) == (422, {"code": 422, "message": said})
    answer = await api.call("POST", "/v2.1/testplan", json={"name": "x"})
    assert (answer.status_code, set(answer.json())) == (422, {"code", "message"})
