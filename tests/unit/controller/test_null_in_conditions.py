# ruff: noqa: E501 - a case of a table stays on its line
"""Null in conditions: it passes no step, it is waited for, it is told; what can never be a condition is refused."""

from typing import Any

import pytest

from proctor_common.states import StepResult
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.expressions.evaluate import ExpressionFault, holds
from proctor_controller.domain.plan import BadPlan, read_plan
from proctor_controller.domain.runs.scope import InstanceFacts, returned, steps_scope
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.verdict import judge

PASSED, FAILED, SKIPPED = StepResult.PASSED, StepResult.FAILED, StepResult.SKIPPED
KILLED = "ended by SIGKILL"
STEPS = steps_scope(
    [InstanceFacts("a", "", SKIPPED, {"n": None, "flag": None}, None), InstanceFacts("b", "", PASSED, {"n": None}, "h")]
)


def ended(result: StepResult, **output: Any) -> dict[str, Any]:
    code = output.pop("exit_code", None)
    return {"result": returned(result.value, output, None, code), "steps": STEPS, "params": {"p": None}}


@pytest.mark.parametrize(
    "source",
    [
        "result.exit_code > 0", "result.exit_code == 3", "result.exit_code in [1, 2]", "!(result.exit_code in [0, 3])",
        "result.exit_code != 0", "result.exit_code != null && result.exit_code > 0", "-result.exit_code < 0",
        "result.exit_code > 0 && result.exit_code < 9", "int(result.exit_code) == 5", 'result["exit_code"] >= 2',
        "result.exit_code == 3 || result.exit_code == 4",
    ],
)  # fmt: skip
def test_a_command_that_was_killed_never_passes_by_a_condition_on_its_exit_code(source: str) -> None:
    found = judge(Rules(failed_when=source), ended(FAILED), FAILED, KILLED, None)
    assert (found.result, found.reason, found.is_final) == (FAILED, f"{KILLED}; exit_code is null", False)


@pytest.mark.parametrize(
    ("source", "output", "own", "result", "reason"),
    [
        ("result.exit_code > 0 || true", {}, FAILED, FAILED, f"failed_when is true: result.exit_code > 0 || true ({KILLED})"),
        ("result.error != null", {"exit_code": 0}, PASSED, PASSED, ""),
        ("result.error != null || result.exit_code > 3", {"exit_code": 3}, FAILED, PASSED, ""),
        ("result.error.kind == 'x'", {"exit_code": 3}, FAILED, FAILED, f"{KILLED}; error is null"),
        ("result.flag", {"exit_code": 0, "flag": None}, PASSED, FAILED, "failed_when: flag is null"),
        ("result.n == 3", {"exit_code": 0, "n": None}, PASSED, FAILED, "failed_when: n is null"),
        ("result.list[1] > 0", {"exit_code": 0, "list": [1, None]}, PASSED, FAILED, "failed_when: list[1] is null"),
        ("steps.a.outputs.n > 3", {"exit_code": 0}, PASSED, FAILED, "failed_when: steps.a.outputs.n is null"),
        ("result.signal == 'SIGKILL'", {"signal": "SIGINT"}, FAILED, PASSED, ""),
    ],
)  # fmt: skip
def test_null_passes_no_step(
    source: str, output: dict[str, Any], own: StepResult, result: StepResult, reason: str
) -> None:
    found = judge(Rules(failed_when=source), ended(own, **output), own, KILLED if own is FAILED else "", None)
    assert (found.result, found.reason) == (result, reason)


