# ruff: noqa: E501 - a case of a table stays on its line
"""Test plans: YAML 1.2 as it is meant, all faults at once with line and column, and no bombs."""

import json
from typing import Any

import pytest

from proctor_common.errors import Fault
from proctor_controller.domain.documents.tree import BadText, check_value
from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.plan import BadPlan, Plan, read_plan
from proctor_controller.domain.runs.step import Condition, RetryOn

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


def faults_of(text: str) -> list[Fault]:
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
    assert isinstance(found, type(value))


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
    assert all((fault["column"] or 0) >= 1 for fault in found)


def test_a_circle_is_named() -> None:
    steps = "".join(
        f"  {name}: {{uses: p.m, runs_on: {{host: h}}, depends_on: [{after}]}}\n"
        for name, after in (("a", "c"), ("b", "a"), ("c", "b"))
    )
    (fault,) = faults_of(f'testplan_version: "2026-12-01"\nname: x\nsteps:\n{steps}')
    assert fault["message"] == "goes round in a circle: a -> c -> b -> a"


def test_a_circle_that_a_faulty_reference_closes_is_told_with_it() -> None:
    text = (
        'testplan_version: "2026-12-01"\nname: x\nsteps:\n'
        "  a: {uses: p.m, runs_on: {host: h}, depends_on: [b]}\n"
        '  b: {uses: p.m, runs_on: {host: h}, with: {x: "${{ steps.a.outputs.none }}"}}\n'
    )
    messages = [fault["message"] for fault in faults_of(text)]
    assert any("has no output 'none'" in message for message in messages)
    assert any(message == "goes round in a circle: a -> b -> a" for message in messages)
    assert len(messages) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x [1]\nb: *y\n", "bad_yaml"),
        ("a: &x [*x]\n", "bad_yaml"),
        ("a: b: c\n", "bad_yaml"),
        ("", "bad_yaml"),
        ("a: 1\n---\nb: 2\n", "bad_yaml"),
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


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a: 1\nb: 0\na: 2\na: 3\n", [("duplicate_key", "a", 3, 1), ("duplicate_key", "a", 4, 1)]),
        ("x: {a: {b: 1}, a: {b: 2, b: 3, c: 4}}\n", [("duplicate_key", "x.a", 1, 16), ("duplicate_key", "x.a.b", 1, 26)]),
        ("a: !!python/object:os.system x\nb: !local [1]\n", [("tag", "a", 1, 4), ("tag", "b", 2, 4)]),
        ("~: x\n? [a]\n: x\n", [("key", "", 1, 1), ("key", "", 2, 3)]),
        ("a: .inf\nb: 1e999\nc: [1, .nan]\n", [("bad_scalar", "a", 1, 4), ("bad_scalar", "b", 2, 4), ("bad_scalar", "c[1]", 3, 8)]),
        ("a: " + "9" * 400 + "\nb: 0x" + "f" * 400, [("bad_scalar", "a", 1, 4), ("bad_scalar", "b", 2, 4)]),
        ('{"t": "\\ud83d\\ude00",\n\t"b": 1, "b": 2, "c": 1e999}', [("duplicate_key", "b", 2, 10), ("bad_scalar", "c", 2, 23)]),
    ],
    ids=["keys", "keys in keys", "tags", "keys that are no text", "numbers", "long numbers", "json"],
)  # fmt: skip
def test_what_spoils_one_part_is_a_fault_and_the_rest_is_read(text: str, faults: list[tuple[Any, ...]]) -> None:
    found = read_text(text).faults
    assert [(each["code"], each["path"], each["line"], each["column"]) for each in found] == faults


def test_a_repetition_is_told_with_the_first_and_beside_all_other_faults() -> None:
    """What only the repetition brings is there for those who name it; a fault's stand-in is no second fault."""
    found = faults_of(
        """\
testplan_version: "2026-12-01"
name: x
steps:
  a: {uses: p.m, runs_on: {host: h}, timeout: .inf, tmeout: 1}
steps:
  b: {uses: p.m, runs_on: {host: h}, depends_on: [a]}
  c: {uses: p.m, runs_on: {host: h}, depends_on: [nobody]}
outputs: {x: "${{ steps.b.result }}"}
"""
    )
    assert [(each["line"], each["column"], each["path"], each["code"]) for each in found] == [
        (4, 47, "steps.a.timeout", "bad_scalar"),
        (4, 53, "steps.a.tmeout", "unknown_member"),
        (5, 1, "steps", "duplicate_key"),
        (7, 51, "steps.c.depends_on[0]", "unknown_step"),
    ]
    assert "line 3, column 1" in found[2]["message"]


def test_a_long_text_is_not_meant_a_thousand_times() -> None:
    text = f"a: &a {'x' * 400_000}\n"
    assert read_text(text + "".join(f"b{n}: *a\n" for n in range(9))).value["b8"] == "x" * 400_000
    with pytest.raises(BadText, match="4194304 characters, with its aliases followed") as caught:
        read_text(text + "".join(f"b{n}: *a\n" for n in range(1000)))
    assert (caught.value.fault["line"], caught.value.fault["code"]) == (11, "too_large")


def test_a_limit_that_is_passed_says_where_which_and_by_how_much() -> None:
    with pytest.raises(BadText) as caught:
        read_text("a: 1\n" * 120_000)
    fault = caught.value.fault
    assert (fault["code"], fault["line"], fault["column"]) == ("too_large", 104_858, 4)
    assert "has 600000 bytes, and 524288 are allowed" in fault["message"]
    with pytest.raises(BadText) as caught:
        read_text("a:\n" + "".join(f"{' ' * n}b{n}:\n" for n in range(1, 60)))
    assert (caught.value.fault["code"], caught.value.fault["line"]) == ("too_deep", 51)
    assert caught.value.fault["path"].startswith("a.b1.b2.b3")
    aliases = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(BadText, match="50 deep, with its aliases followed") as caught:
        read_text(aliases)
    assert caught.value.fault["path"] == "a49[0]"
    with pytest.raises(BadText, match="nested more than 50 deep"):
        check_value(json.loads('{"a":' * 60 + "1" + "}" * 60))
    with pytest.raises(BadText, match="has 600012 bytes") as caught:
        check_value({"name": "x" * 600_000})
    assert caught.value.fault["code"] == "too_large"


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(BadText) as caught:
        read_text("\n".join(lines))
    assert (caught.value.fault["code"], caught.value.fault["line"]) == ("too_large", 5)
    assert caught.value.fault["path"].startswith("a4[")


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
    document = read_text('{"a": "\\ud83d\\ude00",\n "b": {"c": [1,\n\ttrue]}}')
    assert document.value == {"a": "😀", "b": {"c": [1, True]}}
    assert (document.places["b.c"], document.places["b.c[1]"]) == ((2, 8), (3, 2))
