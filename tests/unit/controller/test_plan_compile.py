"""From a checked plan to step instances, nodes and edges; calls against schemas; the stored text."""

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from proctor_common.errors import Fault
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.hosts.requirements import requirements_of
from proctor_controller.domain.plan import Plan, read_plan
from proctor_controller.domain.plan.calls import CheckedCall, check_call
from proctor_controller.domain.plan.compile import Birth, compile_run, find_explosion
from proctor_controller.domain.plan.legacy import examine_legacy, is_legacy, read_legacy
from proctor_controller.domain.plan.masking import mask_text
from proctor_controller.domain.plan.model import Path
from proctor_controller.domain.runs.step import Condition, Phase
from proctor_controller.domain.runs.step_rules import rules_of
from proctor_controller.domain.runs.submission import RunSpec
from unit.controller.plans import EVERYTHING

ANY: dict[str, Any] = {"type": "object"}
METHOD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "command": {"type": "string"},
        "args": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "x-argv": True},
        "password": {"type": "string", "x-secret": True},
        "more": {"type": "object", "properties": {"key": {"type": "string", "x-secret": True}}},
        "n": {"type": "integer", "minimum": 3},
    },
    "required": ["command"],
    "additionalProperties": False,
}


def compiled(found: Plan, schema: Mapping[str, Any] = ANY) -> RunSpec:
    numbers = count(1)
    birth = Birth("r1", found.name, "text", lambda work: work)
    calls = {step.path: check_call(step, schema, found.hidden) for step in found.calls() if step.plugin}
    children: dict[Path, str] = {("steps", "soak"): "soak-plan@3"}
    return compile_run(found, calls, children, birth, lambda: f"s{next(numbers)}")


def test_a_matrix_names_where_each_of_its_cells_runs() -> None:
    text = """testplan_version: "2026-12-01"
name: spread
parameters: {sites: {type: list, default: [a, b]}}
hosts: {one: {group: g}, two: {group: g, count: 2}}
steps:
  by-host:
    uses: p.m
    runs_on: {host: "h-${{ matrix.site }}"}
    matrix: {site: "${{ params.sites }}", n: [1, 2], exclude: [{site: a, n: 2}]}
    rollback: {uses: q.undo}
  by-role:
    uses: r.m
    runs_on: "${{ matrix.on }}"
    matrix: {on: [one, each two, "two[1]"]}
    if: host != ""
"""
    plan = read_plan(read_text(text), {})
    spec = compiled(plan)
    at = [(step.node, step.instance, step.place.host, step.role, step.role_index) for step in spec.steps]
    assert at[:3] == [
        ("by-host", "site=a, n=1", "h-a", None, None),
        ("by-host", "site=b, n=1", "h-b", None, None),
        ("by-host", "site=b, n=2", "h-b", None, None),
    ]
    assert at[3:7] == [
        ("by-role", "on=one", None, "one", 0),
        ("by-role", "two[0], on=each two", None, "two", 0),
        ("by-role", "two[1], on=each two", None, "two", 1),
        ("by-role", "on=two[1]", None, "two", 1),
    ]
    assert [(node.removeprefix("rollback."), *where) for node, *where in at[7:]] == at[:3]
    assert [role.uses for role in plan.wants.roles] == [("r.m",), ("r.m",)]
    assert [step.place.host for step in plan.steps[0].spread()] == ["h-a", "h-b"]
    everywhere = json.dumps(["each" + " " * n + "two" for n in range(1, 52)])
    wide = text.replace("count: 2", "count: 200").replace('[one, each two, "two[1]"]', everywhere)
    (fault,) = find_explosion(read_plan(read_text(wide), {}))
    assert "10206 step instances, 10200 of this step" in fault["message"]


