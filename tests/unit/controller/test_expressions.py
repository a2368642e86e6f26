"""Expressions: what they read, what they come to, and that none of them costs more than it may."""

import contextlib
import time
from typing import Any

import pytest

from proctor_controller.domain.expressions.cost import MAX_ELEMENTS, estimate
from proctor_controller.domain.expressions.evaluate import ExpressionFault, evaluate, fill, holds, references_of
from proctor_controller.domain.expressions.program import FEW, compile_source
from proctor_controller.domain.expressions.text import has_expression, split_text

SCOPE: dict[str, Any] = {
    "params": {
        "n": 1, "nothing": None, "list": [1, 2], "float": 1.5, "yes": True, "text": "x y", "map": {"z": 1, "a": [True]},
        "long": list(range(MAX_ELEMENTS)), "token": "s3cret", "letters": "a" * 40,
    },
    "steps": {"deploy-vm": {"outputs": {"x": 5}}, "build": {"result": {"exit_code": 0}, "outputs": {}}},
    "hosts": {"dut": [{"host": "h1"}, {"host": "h2"}]},
    "result": {"exit_code": 3, "stdout_last_line": "ready"},
}  # fmt: skip

MAPS = [{"a": [1, 2, 3], "b": {"c": "d"}}] * 5000


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${{ params.n }}", 1),
        ("${{ params.nothing }}", None),
        ("${{ params.list }}", [1, 2]),
        ("${{ params.map }}", {"a": [True], "z": 1}),
        ("${{params.float}}", 1.5),
        ("<${{ params.n }}|${{ params.nothing }}|${{ params.yes }}|${{ params.float }}>", "<1||true|1.5>"),
        ("${{ params.list }} ${{ params.map }}", '[1, 2] {"a": [true], "z": 1}'),
        ("$${{ params.n }} ${{ params.n }}", "${{ params.n }} 1"),
        ("$${{ a", "${{ a"),
        ("${{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
        ("${{ '}}' + params.text }}", "}}x y"),
        ('${{ steps["deploy-vm"].outputs.x }}', 5),
        ("${{ hosts.dut[1].host }}", "h2"),
        ("${{ hosts.dut.map(h, h.host) }}", ["h1", "h2"]),
        ("${{ params.list.filter(x, x > 1) }}", [2]),
        ("${{ has(steps.build.outputs.gone) }}", False),
        ("${{ result.exit_code in [0, 3] }}", True),
        ('${{ join(params.list, "-") + text(params.n) }}', "1-21"),
        ("${{ timestamp('2026-01-02T03:04:05Z') }}", "2026-01-02T03:04:05Z"),
        ("${{ duration('90s') }}", "90s"),
        ('${{ r"\\d" }}', "\\d"),
        ("no expression }}", "no expression }}"),
        ("", ""),
    ],
)
def test_what_a_template_comes_to(template: str, value: Any) -> None:
    found = fill(template, SCOPE)
    assert found == value
    assert type(found) is type(value)


def test_a_value_is_asked_for_its_type() -> None:
    asked = {"params.n": "int", "params.float": "double", "params.text": "string", "params.list": "list"}
    assert all(evaluate(f"type({value}) == {name}", SCOPE) for value, name in asked.items())
    assert [each.root for each in references_of("type(params.n) == int || list == params.list")] == ["params", "params"]


def test_templates_within_lists_and_maps() -> None:
    assert fill({"a": ["${{ params.n }}", {"b": "${{ params.text }}"}], "c": 1}, SCOPE) == {
        "a": [1, {"b": "x y"}],
        "c": 1,
    }


