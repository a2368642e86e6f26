"""Parameters of a plan: their declaration (as in Heat), and their values in a run. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proctor_common.ids import STEP_NAME
from proctor_common.json_walk import parts_of
from proctor_controller.domain.documents.json_schema import BadSchema, compile_pattern
from proctor_controller.domain.documents.spelled import is_scalar, spell, written
from proctor_controller.domain.documents.spelling import hint
from proctor_controller.domain.plan.model import Constraint, Parameter, Path
from proctor_controller.domain.plan.reader import BAD_NAME, Reader

TYPES = ("string", "number", "boolean", "list", "json")
MAX_PARAMETERS = 200
MAX_CONSTRAINTS = 50
_MEMBERS = ("type", "label", "description", "default", "hidden", "constraints")
_CONSTRAINTS = ("length", "range", "modulo", "allowed_values", "allowed_pattern")
_TRUE = {"true", "t", "yes", "y", "on", "1"}
_FALSE = {"false", "f", "no", "n", "off", "0"}
_WHOLE = 2**63


class BadValue(ValueError):
    """A value does not fit its parameter; the message never quotes it."""


def read_parameters(reader: Reader, value: Any) -> dict[str, Parameter]:
    """The declared parameters, including those with faults, so that references to them can be checked."""
    path: Path = ("parameters",)
    declared = reader.mapping(value, path)
    for name in list(declared)[MAX_PARAMETERS : MAX_PARAMETERS + 1]:
        message = f"is one parameter too many: there are {len(declared)}, and {MAX_PARAMETERS} are allowed"
        reader.fault((*path, name), message, "too_large")
    return {name: _parameter(reader, name, part, (*path, name)) for name, part in declared.items()}


def _parameter(reader: Reader, name: str, value: Any, path: Path) -> Parameter:
    if not STEP_NAME.match(name):
        reader.fault(path, BAD_NAME)
    declared = reader.mapping(value, path, _MEMBERS)
    if reader.missing(value, "type", path, _MEMBERS, f"type is missing: {', '.join(TYPES)}"):
        return Parameter(name, "json", required=False)
    kind = reader.choice(declared["type"], (*path, "type"), TYPES)
    hidden = reader.flag(declared.get("hidden", False), (*path, "hidden"))
    parameter = Parameter(
        name=name,
        type=kind,
        required="default" not in declared,
        hidden=hidden,
        label=reader.text(declared.get("label", ""), (*path, "label")),
        description=reader.text(declared.get("description", ""), (*path, "description")),
        constraints=_constraints(reader, declared.get("constraints", []), kind, (*path, "constraints")),
    )
    if parameter.required:
        return parameter
    default = declared["default"]
    if kind == "string":
        default = reader.spelled(default, (*path, "default"))
    if default is not None:
        try:
            default = convert(parameter, default)
        except BadValue as fault:
            reader.fault((*path, "default"), str(fault), "constraint")
            default = None
    return replace(parameter, default=default)


def _constraints(reader: Reader, value: Any, kind: str, path: Path) -> tuple[Constraint, ...]:
    if not isinstance(value, list):
        reader.fault(path, "must be a list")
        return ()
    if len(value) > MAX_CONSTRAINTS:
        reader.fault(path, f"has {len(value)} constraints, and {MAX_CONSTRAINTS} are allowed", "too_large")
        return ()
    found: list[Constraint] = []
    for index, part in enumerate(value):
        where = (*path, index)
        each = reader.mapping(part, where, (*_CONSTRAINTS, "description"))
        names = [name for name in each if name != "description"]
        if not isinstance(part, Mapping) or (not names and len(part.keys() - each.keys())):
            continue  # reported already
        if len(names) != 1:
            reader.fault(where, f"give exactly one of {', '.join(_CONSTRAINTS)}")
            continue
        (name,) = names
        if _is_sound(reader, name, each[name], kind, (*where, name)):
            of = reader.spelled(each[name], (*where, name))
            if name == "allowed_values" and kind == "string":
                of = [reader.spelled(value, (*where, name, index)) for index, value in enumerate(of)]
            found.append(Constraint(name, of, reader.text(each.get("description", ""), where)))
    return tuple(found)


def _is_sound(reader: Reader, name: str, of: Any, kind: str, path: Path) -> bool:
    before = len(reader.faults)
    fitting = {"length": {"string", "list", "json"}, "range": {"number"}, "modulo": {"number"}}
    if kind not in fitting.get(name, {"string"} if name == "allowed_pattern" else set(TYPES)):
        reader.fault(path, f"a {kind} has no {name}")
    elif name in {"length", "range", "modulo"}:
        members = ("step", "offset") if name == "modulo" else ("min", "max")
        limits = reader.mapping(of, path, members)
        for member, limit in limits.items():
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                reader.fault((*path, member), "must be a number")
            elif name == "length" and limit < 0:
                reader.fault((*path, member), "must be 0 or more")
        if not limits:
            reader.fault(path, f"give {' or '.join(members)}")
        elif name != "modulo" and len(reader.faults) == before and limits.get("min", 0) > limits.get("max", math.inf):
            reader.fault(path, f"nothing fits: min {limits['min']} is above max {limits['max']}")
        elif name == "modulo" and (not limits.get("step") or not isinstance(limits.get("step"), int)):
            reader.fault(path, "step must be a whole number, not 0")
    elif name == "allowed_values":
        _check_allowed(reader, kind, of, path)
    else:
        try:
            compile_pattern(reader.text(of, path))
        except BadSchema as fault:
            reader.fault(path, str(fault))
    return len(reader.faults) == before


def _check_allowed(reader: Reader, kind: str, of: Any, path: Path) -> None:
    """Allowed values must be valid for the parameter, or for the items of a list."""
    if not isinstance(of, list) or not of:
        reader.fault(path, "must be a list of at least one value")
        return
    for index, value in enumerate(of):
        try:
            typed = value if kind == "list" else _as_type(kind, value)
            fits = kind == "string" or typed == value
        except BadValue:
            fits = False
        if not fits:
            reader.fault((*path, index), f"nothing fits: a {kind} is never this")


def bind(
    reader: Reader,
    declared: Mapping[str, Parameter],
    given: Mapping[str, Any],
    *,
    complete: bool,
    unknown: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The value of each parameter: the given one, else its default. ``complete``: a parameter with neither is a fault,
    unless its declaration is one. ``unknown``: parameters whose value is not known yet.
    """
    for name in given:
        if name not in declared:
            near = hint(name, declared)
            reader.fault(("parameters", name[:100]), f"the plan has no parameter {name[:60]!r}{near}", "unknown_member")
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        path = ("parameters", name)
        if name in unknown or reader.faults.touch(path):
            continue
        if name in given:
            try:
                values[name] = convert(parameter, given[name])
            except BadValue as fault:
                reader.fault(path, f"the value given for {name} {fault}", "constraint")
        elif not parameter.required:
            values[name] = parameter.default
        elif complete:
            reader.fault(path, f"the parameter {name} has no default: give it a value (-p {name}=…)", "missing")
    return values