def test_the_plan_with_everything_as_a_run() -> None:
    spec = compiled(read_plan(read_text(EVERYTHING), {"token": "s3cret"}))

    assert [(step.node, step.instance, step.phase.value) for step in spec.steps] == [
        ("build", "", "main"),
        ("deploy", "dut[0]", "main"),
        ("deploy", "dut[1]", "main"),
        ("smoke", "case=vping, site=a", "main"),
        ("smoke", "case=vping, site=b", "main"),
        ("smoke", "case=tempest, site=a", "main"),
        ("approve", "", "main"),
        ("soak", "", "main"),
        ("rollback.deploy", "dut[0]", "rollback"),
        ("rollback.deploy", "dut[1]", "rollback"),
        ("on_failure[0]", "dut[0]", "on_failure"),
        ("on_failure[0]", "dut[1]", "on_failure"),
        ("always[0]", "dut[0]", "always"),
        ("always[0]", "dut[1]", "always"),
    ]
    deploys = [step for step in spec.steps if step.node == "deploy"]
    undoing = [step for step in spec.steps if step.phase is Phase.ROLLBACK]
    assert [(step.of, step.role_index) for step in undoing] == [(step.id, step.role_index) for step in deploys]
    assert spec.main_steps == 8
    assert {(edge.source, edge.target, edge.condition) for edge in spec.edges} == {
        ("build", "deploy", Condition.SUCCEEDED),
        ("deploy", "smoke", Condition.SUCCEEDED),
        ("smoke", "approve", Condition.SUCCEEDED),
        ("approve", "soak", Condition.SUCCEEDED),
    }
    assert spec.parameters == {"image": "vnf-1.4", "sites": ["a", "b"], "token": "***"}
    nodes = {node.name: node for node in spec.node_specs}
    assert (nodes["smoke"].max_parallel, nodes["smoke"].fail_fast) == (4, False)
    assert nodes["soak"].rules is not None
    assert nodes["soak"].rules.child is not None
    assert nodes["soak"].rules.child.plan == "soak-plan@3"
    assert nodes["always[0]"].rules is None
    for node in spec.node_specs:
        assert rules_of(node.rules.to_json() if node.rules else None) == node.rules
    assert requirements_of(spec.wants.to_json()) == spec.wants
    slice_ = spec.first_slice()
    assert ([step.node for step in slice_.steps], slice_.run.undecided, slice_.more) == (["build"], 8, False)
    main = [node for node in spec.nodes().values() if node.phase is Phase.MAIN]
    assert {node.name: (node.unfinished, node.undecided) for node in main} == {
        "build": (1, 0), "deploy": (2, 1), "smoke": (3, 1), "approve": (1, 1), "soak": (1, 1),
    }  # fmt: skip


def test_rollbacks_go_backwards_across_steps_that_have_none() -> None:
    undo = "rollback: {uses: p.m}"
    spec = compiled(
        read_plan(
            read_text(
                f"""testplan_version: "2026-12-01"
name: x
steps:
  a: {{uses: p.m, runs_on: {{host: h}}, {undo}}}
  b: {{uses: p.m, runs_on: {{host: h}}, depends_on: [a]}}
  c: {{uses: p.m, runs_on: {{host: h}}, depends_on: [b], {undo}}}
  d: {{uses: p.m, runs_on: {{host: h}}, depends_on: [a, c], {undo}}}
always: [{{uses: p.m, runs_on: {{host: h}}}}, {{uses: p.m, runs_on: {{host: h}}}}]
"""
            )
        )
    )
    cleanup = {(edge.source, edge.target) for edge in spec.edges if edge.condition is Condition.COMPLETED}
    assert cleanup == {
        ("rollback.c", "rollback.a"),
        ("rollback.d", "rollback.c"),
        ("rollback.d", "rollback.a"),
        ("always[0]", "always[1]"),
    }
    assert [step.place.host for step in spec.steps if step.phase is Phase.ROLLBACK] == ["h", "h", "h"]


def test_too_many_instances_are_refused_at_the_step_that_brings_most() -> None:
    cells = ", ".join(map(str, range(200)))
    found = read_plan(
        read_text(
            f"""testplan_version: "2026-12-01"
name: x
hosts: {{dut: {{group: g, count: 60}}}}
steps:
  few: {{uses: p.m, runs_on: each dut}}
  many: {{uses: p.m, runs_on: each dut, matrix: {{n: [{cells}]}}}}
"""
        )
    )
    (fault,) = find_explosion(found)
    assert (fault["path"], fault["code"]) == ("steps.many", "too_large")
    assert "12060 step instances, 12000 of this step" in fault["message"]