@pytest.mark.parametrize(
    ("source", "position", "reason"),
    [
        ("1 +", 4, "Syntax error"),
        ("params.n +\n  nobody", 14, "there is no name nobody"),
        ("params.gone", 1, "params has no member gone"),
        ("1 == 1 && params.gone", 11, "params has no member gone"),
        ("params.n.deep.down", 1, "types do not fit"),
        ("hosts.dut[7].host", 1, "a list has fewer elements"),
        ("1/0", 1, "division by zero"),
        ("9223372036854775807 + 1", 1, "out of range"),
        ("params.n + params.float", 1, "the types do not fit"),
        ("int(params.text)", 5, "the function int cannot take this value"),
        ("params.text.upper()", 1, "there is no name or function upper"),
        ("size(params.n) > 1", 6, "the function size cannot take this value"),
        ("params.n == 1 && int(params.text) == 1", 18, "the function int cannot take this value"),
        ("params.n == 1 && params.list.contains(1)", 30, "the function contains cannot take this value"),
        ("b'x'", 1, "no form in JSON"),
        ("1.0/0.0", 1, "not a finite number"),
        ("{1: 2}", 1, "keys must be text"),
        ("'abc", 1, "a string has no end"),
        (".params.n", 1, "no dot before it"),
        ("`params`.n", 1, "without backticks"),
        ("params", 1, "stands only as params.NAME"),
        ("params[params.text]", 1, "stands only as params.NAME"),
        ("params.list.map(x, params.list.map(y, y))", 32, "macros do not nest"),
        ("params.list.map(steps, 1)", 13, "a name of its own here"),
        ("params.list.map(x)", 13, "takes a name, a comma"),
        ("'" + "x" * 5000 + "'", 1, "4096 are allowed"),
        ("(" * 1000 + "1" + ")" * 1000, 1, ""),
    ],
)
def test_a_fault_says_where_and_why(source: str, position: int, reason: str) -> None:
    with pytest.raises(ExpressionFault) as caught:
        evaluate(source, SCOPE)
    assert reason in caught.value.reason
    if reason:
        assert caught.value.position == position


@pytest.mark.parametrize("text", ["${{ a", "${{}}", "${{  }}", "a ${{ 'b }}", "${{ } }}"])
def test_an_expression_has_an_end(text: str) -> None:
    with pytest.raises(ExpressionFault):
        split_text(text)


@pytest.mark.parametrize(
    "source", ["duration(params.token)", "int(params.token)", "{}[params.token]", "params.token + 1"]
)
def test_no_fault_quotes_a_value(source: str) -> None:
    with pytest.raises(ExpressionFault) as caught:
        evaluate(source, SCOPE)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "params.long.map(x, x) + params.long.map(x, x)",
        "(params.long + params.list).all(x, true)",
        "params.long.all(x, x in params.long)",
        "params.long.map(x, params.long)",
        "params.letters" + " + params.letters" * 200,
        "['ab']" + ".map(x, x + x)" * 200,
        "[[1]]" + ".map(x, [x, x])" * 60,
        "params.list.all(x, " + "size([" + "x, " * 900 + "x]) > 0)",
        "-" * 4000 + "1",
        "params.long" + " + params.long" * 300,
        "params.maps.map(x, x)",
        "params.maps.filter(x, x.a != x.b)",
        "params.long.map(x, uint(x))",
        "params.long.map(x, text(params.list))",
        "||".join(["params.letters.matches('\\\\w{300}')"] * 90),
        "params.long.all(x, !params.letters.matches('\\\\w{40}' + string(x)))",
        "params.long.all(x, params.big.matches('a*b'))",
    ],
)
def test_what_would_cost_too_much_is_refused_before_it_begins(source: str) -> None:
    """What takes long holds the whole controller. Processor time: the machine may have others to serve."""
    scope = {**SCOPE, "params": {**SCOPE["params"], "maps": MAPS, "big": "a" * 50_000}}
    began = time.process_time()
    with contextlib.suppress(ExpressionFault):
        evaluate(source, scope)
    assert time.process_time() - began < 0.6


