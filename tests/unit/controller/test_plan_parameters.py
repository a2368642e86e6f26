"""Parameters of a plan: constraints as in Heat, and text that is given for a value of another type."""

from typing import Any

import pytest

from proctor_controller.domain.documents.yaml_text import read_text
from proctor_controller.domain.plan import BadPlan, Plan, read_plan

STEPS = "steps:\n  a: {uses: p.m, runs_on: {host: h}}\n"


def read(declared: str, given: dict[str, Any] | None = None) -> Plan:
    return read_plan(read_text(f'testplan_version: "2026-12-01"\nname: x\nparameters: {declared}\n{STEPS}'), given)


def refused(declared: str, given: dict[str, Any] | None = None) -> tuple[str, str]:
    with pytest.raises(BadPlan) as caught:
        read(declared, given)
    (fault,) = caught.value.faults
    assert fault["line"] == 3
    return fault["path"], fault["message"]


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("string", "5", "5"), ("string", "", ""),
        ("number", "5", 5), ("number", " -1.5 ", -1.5), ("number", "1e3", 1000.0), ("number", 7, 7),
        ("boolean", "true", True), ("boolean", "No", False), ("boolean", "1", True), ("boolean", False, False),
        ("list", "a, b,c", ["a", "b", "c"]), ("list", '["a", 1]', ["a", 1]), ("list", "", []), ("list", [1], [1]),
        ("json", '{"a": [1]}', {"a": [1]}), ("json", "[1]", [1]), ("json", {"a": None}, {"a": None}),
    ],
)  # fmt: skip
def test_text_is_read_as_the_declared_type(kind: str, given: Any, value: Any) -> None:
    found = read(f"{{v: {{type: {kind}}}}}", {"v": given}).values["v"]
    assert found == value
    assert isinstance(found, type(value))


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("string", [5], "must be text"), ("string", None, "must be text"), ("string", "a\0", "NUL"),
        ("number", "five", "must be a number"), ("number", "", "must be a number"), ("number", True, "be a number"),
        ("number", "nan", "must be a number"), ("number", "1e999", "must be a number"), ("number", 2**64, "too large"),
        ("boolean", "maybe", "true or false"), ("boolean", 1, "true or false"),
        ("list", "[1", "not JSON"), ("list", {}, "must be a list"),
        ("json", "{", "not JSON"), ("json", "5", "a map or a list"), ("json", "[NaN]", "not JSON"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(kind: str, given: Any, why: str) -> None:
    path, message = refused(f"{{v: {{type: {kind}}}}}", {"v": given})
    assert path == "parameters.v"
    assert why in message


@pytest.mark.parametrize(
    ("declared", "good", "bad", "why"),
    [
        ("type: string, constraints: [{length: {min: 2, max: 3}}]", "ab", "a", "at least 2 characters"),
        ("type: string, constraints: [{length: {min: 2, max: 3}}]", "abc", "abcd", "at most 3 characters"),
        ("type: list, constraints: [{length: {max: 1}}]", "a", "a,b", "at most 1 items"),
        ("type: number, constraints: [{range: {min: 1, max: 5}}]", "5", "6", "at most 5"),
        ("type: number, constraints: [{range: {min: 1}}]", 1, 0, "at least 1"),
        ("type: number, constraints: [{modulo: {step: 4, offset: 1}}]", 9, 8, "1 more than a multiple of 4"),
        ("type: number, constraints: [{modulo: {step: 2}}]", 4, 3, "must be a multiple of 2"),
        ("type: string, constraints: [{allowed_values: [a, b]}]", "b", "c", 'one of "a", "b"'),
        ("type: list, constraints: [{allowed_values: [a, b]}]", "b,a", "a,c", 'one of "a", "b"'),
        ("type: string, constraints: [{allowed_pattern: '[a-z]+'}]", "abc", "abc1", "must match [a-z]+"),
        ("type: string, constraints: [{allowed_pattern: x, description: an x}]", "x", "y", "must match x: an x"),
    ],
)
def test_constraints(declared: str, good: Any, bad: Any, why: str) -> None:
    assert read(f"{{v: {{{declared}}}}}", {"v": good}).values
    path, message = refused(f"{{v: {{{declared}}}}}", {"v": bad})
    assert path == "parameters.v"
    assert why in message


def test_a_default_that_breaks_a_constraint_is_a_fault_of_the_plan() -> None:
    assert refused("{v: {type: number, default: 9, constraints: [{range: {max: 5}}]}}")[0] == "parameters.v.default"


def test_what_is_not_given_and_what_is_not_there() -> None:
    path, message = refused("{image: {type: string}}", {})
    assert (path, "-p image=" in message) == ("parameters.image", True)
    path, message = refused("{image: {type: string, default: x}}", {"imaeg": "y"})
    assert (path, "did you mean image?" in message) == ("parameters.imaeg", True)
    # Nobody runs it now: nothing has to be given.
    assert read("{image: {type: string}}").values == {}
    assert read("{image: {type: string, default: null}}", {}).values == {"image": None}


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        ("{1a: {type: string}}", "parameters.1a"),
        ("{a: {}}", "parameters.a"),
        ("{a: {type: text}}", "parameters.a.type"),
        ("{a: {type: string, hiden: true}}", "parameters.a.hiden"),
        ("{a: {type: string, hidden: 1}}", "parameters.a.hidden"),
        ("{a: {type: string, constraints: [{range: {min: 1}}]}}", "parameters.a.constraints[0].range"),
        ("{a: {type: string, constraints: [{length: {mim: 1}}]}}", "parameters.a.constraints[0].length.mim"),
        ("{a: {type: string, constraints: [{}]}}", "parameters.a.constraints[0]"),
        ("{a: {type: string, constraints: [{custom_constraint: nova.flavor}]}}", "parameters.a.constraints[0]"),
        (
            "{a: {type: string, constraints: [{allowed_pattern: '(a)\\1'}]}}",
            "parameters.a.constraints[0].allowed_pattern",
        ),
        ("{a: {type: number, constraints: [{modulo: {step: 0}}]}}", "parameters.a.constraints[0].modulo"),
        ("{a: {type: number, constraints: [{range: {min: 3, max: 1}}]}}", "parameters.a.constraints[0].range"),
        ("{a: {type: list, constraints: [{length: {min: 2, max: 1}}]}}", "parameters.a.constraints[0].length"),
    ],
)
def test_a_wrong_declaration_has_its_path(declared: str, path: str) -> None:
    with pytest.raises(BadPlan) as caught:
        read(declared)
    assert path in {fault["path"].removesuffix(".custom_constraint") for fault in caught.value.faults}


def test_a_pattern_takes_linear_time() -> None:
    declared = "{a: {type: string, constraints: [{allowed_pattern: '(a|aa|a*)*b'}]}}"
    assert "must match" in refused(declared, {"a": "a" * 50_000})[1]


def test_no_message_quotes_a_hidden_value() -> None:
    declared = "{a: {type: number, hidden: true}}"
    assert "s3cret" not in refused(declared, {"a": "s3cret"})[1]
