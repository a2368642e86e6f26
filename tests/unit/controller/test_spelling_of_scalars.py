# ruff: noqa: E501 - a case of a table stays on its line
"""A scalar keeps its spelling where a text is wanted; a number is a number in arithmetic."""

import json
from typing import Any

import pytest

from proctor_common.states import StepResult
from proctor_controller.domain.documents.json_text import build_json
from proctor_controller.domain.documents.spelled import has_spelled, pack, unpack, written
from proctor_controller.domain.documents.tree import Document
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.expressions.evaluate import evaluate, fill
from proctor_controller.domain.expressions.filling import fill_parameters
from proctor_controller.domain.plan import BadPlan, Plan, read_plan
from proctor_controller.domain.plan.calls import check_call
from proctor_controller.domain.plan.matrix import cell_text
from proctor_controller.domain.runs.scope import InstanceFacts, steps_scope
from proctor_controller.domain.runs.step_rules import Rules, rules_of

HEAD = 'testplan_version: "2026-12-01"\nname: 1.10\n'
STEP = "steps:\n  a: {uses: p.m, runs_on: {host: h}, "
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "args": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}], "x-argv": True},
        "command": {"type": "string"},
        "n": {"type": "integer"},
        "any": {},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "words": {"type": "object", "additionalProperties": {"type": "string"}},
        "cwd": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
}


def read(body: str, given: dict[str, Any] | None = None) -> Plan:
    return read_plan(read_text(HEAD + body), {} if given is None else given)


def test_an_environment_and_names_are_as_written() -> None:
    found = read(
        "defaults: {target: 007}\nparameters: {v: {type: string, default: 3.10, constraints: [{allowed_values: [3.10, 2]}]}}\n"
        f"{STEP}env: {{MODE: 0755, PY: 3.10, SHA: 12e5, B: True, H: 0x1F, P: +1, T: 1.0}}, record: {{project: 1.0, case: 0x1f, version: 3.10, pod: FALSE}},\n"
        "    expect: {error: {contains: 0404}}, artefacts: [1.0]}\n"
        "  b: {uses: p.m, runs_on: {labels: {os: 12.10, x: True}}}\n"
    )
    a, b = found.steps
    assert (found.name, found.values, a.target) == ("1.10", {"v": "3.10"}, "007")
    assert a.env == {"MODE": "0755", "PY": "3.10", "SHA": "12e5", "B": "True", "H": "0x1F", "P": "+1", "T": "1.0"}
    assert a.rules is not None
    assert a.rules.record == {"project": "1.0", "case": "0x1f", "version": "3.10", "pod": "FALSE"}
    assert (a.rules.expect, a.rules.artefacts) == ({"contains": "0404"}, ("1.0",))
    assert b.place.labels == (("os", "12.10"), ("x", "True"))


def test_keys_are_as_written() -> None:
    assert read_text("8080: web\n1.10: x\nTrue: y\n").value == {"8080": "web", "1.10": "x", "True": "y"}


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ("[3.1, 3.10]", ["v=3.1", "v=3.10"]),
        ("[3.9, 3.10, 3.100]", ["v=3.9", "v=3.10", "v=3.100"]),
        ("[017, 17, 1e1, 10]", ["v=017", "v=17", "v=1e1", "v=10"]),
        ("[{a: 1.0}, {a: 1.00}]", ['v={"a": 1.0}', 'v={"a": 1.00}']),
    ],
)
def test_numbers_that_are_written_otherwise_are_two_cells(values: str, cells: list[str]) -> None:
    (step,) = read(f"{STEP}matrix: {{v: {values}}}}}\n").steps
    assert [cell_text(cell) for cell in step.cells or ()] == cells


def test_an_excluded_cell_is_the_one_that_is_written_so() -> None:
    (step,) = read(f"{STEP}matrix: {{v: [3.1, 3.10], exclude: [{{v: 3.10}}]}}}}\n").steps
    assert [cell_text(cell) for cell in step.cells or ()] == ["v=3.1"]
    with pytest.raises(BadPlan, match=r"v=3\.10 twice"):
        read(f"{STEP}matrix: {{v: [3.10, 3.10]}}}}\n")


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("py${{ matrix.v }}", "py3.10"),
        ("${{ matrix.v + 1.0 }}", 4.1),
        ("${{ matrix.v == 3.1 }}", True),
        ('${{ "py" + string(matrix.v) }}', "py3.10"),
        ("${{ text(matrix.v) }}", "3.10"),
        ('${{ join(params.all, "/") }}', "3.9/3.10/0755"),
        ('${{ params.all.map(x, x + 1.0 > 4.0) }}', None),
        ("${{ params.all[1] }}-${{ params.of.x }}", "3.10-12e5"),
        ("all: ${{ params.all }}", "all: [3.9, 3.10, 755]"),
        ("${{ params.n * 2 }}", 1510),
        ("${{ params.n }}", 755),
        ("mode ${{ params.n }}", "mode 0755"),
        ('${{ string(params.n) == "0755" && params.n == 755 }}', True),
    ],
)  # fmt: skip
def test_a_number_has_its_spelling_where_it_is_filled_in(template: str, value: Any) -> None:
    stored = json.loads(json.dumps(pack(read_text("v: 3.10\nall: [3.9, 3.10, 0755]\nof: {x: 12e5}\nn: 0755\n").value)))
    scope = {"matrix": unpack(stored), "params": unpack(stored)}
    if value is not None:
        assert fill(template, scope) == value
        assert type(fill(template, scope)) in {type(value), *type(value).__subclasses__()}