@pytest.mark.parametrize(
    "many",
    [
        "matrix: {n: [CELLS], m: [1, 2]}, with: {body: TEXT}",
        "matrix: {n: [CELLS], m: [1, 2]}, env: {BODY: TEXT}",
        "matrix: {n: [CELLS], m: [TEXT, 2]}",
    ],
)
def test_few_characters_are_not_multiplied_without_end(many: str) -> None:
    def found(size: int) -> list[Fault]:
        step = many.replace("CELLS", ", ".join(str(n) for n in range(100))).replace("TEXT", "x" * size)
        head = 'testplan_version: "2026-12-01"\nname: x\nsteps:\n'
        run = "uses: p.m, runs_on: {host: h}"
        return find_explosion(read_plan(read_text(f"{head}  few: {{{run}}}\n  many: {{{run}, {step}}}\n")))

    assert found(60_000) == []
    (fault,) = found(400_000)
    assert (fault["path"], fault["code"]) == ("steps.many", "too_large")
    assert "those of this step; 33554432 are allowed" in fault["message"]


def call(given: str, schema: Mapping[str, Any] = METHOD) -> CheckedCall:
    text = f"""testplan_version: "2026-12-01"
name: x
parameters: {{a: {{type: string, default: b}}, token: {{type: string, hidden: true}}}}
steps:
  s: {{uses: p.m, runs_on: {{host: h}}, with: {given}}}
"""
    found = read_plan(read_text(text))
    return check_call(found.steps[0], schema, found.hidden)


def paths(found: CheckedCall) -> list[tuple[str, str]]:
    return [(fault["path"], fault["message"]) for fault in found.faults]


def test_literals_are_checked_now_and_what_holds_an_expression_later() -> None:
    assert paths(call('{command: "${{ params.a }}", n: "${{ params.a }}"}')) == []
    assert paths(call('{command: "${{ params.a }}", n: 1}')) == [("steps.s.with.n", "must be at least 3")]
    assert paths(call('{n: "${{ params.a }}"}')) == [("steps.s.with", "'command' is missing")]
    assert paths(call('{command: "${{ params.a }}", more: {key: [5]}}')) == [
        ("steps.s.with.more.key", "must be of type string")
    ]
    assert paths(call("{command: x, n: 1}")) == [("steps.s.with.n", "must be at least 3")]
    (fault,) = call('{command: x, args: "\'${{ params.a }}"}').faults
    assert fault["path"] == "steps.s.with.args"


def test_a_command_line_is_split_before_it_is_filled() -> None:
    found = call("{command: x, args: \"-v A=${{ params.a }} 'b c'\"}")
    assert found.parameters["args"] == ["-v", "A=${{ params.a }}", "b c"]


def test_a_hidden_value_goes_into_secret_fields_only() -> None:
    assert call('{command: x, password: "${{ params.token }}", more: {key: "a ${{ params.token }}"}}').faults == ()
    assert [path for path, _ in paths(call('{command: "${{ params.token }}", args: ["${{ params.token }}"]}'))] == [
        "steps.s.with.command",
        "steps.s.with.args[0]",
    ]


def test_secrets_in_the_text_are_taken_out_of_what_is_stored_in_the_clear() -> None:
    found = call('{command: "${{ params.a }}", password: written, more: {key: down}}')
    assert found.parameters["password"] == '${{ secrets["~literal0"] }}'
    assert found.parameters["more"] == {"key": '${{ secrets["~literal1"] }}'}
    assert found.kept == {"~literal0": "written", "~literal1": "down"}
    assert set(found.texts) == {"written", "down"}
    assert call("{command: x, password: written}").texts == ("written",)


