"""What a condition comes to, as far as its source says: one that is never true or false is refused. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from proctor_controller.domain.expressions.fault import kind_of
from proctor_controller.domain.expressions.lexer import Lexeme, tokens
from proctor_controller.domain.expressions.source import read_source

BOOLEAN = "a boolean"
_LOGIC = frozenset({"||", "&&", "==", "!=", "<", ">", "<=", ">="})
_SUMS = frozenset({"+", "-", "*", "/", "%"})
_CALLS = {
    **dict.fromkeys(("all", "bool", "contains", "endsWith", "exists", "exists_one", "existsOne", "has", "matches",
                     "startsWith"), BOOLEAN),
    **dict.fromkeys(("double", "indexOf", "int", "lastIndexOf", "size", "uint"), "a number"),
    **dict.fromkeys(("format", "join", "lowerAscii", "replace", "string", "substring", "text", "trim", "upperAscii"),
                    "text"),
    **dict.fromkeys(("distinct", "filter", "flatten", "map", "sort", "split"), "a list"),
    **dict.fromkeys(("duration", "timestamp"), "a time"), "bytes": "bytes", "type": "a type",
}  # fmt: skip
_OF_PARAMETER = {"string": "text", "number": "a number", "list": "a list", "json": "a map or a list"}
_OF_RESULT = {"exit_code": "a number", "verdict": "text", "error": "a map"}
_OF_STEP = {"result": "a map", "outputs": "a map", "hosts": "a list"}
_OF_ITEM = {"labels": "a map", "size_gb": "a number"}


def strange_kind(source: str, parameters: Mapping[str, Any], cells: Sequence[Mapping[str, Any]] | None) -> str | None:
    """What the condition is instead of true or false, where its source says so; None where it may be one.

    ``parameters``: as the plan declares them; ``cells``: of the step's matrix, None where they are not known.
    """
    found = _bare(list(tokens(source)))
    kind = _kind(found)
    bare = source[found[0].start : found[-1].end] if found else source
    if kind is None and (chains := read_source(bare).chains) and chains[0].is_whole:
        kind = _of_path(chains[0].path, parameters, cells)
    return None if kind == BOOLEAN else kind


def _bare(found: list[Lexeme]) -> list[Lexeme]:
    """Without brackets around the whole."""
    while len(found) > 2 and found[0].kind == "sign" and found[0].value == "(" and _closing(found, 0) == len(found) - 1:
        found = found[1:-1]
    return found


def _kind(found: list[Lexeme]) -> str | None:
    found = _bare(found)
    outer = list(_outer(found))
    signs = {found[index].value for index in outer if found[index].kind == "sign"}
    if "?" in signs:
        return _of_choice(found, outer)
    if signs & _LOGIC or any(found[index].kind == "name" and found[index].value == "in" for index in outer[1:]):
        return BOOLEAN
    if found and found[0].kind == "sign" and found[0].value == "!":
        return BOOLEAN
    if signs & _SUMS:
        return "a number or text"
    return _of_one(found)


def _of_choice(found: list[Lexeme], outer: list[int]) -> str | None:
    """Of ``a ? b : c``: where b and c are none, it is none."""
    start = next(index for index in outer if found[index].value == "?")
    depth = 0
    for index in outer[outer.index(start) + 1 :]:
        value = found[index].value if found[index].kind == "sign" else ""
        if value == ":" and depth == 0:
            kinds = {_kind(found[start + 1 : index]), _kind(found[index + 1 :])}
            return None if kinds & {None, BOOLEAN} else " or ".join(sorted(map(str, kinds)))
        depth += {"?": 1, ":": -1}.get(value, 0)
    return None


def _of_one(found: list[Lexeme]) -> str | None:
    if not found:
        return None
    first, last = found[0], found[-1]
    if len(found) == 1:
        if first.kind == "name":
            return {"true": BOOLEAN, "false": BOOLEAN, "null": "null"}.get(first.value)
        return {"text": "text", "number": "a number"}.get(first.kind)
    if first.value in {"[", "{"} and first.kind == "sign" and _closing(found, 0) == len(found) - 1:
        return "a list" if first.value == "[" else "a map"
    if last.kind == "sign" and last.value == ")":
        start = next((at for at in range(len(found)) if _closing(found, at) == len(found) - 1), 0)
        if start and found[start - 1].kind == "name":
            if found[start - 1].value == "decode":
                return None
            return _CALLS.get(found[start - 1].value)
    return None


def _closing(found: list[Lexeme], start: int) -> int | None:
    """Where the bracket at ``start`` is closed."""
    depth = 0
    for index in range(start, len(found)):
        if found[index].kind == "sign":
            depth += (found[index].value in "([{") - (found[index].value in ")]}")
        if depth == 0:
            return index if index > start else None
    return None


def _outer(found: list[Lexeme]) -> Sequence[int]:
    """The places of tokens that stand in no brackets."""
    outer, depth = [], 0
    for index, token in enumerate(found):
        is_sign = token.kind == "sign"
        depth -= is_sign and token.value in ")]}"
        if depth == 0 and not (is_sign and token.value in "([{)]}"):
            outer.append(index)
        depth += is_sign and token.value in "([{"
    return outer


def _of_path(
    path: tuple[str | int, ...], parameters: Mapping[str, Any], cells: Sequence[Mapping[str, Any]] | None
) -> str | None:
    root, *rest = path
    match root, rest:
        case "params", [str(name)]:
            return _OF_PARAMETER.get(parameters[name].type) if name in parameters else None
        case "matrix", [str(name)]:
            kinds = {kind_of(cell.get(name)) for cell in cells or ()}
            return None if kinds & {BOOLEAN} or not kinds else " or ".join(sorted(kinds))
        case ("result", []) | ("self", []) | ("run", []) | ("steps", [_]):
            return "a map"
        case ("hosts", [_]) | ("volumes", [_]):
            return "a list"
        case ("host", []) | ("run", [_]) | ("self", ["host"]):
            return "text"
        case ("hosts" | "volumes", [_, int()]):
            return "a map"
        case ("hosts" | "volumes", [_, int(), str(name)]):
            return _OF_ITEM.get(name, "text")
        case ("steps", [_, str(name)]) | ("self", [str(name)]):
            return _OF_STEP.get(name)
        case ("result", [str(name)]) | ("self", ["result", str(name)]) | ("steps", [_, "result", str(name)]):
            return _OF_RESULT.get(name)
    return None
