"""Test plans: YAML 1.2 as it is meant, all faults at once with line and column, and no bombs."""

from typing import Any

import pytest

from proctor_controller.domain.plan import BadPlan, Plan, read_plan
from proctor_controller.domain.step import Condition, RetryOn
from proctor_controller.domain.yaml_text import BadText, read_text

PLAN = """\
testplan_version: "2026-12-01"
name: smoke
description: what it is for
timeouts: {run: 2h}
defaults: {timeout: 30m, grace: 5, target: lab}
steps:
  build:
    uses: linux_system.run_shell
    runs_on: {host: h1}
    with: {command: make, args: "a 'b c'", on: no, at: 12:30, price: "$${{ x }}"}
    retry: {attempts: 3, delay: 500ms, backoff: 2, max_delay: 1m, on: [error, agent_lost]}
    idempotent: true
    env: {LANG: C.UTF-8, N: 5, B: true}
  deploy:
    uses: linux_system.ping
    runs_on: {labels: {os: debian}}
    depends_on: [build]
    timeout: 10
  report:
    uses: linux_system.ping
    runs_on: {group: lab-a}
    depends_on: {build: completed, deploy: failed}
"""


def read(text: str) -> Plan:
    return read_plan(read_text(text))


def faults_of(text: str) -> list[dict[str, Any]]:
    try:
        read(text)
    except BadPlan as fault:
        return fault.faults
    except BadText as fault:
        return [fault.fault]
    raise AssertionError("no fault was found")


def test_a_plan_with_everything_that_runs_today() -> None:
    plan = read(PLAN)
    build, deploy, report = plan.steps
    assert (plan.name, plan.run_timeout_s) == ("smoke", 7200.0)
    assert build.parameters == {"command": "make", "args": "a 'b c'", "on": "no", "at": "12:30", "price": "${{ x }}"}
    assert (build.timeout_s, build.grace_s, build.target, build.idempotent) == (1800.0, 5.0, "lab", True)
    assert (build.retry.attempts, build.retry.delay_s, build.retry.max_delay_s) == (3, 0.5, 60.0)
    assert build.retry.on == {RetryOn.ERROR, RetryOn.AGENT_LOST}
    assert build.env == {"LANG": "C.UTF-8", "N": "5", "B": "true"}
    assert deploy.place.labels == (("os", "debian"),)
    assert deploy.timeout_s == 10.0
    assert deploy.depends_on == (("build", Condition.SUCCEEDED),)
    assert report.place.group == "lab-a"
    assert dict(report.depends_on) == {"build": Condition.COMPLETED, "deploy": Condition.FAILED}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("12:30", "12:30"), ("0o17", 15), ("017", 17), ("0x1F", 31),
        ("true", True), ("True", True), ("null", None), ("~", None), ("", None), ("1e3", 1000.0), (".5", 0.5),
        ("1_000", "1_000"), ("2026-12-01", "2026-12-01"), ("'true'", "true"), ('"5"', "5"), ("=", "="), ("<<", "<<"),
        ("+7", 7), ("-0.0", 0.0), ("0b11", "0b11"),
    ],
)  # fmt: skip
def test_scalars_by_the_core_schema(text: str, value: object) -> None:
    found = read_text(f"x: {text}\n").value["x"]
    assert found == value
    assert type(found) is type(value)


def test_all_faults_at_once_with_line_column_and_path() -> None:
    found = faults_of(
        """\
testplan_version: "2030-01-01"
name: "not a name"
stpes: {}
matrix: 1
steps:
  1a:
    uses: nodots
    runs_on: role
    with: {command: "${{ params.x }}"}
    tiemout: 5
  b:
    uses: p.m
    runs_on: {host: h, group: g}
    depends_on: [nobody, b]
    timeout: 5 minutes
    if: true
"""
    )
    assert [(fault["line"], fault["path"], fault["code"]) for fault in found] == [
        (1, "testplan_version", "unknown_version"),
        (2, "name", "invalid"),
        (3, "stpes", "unknown_member"),
        (4, "matrix", "unknown_member"),
        (6, "steps.1a", "invalid"),
        (7, "steps.1a.uses", "invalid"),
        (8, "steps.1a.runs_on", "unknown_name"),
        (9, "steps.1a.with.command", "unknown_name"),
        (10, "steps.1a.tiemout", "unknown_member"),
        (13, "steps.b.runs_on", "invalid"),
        (14, "steps.b.depends_on[0]", "unknown_step"),
        (14, "steps.b.depends_on[1]", "cycle"),
        (15, "steps.b.timeout", "invalid"),
    ]
    assert "did you mean steps?" in found[2]["message"]
    assert "did you mean timeout?" in found[8]["message"]
    assert found[1]["column"] == 1
    assert all(fault["column"] >= 1 for fault in found)


def test_a_circle_is_named() -> None:
    steps = "".join(
        f"  {name}: {{uses: p.m, runs_on: {{host: h}}, depends_on: [{after}]}}\n"
        for name, after in (("a", "c"), ("b", "a"), ("c", "b"))
    )
    (fault,) = faults_of(f'testplan_version: "2026-12-01"\nname: x\nsteps:\n{steps}')
    assert fault["message"] == "goes round in a circle: a -> c -> b -> a"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2\n", "duplicate_key"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: !local x\n", "tag"),
        ("a: &x [1]\nb: *y\n", "bad_yaml"),
        ("a: &x [*x]\n", "bad_yaml"),
        ("1: x\n", "key"),
        ("? [a]\n: x\n", "key"),
        ("a: b: c\n", "bad_yaml"),
        ("", "bad_yaml"),
        ("a: 1\n---\nb: 2\n", "bad_yaml"),
        ("a: .inf\n", "bad_yaml"),
        ("a: " + "9" * 400 + "\n", "bad_yaml"),
        ("a: 1e999\n", "bad_yaml"),
        ("\x00", "bad_yaml"),
        ("[" * 100_000, "too_deep"),
        ("{a: " * 60 + "}" * 60, "too_deep"),
        ("- " * 60 + "x", "too_deep"),
        ("x" * 600_000, "too_large"),
    ],
)
def test_text_that_is_no_plan(text: str, code: str) -> None:
    with pytest.raises(BadText) as caught:
        read_text(text)
    assert caught.value.fault["code"] == code


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(BadText) as caught:
        read_text("\n".join(lines))
    assert caught.value.fault["code"] == "too_large"


def test_aliases_are_copies_with_places() -> None:
    document = read_text("a: &x {k: 1}\nb: *x\n")
    assert document.value == {"a": {"k": 1}, "b": {"k": 1}}
    document.value["b"]["k"] = 2
    assert document.value["a"]["k"] == 1
    assert document.places["b"] == (2, 1)


def test_json_is_taken_too() -> None:
    assert read_text('{"a": "\\ud83d\\ude00", "b": [1, 2.5, null]}').value == {"a": "😀", "b": [1, 2.5, None]}
    with pytest.raises(BadText):
        read_text('{"a": "\\ud83d"}')
    with pytest.raises(BadText) as caught:
        read_text('{"a": "\\ud83d\\ude00", "b": 1, "b": 2}')
    assert caught.value.fault["code"] == "duplicate_key"
