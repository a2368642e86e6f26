"""Parameters against a method's schema: every fault at once, no value quoted, linear time."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_controller.domain.documents.json_schema import BadSchema, check_schema
from proctor_controller.domain.documents.method_parameters import (
    check_parameters,
    mask,
    secret_texts,
    split_argv,
    texts_in,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "minLength": 1},
        "args": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}], "x-argv": True},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "mode": {"enum": ["fast", "slow"]},
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "password": {"type": "string", "x-secret": True},
        "accounts": {"type": "array", "items": {"$ref": "#/$defs/account"}},
        "env": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["command"],
    "additionalProperties": False,
    "$defs": {
        "account": {
            "type": "object",
            "properties": {"user": {"type": "string"}, "key": {"type": "string", "x-secret": True}},
        }
    },
}


def faults(**parameters: Any) -> dict[str, str]:
    return {fault["path"]: fault["message"] for fault in check_parameters(SCHEMA, parameters).faults}


def test_all_faults_at_once_each_with_its_path() -> None:
    assert faults(command="", args=[1], count=10, mode="x", name="A") == {
        "parameters.command": "must have at least 1 characters",
        "parameters.args[0]": "must be of type string",
        "parameters.count": "must be at most 9",
        "parameters.mode": 'must be one of ["fast", "slow"]',
        "parameters.name": 'must match "^[a-z]+$"',
    }
    assert faults(command="c", args=1) == {"parameters.args": "must be of type array or string"}
    found = check_parameters(SCHEMA, {"nme": 1, "other": 2}).faults
    assert [(f["path"], f["code"], f["message"]) for f in found] == [
        ("parameters", "missing", "'command' is missing"),
        ("parameters.nme", "unknown_member", "there is no 'nme'; did you mean name?"),
        ("parameters.other", "unknown_member", "there is no 'other'; there is args, command, count, env, mode, name"),
    ] or found


def test_a_misspelt_name_is_one_fault_and_not_a_missing_one_too() -> None:
    assert faults(comand="c") == {"parameters.comand": "there is no 'comand'; did you mean command?"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([0] * 3, "must have at most 2 items"),
        (["a", "b"], "must be of type integer"),
        ("xx", 'must match "^a$"'),
        (1.5, "must be of type array or null or string"),
    ],
)
def test_of_a_choice_of_forms_the_one_of_the_right_type_is_told(value: object, says: str) -> None:
    forms = [
        {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
        {"type": "string", "pattern": "^a$"},
        {"type": "null"},
    ]
    faults = check_parameters({"type": "object", "properties": {"a": {"anyOf": forms}}}, {"a": value}).faults
    assert [each["message"] for each in faults] == [says]


def test_no_value_is_quoted() -> None:
    checked = check_parameters(SCHEMA, {"command": "c", "password": {"geheim": "geheim"}, "count": "geheim"})
    assert "geheim" not in json.dumps(checked.faults)
    assert len(checked.faults) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("   ", []),
        ("a b", ["a", "b"]),
        ("'a b' c\\ d", ["a b", "c d"]),
        ('"$HOME" `x` # no comment', ["$HOME", "`x`", "#", "no", "comment"]),
        ("''", [""]),
        ("ünï 😀", ["ünï", "😀"]),
    ],
)
def test_a_command_line_is_split_by_posix_rules(line: str, words: list[str]) -> None:
    assert check_parameters(SCHEMA, {"command": "c", "args": line}).parameters["args"] == words


def test_a_list_is_left_as_it_is() -> None:
    words = ["", " ", "a b", "'", "\n", "😀"]
    assert check_parameters(SCHEMA, {"command": "c", "args": words}).parameters["args"] == words


def test_an_open_quote_is_a_fault() -> None:
    assert faults(command="c", args="a 'b") == {"parameters.args": "cannot be split into words: no closing quotation"}


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_quoted_words_come_back(words: list[str]) -> None:
    import shlex

    assert split_argv(shlex.join(words)) == words


def test_limits() -> None:
    assert "parameters.args" in faults(command="c", args=["x"] * 1001)
    assert "parameters.args" in faults(command="c", args="x " * 1001)
    assert "parameters.args" in faults(command="c", args=["ä" * 66_000])
    assert faults(command="c", args=["x"] * 1000) == {}
    assert "parameters.env" in faults(command="c", env={f"N{n}": "" for n in range(101)})
    assert faults(command="a\0b") == {"parameters.command": "must not hold a NUL character"}
    assert "parameters.env" in faults(command="c", env={"A\0": ""})
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert faults(command=deep) == {"parameters": "nested more than 100 deep"}


def test_secrets_are_found_masked_and_listed() -> None:
    parameters = {"command": "c", "password": "p1", "accounts": [{"user": "u", "key": "p2"}, {"user": "v"}]}
    checked = check_parameters(SCHEMA, parameters)
    assert set(checked.secrets) == {("password",), ("accounts", 0, "key")}
    assert mask(parameters, checked.secrets) == {
        "command": "c",
        "password": "***",
        "accounts": [{"user": "u", "key": "***"}, {"user": "v"}],
    }
    assert set(secret_texts(parameters, checked.secrets)) == {"p1", "p2"}


def test_patterns_take_linear_time() -> None:
    evil = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}
    start = time.process_time()
    assert check_parameters(evil, {"x": "a" * 50_000 + "!"}).faults
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"pattern": "(?=a)"}}},
        {"patternProperties": {"(a)\\1": {}}},
        {"unevaluatedProperties": False},
        {"$ref": "https://example.org/schema.json"},
        {"type": "nonsense"},
        {"$ref": "#"},
    ],
)
def test_a_schema_that_cannot_be_used_is_said_to_be_one(schema: dict[str, Any]) -> None:
    checked = check_parameters(schema, {"x": "a"})
    assert [fault["code"] for fault in checked.faults] == ["bad_schema"]


def test_a_bad_schema_is_found_without_parameters() -> None:
    with pytest.raises(BadSchema):
        check_schema({"type": "nonsense"})


def test_many_items_that_must_differ_take_linear_time() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    items = [{"n": n} for n in range(20_000)]
    assert not check_parameters(schema, {"x": items}).faults
    assert check_parameters(schema, {"x": [*items, {"n": 7}]}).faults


def test_hidden_numbers_are_looked_for_as_they_are_written() -> None:
    value = {"pin": 48151623, "of": [{"key": "k1"}, 2.5001, 6000.0, 12, True, None, ""]}
    assert set(texts_in(value)) == {"48151623", "k1", "2.5001", "6000.0", "6000"}