def test_a_masked_text_is_still_a_plan() -> None:
    for text, masked in (
        ("a: {default: s3cret, b: 1}\n", 'a: {default: "***", b: 1}\n'),
        ("a: 's3cret'  # kept\n", "a: '***'  # kept\n"),
        ('a: "s3\\u0063ret"\n', '{"a": "***"}'),
        ("a: >-\n  s3\n  cret\nb: s3 cret\n", '{"a": "***", "b": "***"}'),
        ("a: 12345\n", 'a: "***"\n'),
    ):
        secrets = ["s3cret", "s3 cret", "12345"]
        found = mask_text(text, read_text(text).value, secrets)
        assert found == masked
        assert read_text(found).value


def test_legacy_plans_become_the_same_graph() -> None:
    def child(word: str) -> dict[str, Any]:
        return {"plugin": "shell", "host": "h1", "method": "run", "parameters": {"command": word}}

    plan = {
        "name": "第一个 plan",
        "testplan": {
            "10": {"Serial-Step-1": {"1": child("g")}},
            "2": {
                "Parallel-Step-1": {"DESCRIPTION": "text", "1": child("a"), "2": child("b")},
                "DESCRIPTION": "text",
                "Serial-Step-2": {"2": child("c"), "1": child("d")},
                "parallel-3": {"1": child("e"), "2": child("f")},
            },
        },
    }
    assert is_legacy(plan)
    assert not is_legacy({"testplan_version": "2026-12-01", "testplan": {}})
    spec = compiled(read_legacy(read_text(json.dumps(plan))))

    assert (spec.kind, spec.name) == ("seed", "第一个 plan")
    assert [(step.name, step.node, step.parameters["command"]) for step in spec.steps] == [
        ("case-2-step-1", "case-2-group-1", "a"),
        ("case-2-step-2", "case-2-group-1", "b"),
        ("case-2-step-3", "case-2-step-3", "c"),
        ("case-2-step-4", "case-2-step-4", "d"),
        ("case-2-step-5", "case-2-group-4", "e"),
        ("case-2-step-6", "case-2-group-4", "f"),
        ("case-10-step-1", "case-10-step-1", "g"),
    ]
    assert [(edge.source, edge.target) for edge in spec.edges] == [
        ("case-2-group-1", "case-2-step-3"),
        ("case-2-step-3", "case-2-step-4"),
        ("case-2-step-4", "case-2-group-4"),
        ("case-2-group-4", "case-10-step-1"),
    ]
    assert {edge.condition for edge in spec.edges} == {Condition.COMPLETED}


def test_what_a_legacy_plan_leaves_open_or_gets_wrong() -> None:
    child = {"plugin": "shell", "host": "h1", "method": "run"}

    def faults(group: Any, **more: Any) -> list[tuple[str, str]]:
        plan = {"testplan": {"1": {"Serial-Step-1": group}}, **more}
        _, found = examine_legacy(read_text(json.dumps(plan)))
        return [(each["path"], each["message"]) for each in found.all()]

    step = "testplan.1.Serial-Step-1"
    assert faults({"1": child}) == []
    assert faults({"1": {**child, "parameters": None}}, environment=None) == []
    assert faults({"DESCRIPTION": {"zh": "两步"}, "1": {**child, "Description": ["x"]}, "note": ["x"]}) == []
    values: tuple[Any, ...] = ([], "", 0, False)
    for value in values:
        assert faults({"1": {**child, "parameters": value}}) == [(f"{step}.1.parameters", "must be a mapping")]
        assert faults({"1": child}, environment=value) == [("environment", "must be a mapping")]
    assert (step, "must be a mapping of numbered steps, not a list") in faults([child])
    again = {str(number): {**child, "parameters": {"body": {"get_param": "text"}}} for number in range(1, 13)}
    assert faults(again, environment={"text": "x" * 200_000}) == []
    wrong = faults(again, environment={"text": "x" * 400_000})
    said = "what is looked up comes to more than 4194304 characters"
    assert wrong == [(f"{step}.{number}.parameters.body.get_param", said) for number in (11, 12)]
