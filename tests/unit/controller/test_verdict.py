"""What a plan makes of the end of an attempt."""

from typing import Any

import pytest

from proctor_common.states import StepResult
from proctor_controller.domain.runs.scope import InstanceFacts, returned, steps_scope
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.verdict import judge

PASSED, FAILED, ERROR = StepResult.PASSED, StepResult.FAILED, StepResult.ERROR
QMP = {"kind": "qmp", "message": "no medium", "data": {"class": "GenericError"}}


@pytest.mark.parametrize(
    ("rules", "result", "end", "verdict", "reason"),
    [
        (Rules(failed_when="!(result.exit_code in [0, 3])"), FAILED, {"exit_code": 3}, PASSED, ""),
        (Rules(failed_when="!(result.exit_code in [0, 3])"), FAILED, {"exit_code": 4}, FAILED, "failed_when is true"),
        (Rules(failed_when="result.exit_code == 0"), PASSED, {"exit_code": 0}, FAILED, "failed_when is true"),
        (Rules(failed_when="false"), ERROR, {}, ERROR, "as it was"),
        (Rules(failed_when="result.exit_code"), PASSED, {"exit_code": 0}, ERROR, "true or false"),
        (Rules(failed_when="result.nothing"), PASSED, {}, ERROR, "has no member nothing (at 1 of"),
        (Rules(until="result.last == 'ready'"), PASSED, {"output": {"last": "no"}}, FAILED, "until is not true"),
        (Rules(until="result.last == 'ready'"), PASSED, {"output": {"last": "ready"}}, PASSED, ""),
        (Rules(until="true"), FAILED, {}, FAILED, "as it was"),
        (Rules(outputs={"a": "${{ result.text }}"}), PASSED, {"output": {"text": "x" * 65600}}, ERROR, "65602 bytes"),
        (Rules(outputs={"a": "${{ 1 / 0 }}"}), PASSED, {}, ERROR, "outputs.a: division by zero"),
        (Rules(outputs={"a": "${{ 1 / 0 }}"}), FAILED, {}, FAILED, "as it was"),
        (Rules(expect={"kind": "qmp", "contains": "medium"}), ERROR, {"error": QMP}, PASSED, ""),
        (Rules(expect={"kind": "qmp", "class": "GenericError"}), FAILED, {"error": QMP}, PASSED, ""),
        (Rules(expect={"kind": "qmp", "class": "Other"}), ERROR, {"error": QMP}, FAILED, "but it was qmp: no medium"),
        (Rules(expect={"kind": "ssh"}), ERROR, {"error": QMP}, FAILED, "but it was qmp"),
        (Rules(expect={"kind": "qmp"}), PASSED, {}, FAILED, "but the method passed"),
    ],
)
def test_verdicts(rules: Rules, result: StepResult, end: dict[str, Any], verdict: StepResult, reason: str) -> None:
    scope = {"result": returned(result.value, **end)}
    found = judge(rules, scope, result, "as it was" if result is not PASSED else "", end.get("error"))
    assert (found.result, reason in found.reason) == (verdict, True), found.reason
    assert found.is_final == (found.result is ERROR and found.reason != "as it was")


def test_outputs_keep_their_types() -> None:
    rules = Rules(outputs={"n": "${{ result.n }}", "text": "n=${{ result.n }}", "list": "${{ [result.n, null] }}"})
    found = judge(rules, {"result": {"n": 3}}, PASSED, "", None)
    assert found.outputs == {"n": 3, "text": "n=3", "list": [3, None]}


def test_a_step_is_shown_to_others_as_it_is_written() -> None:
    plain = InstanceFacts("a", "", PASSED, {"x": 1}, "h1", {"last": "y"}, None, 0)
    cells = [InstanceFacts("m", f"n={n}", PASSED if n else None, {"x": n} if n else None, None) for n in range(2)]
    scope = steps_scope([plain, *cells])
    assert scope["a"] == {
        "result": {"last": "y", "exit_code": 0, "error": None, "verdict": "passed"},
        "outputs": {"x": 1},
        "hosts": ["h1"],
        "by_host": {"h1": {"result": scope["a"]["result"], "outputs": {"x": 1}}},
    }
    assert scope["m"]["outputs"] == {"x": [None, 1]}
    assert [result["verdict"] for result in scope["m"]["result"]] == [None, "passed"]
    assert scope["m"]["hosts"] == []
