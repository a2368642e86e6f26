# ruff: noqa: E501 - a case of a table stays on its line
"""Shell text is never built from values: where it would be, the plan has a fault with its place and the two ways."""

import pytest
from jsonschema import Draft202012Validator

from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.plan import BadPlan, read_plan
from proctor_controller.domain.plan.schema import plan_schema

HEAD = 'testplan_version: "2026-12-01"\nname: x\nparameters: {s: {type: string, default: a}, b: {type: boolean, default: false}}\n'
STEP = "steps:\n  a: {uses: linux_system.run_shell, runs_on: {host: h}"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (f"{STEP}, with: {{shell: true, command: 'rm ${{{{ params.s }}}}'}}}}", "steps.a.with.command"),
        (f"{STEP}, with: {{shell: true, command: '${{{{ params.s }}}}'}}}}", "steps.a.with.command"),
        (f"{STEP}, with: {{shell: true, command: {{get_param: s}}}}}}", "steps.a.with.command"),
        (f"{STEP}, with: {{shell: '${{{{ params.b }}}}', command: 'rm ${{{{ run.id }}}}'}}}}", "steps.a.with.command"),
        (f"{STEP}, with: {{shell: true, command: {{str_replace: {{template: rm X, params: {{X: {{get_param: s}}}}}}}}}}}}", "steps.a.with.command"),
        (f"{STEP}, with: {{command: x}}, rollback: {{uses: p.m, with: {{shell: true, command: '${{{{ self.host }}}}'}}}}}}", "steps.a.rollback.with.command"),
        (f"{STEP}, with: {{command: x}}}}\nalways: [{{uses: p.m, runs_on: {{host: h}}, with: {{shell: true, command: '${{{{ run.id }}}}'}}}}]", "always[0].with.command"),
        (f"{STEP}, with: {{command: sh, args: [-c, 'rm ${{{{ params.s }}}}']}}}}", "steps.a.with.args[1]"),
        (f"{STEP}, with: {{command: sudo, args: 'bash -o pipefail -ec \"rm ${{{{ params.s }}}}\" x'}}}}", "steps.a.with.args"),
    ],
)  # fmt: skip
def test_a_value_in_shell_text_is_a_fault_with_its_place(body: str, path: str) -> None:
    with pytest.raises(BadPlan) as bad:
        read_plan(read_text(HEAD + body), {})
    assert [(fault["path"], fault["code"]) for fault in bad.value.faults] == [(path, "value_in_shell_text")]
    said = str(bad.value.faults[0]["message"])
    assert "args" in said and "env" in said
    assert bad.value.faults[0]["line"]


@pytest.mark.parametrize(
    "call",
    [
        "{shell: true, command: 'rm \"$1\"', args: ['${{ params.s }}']}",
        "{shell: true, command: 'echo $${{ x }}'}",
        "{shell: true, command: 'rm \"$S\"', env: {S: '${{ params.s }}'}}",
        "{shell: false, command: '${{ params.s }}'}",
        "{command: sh, args: '-c \"rm $1\" sh ${{ params.s }}'}",
        "{command: sh, args: ['${{ params.s }}', -c, x]}",
        "{command: grep, args: [-c, '${{ params.s }}']}",
    ],
)
def test_values_beside_shell_text_and_brackets_that_are_text_are_none(call: str) -> None:
    document = read_text(f"{HEAD}{STEP}, with: {call}}}")
    read_plan(document, {})
    assert [error.message for error in Draft202012Validator(plan_schema()).iter_errors(document.value)] == []


def test_the_published_schema_says_it_too() -> None:
    document = read_text(f"{HEAD}{STEP}, with: {{shell: true, command: 'rm ${{{{ params.s }}}}'}}}}")
    assert len(list(Draft202012Validator(plan_schema()).iter_errors(document.value))) == 1
