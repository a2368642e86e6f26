# ruff: noqa: E501 - a case of a table stays on its line
"""Functions of expressions: what CEL's extensions have under these names, what differs, and what bounds them."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from proctor_controller.domain.expressions.evaluate import ExpressionFault, evaluate, unknown_functions

SCOPE: dict[str, Any] = {
    "params": {
        "big": "a" * 1_000_000, "lines": "\n".join(f"line {n}" for n in range(9_000)), "many": "a," * 60_000, "n": 3,
        "long": list(range(10_000)), "t": "a b", "json": '{"a": [1, 2.5, null, true], "b": "x"}', "deep": "[" * 200 + "]" * 200,
        "wide": "[" + "1," * 20_000 + "1]", "texts": ["b" * 1000] * 900, "none": None,
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('"a,b,c".split(",")', ["a", "b", "c"]), ('"a,b,c".split(",", 2)', ["a", "b,c"]), ('"abc".split("")', ["a", "b", "c"]),
        ('"a,b".split(",", 0)', []), ('"a,b".split(",", -1)', ["a", "b"]), ('"".split(",")', [""]), ('"abc".split("", 2)', ["a", "bc"]),
        ('"  a b\\t\\n".trim()', "a b"), ('"hello hello".replace("he", "we")', "wello wello"), ('"hello hello".replace("he", "we", 1)', "wello hello"),
        ('"ab".replace("", "_")', "_a_b_"), ('"hello".replace("l", "", 0)', "hello"),
        ('"TacoCÆt Xii".lowerAscii()', "tacocÆt xii"), ('"TacoCÆt xii".upperAscii()', "TACOCÆT XII"),
        ('"hello mellow".indexOf("ello")', 1), ('"hello mellow".indexOf("ello", 2)', 7), ('"hello".indexOf("z")', -1), ('"äb".indexOf("b")', 1),
        ('"hello mellow".lastIndexOf("ello")', 7), ('"hello mellow".lastIndexOf("ello", 6)', 1), ('"hello".charAt(4)', "o"), ('"hello".charAt(5)', ""),
        ('"tacocat".substring(4)', "cat"), ('"tacocat".substring(0, 4)', "taco"), ('"äöü".substring(1, 2)', "ö"),
        ('"%s has %d of %.2f, %e".format(["a", 3, 2.5, 1.0])', "a has 3 of 2.50, 1.000000e+00"), ('"%x %X %o %b %%".format([255, 255, 8, 5])', "ff FF 10 101 %"),
        ('"%s %s %s".format([true, null, [1, "a"]])', 'true null [1, "a"]'), ('"%b".format([true])', "1"), ('"%x".format(["hi"])', "6869"),
        ("[3, 1, 2].sort()", [1, 2, 3]), ('["b", "a"].sort()', ["a", "b"]), ("[2, 1.5].sort()", [1.5, 2]), ("[].sort()", []), ("[true, false].sort()", [False, True]),
        ('[1, "a", 1, 1.0, "a"].distinct()', [1, "a"]), ("[{\"a\": 1}, {\"a\": 1}].distinct()", [{"a": 1}]), ("[true, 1].distinct()", [True, 1]),
        ("[1, [2, [3]]].flatten()", [1, 2, [3]]), ("[1, [2, [3, [4]]]].flatten(3)", [1, 2, 3, 4]), ("[[1]].flatten(0)", [[1]]),
        ("[1, 2, 3].slice(1, 3)", [2, 3]), ("[1, 2].reverse()", [2, 1]), ('"abc".reverse()', "cba"), ('["a", "b"].join("-")', "a-b"), ('["a", "b"].join()', "ab"),
        ('regex.extract("vnf-1.4.2", "[0-9]+[.][0-9]+")', "1.4"), ('regex.extract("id=42;", "id=([0-9]+)")', "42"), ('regex.extract("x", "y")', None),
        ('regex.extractAll("a1b22", "[0-9]+")', ["1", "22"]), ('regex.replace("a1b2", "([0-9])", "<\\\\1>")', "a<1>b<2>"), ('regex.replace("aaa", "a", "b", 2)', "bba"),
        ("json.decode(params.json).a[1]", 2.5), ('json.decode("[1, 2]").map(x, x + 1)', [2, 3]), ('json.decode("null")', None),
        ('json.encode({"b": 1, "a": [true, null, "ü"]})', '{"a": [true, null, "ü"], "b": 1}'), ('json.encode("a\\"b")', '"a\\"b"'), ("json.decode(json.encode([1.5]))", [1.5]),
        ('size("äö€😀")', 4), ('"äö".size()', 2), ("size([1, 2])", 2), ('size({"a": 1})', 1), ('size(b"ä")', 2), ('["ä", "bc"].map(x, size(x))', [1, 2]),
        ("string(true)", "true"), ("string(1 == 2)", "false"), ("string(1.5)", "1.5"), ('string("x")', "x"), ('bool("true")', True), ('bool("F".lowerAscii())', False), ("bool(true)", True),
        ('params.lines.split("\\n").filter(l, l.endsWith("7")).map(l, l.substring(5))[2]', "27"), ('size(params.lines.split("\\n"))', 9000),
        ('params.lines.split("\\n").exists(l, l == "line 8999")', True),
    ],
)  # fmt: skip
def test_functions_that_people_need(source: str, value: Any) -> None:
    assert unknown_functions(source) == ()
    found = evaluate(source, SCOPE)
    assert (found, type(found)) == (value, type(value))


PAGE = (Path(__file__).parents[3] / "docs" / "test-plans.md").read_text()
DIFFERENCES = [
    # Each line of the table in docs/test-plans.md: what stands there, and what comes out here.
    ('regex.extract("x", "y")', None),
    ('[1, "a"].join("-")', "1-a"),
    ('"%s".format([[1, "a"]])', '[1, "a"]'),
    ("[2, 1.5].sort()", [1.5, 2]),
    ('string(timestamp("2026-01-01T00:00:00Z"))', "2026-01-01T00:00:00+00:00"),
    ('string(b"\\xff")', "\ufffd"),
]


def test_the_table_of_differences_is_whole() -> None:
    table = PAGE.partition("| differs from CEL |")[2].partition("\n\n")[0]
    rows = re.findall(r"^ *\| `([^`]+)` \| ", table, re.MULTILINE)
    assert rows == [source for source, _ in DIFFERENCES]


@pytest.mark.parametrize(("source", "value"), DIFFERENCES)
def test_what_differs_from_cel_is_as_the_table_says(source: str, value: Any) -> None:
    assert evaluate(source, {}) == value


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('"abc".substring(2, 1)', "substring takes two places"), ('"abc".substring(4)', "substring takes"), ('"a".charAt(2)', "charAt takes"), ('"a".indexOf("a", 2)', "indexOf takes"),
        ('[1, "a"].sort()', "sort takes a list of"), ("[[1], [2]].sort()", "sort takes"), ("[null].sort()", "sort takes"), ("[1].flatten(-1)", "flatten takes"), ("[1].slice(0, 2)", "slice takes"),
        ('bool("maybe")', "bool takes true or false"), ("bool(1)", "the function bool cannot take this value"), ("params.n.trim()", "the function trim cannot take this value"), ('"a".split()', "the function split cannot"),
        ("string([1])", "the function string cannot take"), ('json.decode("{")', "json.decode takes JSON text"), ('json.decode("[NaN]")', "json.decode takes JSON"), ('json.decode("[1e999]")', "out of range"),
        ('json.decode("[99999999999999999999]")', "out of range"), ("json.decode(params.deep)", "levels"), ('regex.extract("a", "(a)(b)?")', "one group"), ('regex.extract("a", "(?=a)")', "linear-time"),
        ('regex.replace("a", "a", "\\\\1")', "groups that there are"), ('"%d".format(["a"])', "as %d"), ('"%q".format([1])', "format knows"), ('"%s".format([])', "fewer values"), ('"%.9999f".format([1.0])', "precision"),
        ("size(params.none)", "params.none is null"), ("params.none.split(',')", "params.none is null"),
    ],
)  # fmt: skip
def test_what_a_function_cannot_take_is_told(source: str, said: str) -> None:
    with pytest.raises(ExpressionFault) as fault:
        evaluate(source, SCOPE)
    assert said in fault.value.reason


@pytest.mark.parametrize(
    "source",
    [
        'params.big.replace("a", params.big)', 'params.big.replace("", "aa")', 'params.t.replace("a", "b" + params.big).replace("a", params.big)',
        'params.big.split("")', 'params.many.split(",")', "json.decode(params.wide)", 'regex.extractAll(params.many, "a")', 'regex.replace(params.big, "a", "bbbb")',
        'params.many.split(",").map(x, x + x).map(x, x + x)', "params.long.map(x, params.big.replace('a', 'b'))", "params.long.map(x, json.decode(params.wide))",
        "params.long.map(x, size(params.big))", 'params.lines.split("\\n").map(l, l.split(""))', 'params.lines.split("\\n").map(l, json.encode(params.lines))',
        '"%s%s".format([params.big, params.big])', "params.texts.map(x, x.replace('b', 'bbbbbbbb'))", "params.long.map(x, params.texts.join(''))", "json.encode([params.big, params.big])",
        ".".join(['params.t', *['replace("a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")'] * 60]), ".".join(['params.t.replace("a", "aaaaaaaaaaaaaaaaaaaaa")', *["map(x, x + x)"] * 20]),
        ".".join(["[params.big.trim()]", *["map(a, a + a)"] * 18]), ".".join(["params.t.split(' ')", *["map(a, a + a)"] * 24]),
        "regex.extract(params.big + params.big + params.big + params.big + params.big, 'b')", ".".join(["params.long", *["reverse()"] * 300]),
    ],
)  # fmt: skip
def test_hostile_sizes_end_soon(source: str) -> None:
    begun = time.process_time()
    with pytest.raises(ExpressionFault):
        evaluate(source, SCOPE)
    assert time.process_time() - begun < 1.5


@pytest.mark.parametrize(
    "source",
    [
        "params.long.sort()", "params.long.distinct()", "[params.long].flatten()", "params.long.map(x, string(x)).join(',')",
        'params.lines.split("\\n").map(l, l.replace("line ", "")).map(n, int(n))',
        "params.big.upperAscii().size()", "params.texts.map(x, size(x))", "params.big.trim().reverse().substring(5)",
    ],
)  # fmt: skip
def test_what_is_large_and_allowed_takes_its_quarter_of_a_second(source: str) -> None:
    begun = time.process_time()
    evaluate(source, SCOPE)
    assert time.process_time() - begun < 1.0
