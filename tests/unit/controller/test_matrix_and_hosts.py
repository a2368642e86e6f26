"""A matrix without a cell, cells that would break a line, and what a step came to on one host."""

from typing import Any

import pytest

from proctor_common.states import StepResult
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.expressions.evaluate import ExpressionFault, evaluate
from proctor_controller.domain.plan import Plan, read_plan
from proctor_controller.domain.plan.compile import Birth, compile_run
from proctor_controller.domain.plan.matrix import cell_text
from proctor_controller.domain.runs.scope import InstanceFacts, steps_scope
from proctor_controller.domain.runs.step_rules import NO_CELL, SKIP_NO_CELL
from proctor_controller.domain.runs.submission import RunSpec

HEAD = 'testplan_version: "2026-12-01"\nname: x\nparameters: {sites: {type: list, default: []}}\n'
PASSED = StepResult.PASSED


def read(body: str) -> Plan:
    return read_plan(read_text(HEAD + body), {})


def compiled(found: Plan) -> RunSpec:
    numbers = iter(range(1000))
    return compile_run(found, {}, {}, Birth("r", "x", "", lambda work: work), lambda: str(next(numbers)))


@pytest.mark.parametrize(
    "matrix",
    [
        "{}",
        "{x: []}",
        "{include: []}",
        "{x: [], y: [1, 2]}",
        "{x: [1], exclude: [{x: 1}]}",
        "{x: '${{ params.sites }}'}",
        "{x: '${{ params.sites.filter(s, true) }}', exclude: []}",
    ],
)
def test_a_matrix_without_a_cell_is_a_step_that_is_skipped(matrix: str) -> None:
    found = read(
        f"steps:\n  a: {{uses: p.m, runs_on: {{host: h}}, matrix: {matrix}, if: 'true', outputs: {{o: 1}},\n"
        "      rollback: {uses: p.m}}\n"
        "  b: {uses: p.m, runs_on: {host: h}, depends_on: [a]}\n"
    )
    assert found.steps[0].cells == ()
    spec = compiled(found)
    assert [(step.name, step.instance) for step in spec.steps] == [
        ("a", NO_CELL), ("b", ""), ("rollback.a", NO_CELL),
    ]  # fmt: skip
    assert [node.rules.condition for node in spec.node_specs if node.name == "a" and node.rules] == [SKIP_NO_CELL]
    assert evaluate(SKIP_NO_CELL, {}) is False


def test_a_matrix_without_a_cell_says_nothing_of_its_place() -> None:
    found = read("steps:\n  a: {uses: p.m, runs_on: {host: '${{ matrix.h }}'}, matrix: {h: []}}\n")
    assert [step.instance for step in compiled(found).steps] == [NO_CELL]


def test_others_read_empty_lists_of_a_step_without_a_cell() -> None:
    scope = {"steps": steps_scope([InstanceFacts("a", NO_CELL, StepResult.SKIPPED, {"o": None}, None)])}
    assert evaluate("[steps.a.outputs.o, steps.a.result, steps.a.hosts]", scope) == [[], [], []]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "v=a\\nb"),
        ("a\r\tb", "v=a\\r\\tb"),
        ("\x1b[31mred", "v=\\u001b[31mred"),
        ("a\u2028b\x85", "v=a\\u2028b\\u0085"),
        ("\u202egnp", "v=\\u202egnp"),
        ("plain ü 東", "v=plain ü 東"),
        (None, "v=null"),
        ({"a": "x\ny"}, 'v={"a": "x\\ny"}'),
    ],
)
def test_a_cell_is_named_in_one_line(value: Any, text: str) -> None:
    assert cell_text({"v": value}) == text


def test_cells_that_are_named_alike_are_two() -> None:
    found = read('steps:\n  a: {uses: p.m, runs_on: {host: h}, matrix: {v: ["a\\nb", "a\\\\nb"]}}\n')
    names = [step.instance for step in compiled(found).steps]
    assert names == ["v=a\\nb", "v=a\\nb… #1"]


def by_host(*more: InstanceFacts) -> dict[str, Any]:
    facts = [InstanceFacts("build", f"dut[{n}]", PASSED, {"path": f"/w{n}"}, f"h{n}", {"n": n}) for n in range(2)]
    return {"steps": steps_scope([*facts, *more]), "host": "h1"}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("steps.build.by_host[host].outputs.path", "/w1"),
        ('steps.build.by_host["h0"].result.n', 0),
        ("steps.build.by_host.h1.result.verdict", "passed"),
        ("size(steps.build.by_host)", 2),
        ('"h9" in steps.build.by_host', False),
    ],
)
def test_a_step_on_each_host_is_read_by_host(source: str, value: Any) -> None:
    assert evaluate(source, by_host()) == value


def test_a_step_without_fan_out_is_read_by_host_too() -> None:
    scope = {"steps": steps_scope([InstanceFacts("a", "", PASSED, {"path": "/w"}, "h1")]), "host": "h1"}
    assert evaluate("steps.a.by_host[host].outputs.path", scope) == "/w"


@pytest.mark.parametrize("source", ["steps.build.by_host[host].outputs.path", "steps.build.by_host.h1.outputs.path"])
def test_a_host_with_several_instances_is_a_fault_that_says_so(source: str) -> None:
    scope = by_host(InstanceFacts("build", "dut[1], x=1", PASSED, {"path": "/z"}, "h1"))
    with pytest.raises(ExpressionFault, match="the step build has several instances on the host h1"):
        evaluate(source, scope)
    assert evaluate("steps.build.by_host.h0.outputs.path", scope) == "/w0"


def test_a_host_where_the_step_never_ran_is_a_fault_that_names_those_where_it_did() -> None:
    with pytest.raises(ExpressionFault, match="has no such host: the step ran on h0, h1"):
        evaluate("steps.build.by_host[host].outputs.path", {**by_host(), "host": "h7"})


def test_reading_by_host_makes_an_edge() -> None:
    found = read(
        "hosts: {dut: {group: g, count: 2}}\n"
        "steps:\n  build: {uses: p.m, runs_on: each dut, outputs: {path: x}}\n"
        "  test: {uses: p.m, runs_on: each dut, with: {a: '${{ steps.build.by_host[host].outputs.path }}'}}\n"
    )
    assert [source for source, _ in found.steps[1].depends_on] == ["build"]