def test_a_method_gets_text_where_it_takes_only_text() -> None:
    (step,) = read(
        f"{STEP}with: {{command: 007, args: [-v, 3.10, True, 0x1F], n: 012, any: 3.10, maybe: 1.0, words: {{a: 1e3}}, cwd: 5}}}}\n"
    ).steps
    checked = check_call(step, SCHEMA, frozenset(), words={"steps.a.with.args[2]": "True"})
    assert checked.faults == ()
    assert checked.parameters == {
        "command": "007", "args": ["-v", "3.10", "True", "0x1F"], "n": 12, "any": 3.1, "maybe": 1.0,
        "words": {"a": "1e3"}, "cwd": "5",
    }  # fmt: skip
    (step,) = read(f"{STEP}with: {{args: 3.10}}}}\n").steps
    assert check_call(step, SCHEMA, frozenset()).parameters == {"args": ["3.10"]}


def test_what_an_expression_brings_is_text_where_a_method_takes_only_text() -> None:
    scope = {"params": read_text("v: 3.10\nall: [3.9, 3.10]").value}
    template = {
        "args": ["${{ params.v }}", "${{ params.all }}"],
        "command": "${{ params.v }}",
        "maybe": "${{ params.v }}",
    }
    done = fill_parameters(template, SCHEMA, scope)
    assert done.parameters == {"args": ["3.10", "3.9", "3.10"], "command": "3.10", "maybe": 3.1}


def test_parameters_keep_their_spelling() -> None:
    declared = "parameters: {s: {type: string}, n: {type: number}, l: {type: list}, j: {type: json}}\n"
    given = {"s": 3.1, "n": "3.10", "l": "[3.10, 1]", "j": '{"a": 1.50}'}
    values = read(f"{declared}{STEP}}}", given).values
    assert values["s"] == "3.1"
    assert (values["n"] + 1, written(values["n"])) == (4.1, "3.10")
    assert (written(values["l"]), written(values["j"])) == ("[3.10, 1]", '{"a": 1.50}')
    assert read(f"{declared}{STEP}}}", {**given, "s": True}).values["s"] == "true"


def test_a_matrix_of_parameters_keeps_it_and_a_host_is_named_so() -> None:
    (step,) = read(
        "parameters: {versions: {type: list, default: [3.9, 3.10]}}\n"
        "steps:\n  a: {uses: p.m, runs_on: {host: 'py${{ matrix.v }}'}, matrix: {v: '${{ params.versions }}'}}\n"
    ).steps
    assert [where.place.host for where in step.wheres] == ["py3.9", "py3.10"]


def test_json_has_the_spelling_of_json() -> None:
    value = {
        "testplan_version": "2026-12-01",
        "name": "x",
        "steps": {"a": {"uses": "p.m", "runs_on": {"host": "h"}, "env": {"A": 3.10, "B": 12e5, "C": True}}},
    }
    (step,) = read_plan(Document(value)).steps
    assert step.env == {"A": "3.1", "B": "1200000.0", "C": "true"}
    builder = build_json('{"a": 3.10, "b": [1E5, 1.0, 1]}')
    assert builder is not None
    assert [written(part) for part in builder.document().value["b"]] == ["1E5", "1.0", "1"]


def test_heats_functions_fill_in_what_is_written() -> None:
    (step,) = read(
        f"{STEP}env: {{A: {{list_join: ['.', [3.10, 0]]}}, B: {{str_replace: {{template: v-X, params: {{X: 1.0}}}}}}}}}}\n"
    ).steps
    assert step.env == {"A": "3.10.0", "B": "v-1.0"}


def test_an_output_that_is_a_number_keeps_it_when_it_is_stored() -> None:
    outputs = fill({"v": "${{ matrix.v }}"}, {"matrix": read_text("v: 3.10").value})
    kept = unpack(json.loads(json.dumps(pack(outputs))))
    scope = {"steps": steps_scope([InstanceFacts("a", "", StepResult.PASSED, kept, "h1")])}
    assert fill("py${{ steps.a.outputs.v }}", scope) == "py3.10"
    rules = rules_of(json.loads(json.dumps(Rules(outputs=read_text("v: 0755").value).to_json())))
    assert rules is not None
    assert fill("${{ steps.a.outputs.v }}!", {"steps": {"a": {"outputs": rules.outputs}}}) == "0755!"


def test_hidden_numbers_are_masked_as_they_are_written() -> None:
    found = read(f"parameters: {{pin: {{type: number, hidden: true, default: 00420}}}}\n{STEP}}}\n")
    assert "00420" in found.secret_texts


def test_nothing_else_is_packed() -> None:
    value = {"a": [1, 2.5, "3.10", None, True, {"b": 10}]}
    assert pack(value) is value
    assert not has_spelled(value)
    assert evaluate("a", {"a": 1}) == 1


@pytest.mark.parametrize("value", [5, "x", None, [], ["x"], ["x", "y"], [1, 2, 3], {"~number": 1}])
def test_a_mapping_of_somebody_else_with_the_member_of_packed_numbers_stays_as_it_is(value: Any) -> None:
    assert unpack({"~number": value}) == {"~number": value}