@pytest.mark.parametrize(
    "source",
    [
        "params.long.map(x, x + 1)",
        "params.long.map(x, x > 600, [x, params.n])",
        "params.long.filter(x, x % 2 == 0).map(y, string(y) + params.text)",
        "size(params.long.map(x, x)) == 700 ? params.long.filter(x, x < 3).map(m, {'m': m}) : []",
        "[params.long.map(x, null)[0], params.long.map(x, x * 2)[1] + 5]",
        "params.many.map(key, key.size())",
        "params.long.map(x, params.text.matches('x.y') && string(x).matches('^1.$')).filter(b, b)",
        "params.long.map(x, join([text(x)], ','))[699]",
    ],
)
def test_a_long_list_in_turns_comes_to_the_same(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 700 elements, which is just enough; with everything in one turn the library does it all by itself."""
    many = {f"k{n}": n for n in range(700)}
    scope = {"params": {**SCOPE["params"], "many": many, "long": list(range(700))}}
    program = compile_source(source)
    cost = estimate(program.source, scope)
    assert cost.at_once > FEW
    monkeypatch.setattr("proctor_controller.domain.expressions.program.FEW", 0)
    in_turns = evaluate(source, scope)
    monkeypatch.setattr("proctor_controller.domain.expressions.program.FEW", 10**12)
    at_once = evaluate(source, scope)
    assert sorted(in_turns) == sorted(at_once) if "many" in source else in_turns == at_once


def test_ten_thousand_elements_are_mapped_at_once() -> None:
    began = time.process_time()
    assert evaluate("params.long.map(x, x + 1)", SCOPE) == list(range(1, MAX_ELEMENTS + 1))
    assert time.process_time() - began < 0.4


@pytest.mark.parametrize(
    ("source", "position", "reason"),
    [
        ("params.long.map(x, 1 / (x - 9999))", 1, "division by zero"),
        ("params.long.map(x, params.gone)", 20, "params has no member gone"),
        ("params.long.map(x, x + params.text)", 1, "types do not fit"),
        ("params.token.map(x, x)", 1, ""),
        ("params.text.matches('(')", 1, "a pattern of the linear-time engine"),
        ("params.text.matches(params.n)", 1, "types do not fit"),
        ("params.maps.map(x, x)", 13, "units of work, and 4000000 are allowed"),
    ],
)
def test_a_fault_in_turns_says_where_and_why(
    source: str, position: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExpressionFault) as caught:
        evaluate(source, {"params": {**SCOPE["params"], "maps": MAPS}})
    assert reason in caught.value.reason
    assert caught.value.position == position or not reason
    assert "s3cret" not in str(caught.value) + caplog.text


def test_what_the_language_passes_over_is_passed_over_in_turns_too() -> None:
    assert evaluate("params.n == 2 ? params.long.map(x, x / 0) : []", SCOPE) == []
    assert evaluate("true || size(params.long.map(x, 1 / 0)) > 0", SCOPE) is True


def test_a_macro_may_see_as_many_elements_as_are_allowed() -> None:
    assert evaluate("params.long.all(x, x >= 0)", SCOPE) is True
    with pytest.raises(ExpressionFault, match="10000 are allowed"):
        evaluate("params.long.all(x, x >= 0)", {"params": {"long": list(range(MAX_ELEMENTS + 10))}})


def test_a_condition_is_true_or_false() -> None:
    assert holds("result.exit_code == 3", SCOPE)
    with pytest.raises(ExpressionFault, match="true or false, not a number"):
        holds("params.n", SCOPE)


def test_references_with_what_is_known_from_the_source() -> None:
    found = references_of(
        'steps.deploy-vm.outputs + params.a-params.b + steps["q"]["z"].map(x, x.y + params.c)[0] // params.comment'
    )
    assert [(ref.path, ref.dashed, ref.in_macro) for ref in found] == [
        (("steps", "deploy"), "deploy-vm", False),
        (("vm", "outputs"), None, False),
        (("params", "a"), "a-params", False),
        (("params", "b"), None, False),
        (("steps", "q", "z"), None, False),
        (("params", "c"), None, True),
    ]
    assert references_of("'params.x' + \"steps.y\" == r'params.z\\'") == ()


def test_what_holds_an_expression() -> None:
    assert has_expression({"a": ["x", "${{ params.n }}"]})
    assert not has_expression({"a": ["$${{ params.n }}", 5, None]})
