"""Why an expression cannot be read or evaluated, in words of our own. Pure.

No reason quotes a value: it may be hidden.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proctor_common.json_walk import placed_parts
from proctor_controller.domain.expressions.names import CALLED, CALLED_ON
from proctor_controller.domain.expressions.source import ParsedSource

Scope = Mapping[str, Any]
"""The names an expression may read: params, steps, hosts, volumes, matrix, host, run, self, result."""


class ExpressionFault(Exception):
    """An expression cannot be read or evaluated. ``position`` counts characters of the expression from 1; ``path``: its
    location in the template, as far as known; ``null``: what is null, where that is the reason.
    """

    def __init__(self, expression: str, position: int, reason: str) -> None:
        super().__init__(f"{reason} (at {position} of the expression {expression[:200]})")
        self.expression, self.position, self.reason = expression, position, reason
        self.path: tuple[str | int, ...] = ()
        self.null: str | None = None


class Unfit(Exception):
    """A function of ours does not accept its argument; the text quotes no value."""


def kind_of(value: Any) -> str:
    """The value's type by its name in plans."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a map"


def syntax_fault(source: str, message: str) -> ExpressionFault:
    """The library's first complaint: ``ERROR: <input>:line:column: what``."""
    _, _, rest = message.partition("ERROR: <input>:")
    line, _, rest = rest.partition(":")
    column, _, rest = rest.partition(":")
    reason = rest.strip().splitlines()[0][:200] if rest.strip() else "is not CEL"
    reason = reason.partition(" expecting ")[0].replace("mismatched input '<EOF>'", "it ends too soon")
    position = 1
    if line.isdigit() and column.isdigit():
        before = source.splitlines(keepends=True)[: int(line) - 1]
        position = min(sum(map(len, before)) + int(column), len(source) + 1)
    return ExpressionFault(source, max(position, 1), reason)


def runtime_fault(parsed: ParsedSource, scope: Scope, fault: Exception) -> ExpressionFault:
    """The reason of a failed evaluation, with the position in its source (from 1)."""
    reason, position = _reason(parsed.text, fault), 1
    others = Unfit | ZeroDivisionError | OverflowError | KeyError | IndexError
    if not isinstance(fault, others) and (null := null_fault(parsed, scope)) is not None:
        return null
    missing = None
    if isinstance(fault, KeyError | IndexError) or "Undefined variable" in str(fault):
        missing = _first_missing(parsed, scope)
    if missing is not None:
        reason, position = missing
    elif isinstance(fault, KeyError) and (host := _no_host(parsed, scope)) is not None:
        reason, position = host
    elif len(parsed.references) == 1:
        position = parsed.references[0].position
    else:
        # The library names the function that failed.
        position = next((each.position for each in parsed.called if f"'{each.name}'" in str(fault)), 1)
    return ExpressionFault(parsed.text, position, reason)


def null_fault(parsed: ParsedSource, scope: Scope) -> ExpressionFault | None:
    """The fault that something which the expression reads is null, with why it is; None where nothing is, or where a
    name is not there.
    """
    if _first_missing(parsed, scope, but_null=True) is not None:
        return None
    for reference in parsed.references:
        for name in _nulls(scope, reference.path):
            fault = ExpressionFault(parsed.text, reference.position, f"{name} is null{_why_null(scope, name)}")
            fault.null = name
            return fault
    return None


def _nulls(scope: Scope, path: tuple[str, ...]) -> Iterator[str]:
    """What is null on the way to a value, or else the first null in it."""
    value: Any = scope
    for index, name in enumerate(path):
        if not isinstance(value, Mapping) or name not in value:
            return
        value = value[name]
        if value is None:
            yield ".".join(path[: index + 1])
            return
    if path[0] == "steps" and path[2:] == ("by_host",) and isinstance(value, Mapping):
        several = [name for name, part in value.items() if part is None]
        yield from (".".join((*path, name)) for name in sorted(several, key=lambda name: name != scope.get("host")))
        return
    for below, part in placed_parts(value):
        if part is None:
            yield ".".join(path) + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in below)
            return


def _no_host(parsed: ParsedSource, scope: Scope) -> tuple[str, int] | None:
    """Why ``by_host`` may have no such host."""
    for reference in parsed.references:
        if reference.path[0] == "steps" and reference.path[2:] == ("by_host",):
            step = scope["steps"][reference.path[1]]
            hosts = ", ".join(step["by_host"]) or "no host"
            return f"{'.'.join(reference.path)} has no such host: the step ran on {hosts}", reference.position
    return None


def _why_null(scope: Scope, name: str) -> str:
    root, _, rest = name.partition(".")
    holder, found, host = name.partition(".by_host.")
    if found and "." not in host:
        return f": the step {holder.removeprefix('steps.')} has several instances on the host {host}, and by_host one"
    step = scope.get("steps", {}).get(rest.partition(".")[0]) if root == "steps" else None
    if isinstance(step, Mapping) and not name.endswith(".error"):
        ends = step.get("result")
        verdicts = {str(end.get("verdict")) for end in (ends if isinstance(ends, list) else [ends]) if end}
        if told := sorted(verdicts - {"passed", "reused", "None"}):
            return f": the step {rest.partition('.')[0]} ended as {', '.join(told)}"
    if root == "params":
        return ": no value was given for it"
    if name.endswith(".exit_code"):
        return ": there is no exit code, a signal ended the command"
    return ": there was no error" if name.endswith(".error") else ""


def _first_missing(parsed: ParsedSource, scope: Scope, *, but_null: bool = False) -> tuple[str, int] | None:
    """The first name that is not there: why the library could not go on, as far as can be told."""
    for reference in parsed.references:
        value: Any = scope
        for index, name in enumerate(reference.path):
            if not isinstance(value, Mapping) or name not in value:
                if but_null and value is None:
                    break
                if index and not isinstance(value, Mapping):
                    holder = ".".join(reference.path[:index])
                    return f"{holder} is {kind_of(value)} and has no member {name}", reference.position
                within = f"{'.'.join(reference.path[:index])} has no member" if index else "there is no name"
                return f"{within} {name}", reference.position
            value = value[name]
    return None


def _reason(source: str, fault: Exception) -> str:
    """The reason, which quotes nothing but the source."""
    text = str(fault)
    if isinstance(fault, Unfit):
        return text
    if isinstance(fault, ZeroDivisionError):
        return "division by zero"
    if isinstance(fault, OverflowError):
        return "a number is out of range"
    if isinstance(fault, KeyError):
        return "a map has no such member"
    if isinstance(fault, IndexError):
        return "a list has fewer elements"
    if isinstance(fault, TypeError) and "Function '" not in text:
        return "the types do not fit each other: convert with int(), double() or string()"
    _, found, name = text.partition("Undefined variable or function: '")
    if found and (name := name.partition("'")[0]) in source:
        # The library also says this of an existing function that takes no value of this type.
        taken = name in CALLED | CALLED_ON
        return f"the function {name} cannot take this value" if taken else f"there is no name or function {name}"
    _, found, name = text.partition("Function '")
    if found and (name := name.partition("'")[0]) in source:
        return f"the function {name} cannot take this value"
    return "cannot be evaluated"