def convert(parameter: Parameter, value: Any) -> Any:
    """The value as the parameter's type; text is parsed. Raises BadValue."""
    typed = _as_type(parameter.type, value)
    _check_text(typed)
    for constraint in parameter.constraints:
        why = _why_not(constraint, typed)
        if why is not None:
            raise BadValue(f"{why}: {constraint.description}" if constraint.description else why)
    return typed


def _as_type(kind: str, value: Any) -> Any:
    match kind:
        case "string":
            return _string(value)
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "list":
            return _list(value)
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, dict | list):
        raise BadValue("must be a map or a list, or JSON text of one")
    return value


def _string(value: Any) -> str:
    if not is_scalar(value):
        raise BadValue("must be text")
    return written(value)


def _check_text(value: Any) -> None:
    """Refuse text that cannot be stored, anywhere in the value."""
    for part in parts_of(value):
        for text in [part] if isinstance(part, str) else part if isinstance(part, dict) else ():
            if "\0" in text:
                raise BadValue("must not hold a NUL character")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise BadValue("holds half of a surrogate pair, which is no text") from None


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        text = value.strip()
        try:
            value = int(text) if len(text) < 25 else float(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                raise BadValue("must be a number") from None
        value = spell(value, text) if math.isfinite(value) and "_" not in text else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadValue("must be a number")
    if isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
        raise BadValue("is too large for a whole number")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
    if not isinstance(value, bool):
        raise BadValue("must be true or false")
    return value


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        value = _json(text) if text.startswith("[") else [part.strip() for part in text.split(",")] if text else []
    if not isinstance(value, list):
        raise BadValue("must be a list")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=lambda part: spell(float(part), part), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadValue("is not JSON") from None


def _refuse(_: str) -> Any:
    raise ValueError


def _why_not(constraint: Constraint, value: Any) -> str | None:
    of = constraint.of
    match constraint.kind:
        case "length":
            return _outside(len(value), of, "must have", " characters" if isinstance(value, str) else " items")
        case "range":
            return _outside(value, of, "must be", "")
        case "modulo":
            step, offset = of["step"], of.get("offset", 0)
            multiple = f"{offset} more than a multiple of {step}" if offset else f"a multiple of {step}"
            return None if value % step == offset % step else f"must be {multiple}"
        case "allowed_values":
            each = value if isinstance(value, list) and value not in of else [value]
            allowed = ", ".join(json.dumps(item, ensure_ascii=False) for item in of[:20])
            return None if all(item in of for item in each) else f"must be one of {allowed}"
    matches = compile_pattern(of).fullmatch(value) is not None
    return None if matches else f"must match {of}"


def _outside(number: float, of: Mapping[str, Any], verb: str, unit: str) -> str | None:
    if "min" in of and number < of["min"]:
        return f"{verb} at least {of['min']}{unit}"
    if "max" in of and number > of["max"]:
        return f"{verb} at most {of['max']}{unit}"
    return None