@pytest.mark.parametrize(
    "source",
    ["result.state > 3", "result.state == 'up'", "result.state != 'down'", "result.state", "result.state.x == 1"],
)
def test_until_waits_for_what_is_null(source: str) -> None:
    scope = ended(PASSED, exit_code=0, state=None)
    found = judge(Rules(until=source), scope, PASSED, "", None)
    assert (found.result, found.is_final) == (FAILED, False)
    assert found.reason.startswith(f"until is not true: {source}")
    assert judge(Rules(until="result.state == null"), scope, PASSED, "", None).result is PASSED


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("steps.a.outputs.n > 3", "steps.a.outputs.n is null: the step a ended as skipped"),
        ("steps.a.outputs.flag", "steps.a.outputs.flag is null: the step a ended as skipped"),
        ("steps.b.outputs.n > 3", "steps.b.outputs.n is null (at 1"),
        ("params.p > 1", "params.p is null: no value was given for it"),
        ("params.p.startsWith('x')", "params.p is null"),
        ("steps.b.result.exit_code > 1", "steps.b.result.exit_code is null: there is no exit code"),
        ("steps.b.result.error.kind == 'x'", "steps.b.result.error is null: there was no error"),
    ],
)
def test_a_condition_on_null_names_the_member_and_why(source: str, said: str) -> None:
    with pytest.raises(ExpressionFault) as fault:
        holds(source, ended(PASSED))
    assert said in str(fault.value)


HEAD = 'testplan_version: "2026-12-01"\nname: x\nparameters: {s: {type: string, default: a}, n: {type: number, default: 1}, b: {type: boolean, default: true}, l: {type: list, default: []}, j: {type: json, default: {}}}\nhosts: {dut: {group: g}}\n'


@pytest.mark.parametrize(
    ("word", "source"),
    [
        *((word, source) for word in ("if", "failed_when", "until") for source in ("1", "'\"false\"'", "null", "1 + 1", "params.s", "size(params.l)")),
        ("if", "params.n"), ("if", "params.l"), ("if", "params.j"), ("if", "'[true]'"), ("if", "'{\"a\": true}'"),
        ("if", "run.name"), ("if", "hosts.dut"), ("if", "'hosts.dut[0].host'"), ("if", "'params.b ? 1 : 2'"), ("if", "(((params.n)))"),
        ("if", "matrix.m"), ("if", "steps.o.result.exit_code"), ("if", "steps.o.hosts"), ("if", "'params.l.map(x, x == 1)'"), ("if", "string(params.b)"),
        ("failed_when", "result.exit_code"), ("until", "result.error"), ("failed_when", "result"), ("until", "self.outputs"), ("if", "'-params.n'"),
    ],
)  # fmt: skip
def test_what_can_never_be_a_condition_is_refused(word: str, source: str) -> None:
    text = f"{HEAD}steps:\n  o: {{uses: p.m, runs_on: dut}}\n  a: {{uses: p.m, runs_on: dut, matrix: {{m: [x, 1]}}, {word}: {source}}}\n"
    with pytest.raises(BadPlan) as bad:
        read_plan(read_text(text), {})
    assert [(fault["path"]) for fault in bad.value.faults] == [f"steps.a.{word}"]
    assert bad.value.faults[0]["line"] == 7


@pytest.mark.parametrize(
    "source",
    [
        "true", "params.b", "'!params.b'", "'params.b ? params.b : 1 == 1'", "params.j.flag", "'params.l[0]'", "1 in params.l", "'params.l.exists(x, x == 1)'",
        "'params.s.startsWith(\"a\")'", "(params.b)", "matrix.m", "steps.o.outputs.x", "has(params.j.x)", "dyn(params.b)", "'{\"a\": true}[\"a\"]'", "'[true][0]'",
        "'!(size(params.l) > 1)'", "params.n + 1 == 2", "${{ params.b }}",
    ],
)  # fmt: skip
def test_what_may_be_a_condition_is_taken(source: str) -> None:
    text = f"{HEAD}steps:\n  o: {{uses: p.m, runs_on: dut, outputs: {{x: 1}}}}\n  a: {{uses: p.m, runs_on: dut, matrix: {{m: [true, 1]}}, if: {source!s}}}\n".replace(
        "if: ${{ params.b }}", "if: '${{ params.b }}'"
    )
    read_plan(read_text(text), {})
