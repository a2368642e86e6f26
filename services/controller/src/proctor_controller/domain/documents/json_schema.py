"""Checks parameters against a method's JSON Schema: linear time, no network, no value quoted in an error. Pure."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from proctor_common.errors import Fault, fault
from proctor_common.json_walk import parts_of
from proctor_common.limits import MAX_FAULTS
from proctor_controller.domain.documents.spelling import hint, misspelt

MAX_PATTERN_MEMORY = 1 << 20
_REFUSED = {"unevaluatedProperties", "unevaluatedItems", "$dynamicRef"}


class BadSchema(Exception):
    """The method's own description of its parameters cannot be used."""


def dotted(path: Iterator[Any] | tuple[Any, ...] | list[Any], root: str = "") -> str:
    """A path of names and numbers as text: ``parameters.args[2]``."""
    text = root
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


@lru_cache(maxsize=1000)
def compile_pattern(pattern: str) -> Any:
    """A pattern in the linear-time engine. Raises BadSchema for one that it lacks (a backreference, a lookahead)."""
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as wrong:
        raise BadSchema(f"pattern {pattern[:100]!r} is not one of the linear-time engine") from wrong


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compile_pattern(pattern).search(instance):
        yield ValidationError("no match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        compiled = compile_pattern(pattern)
        for name, value in instance.items():
            if compiled.search(name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    patterns = [compile_pattern(pattern) for pattern in schema.get("patternProperties", {})]
    known = schema.get("properties", {})
    extra = [name for name in instance if name not in known and not any(p.search(name) for p in patterns)]
    if rest is False:
        for name in extra[:MAX_FAULTS]:
            yield ValidationError(f"there is no {name[:60]!r}{hint(name, known)}", path=(name,))
    elif isinstance(rest, dict):
        for name in extra:
            yield from validator.descend(instance[name], rest, path=name)


def _unique_items(_: Any, unique: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list):
        seen = {json.dumps(item, sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("twice the same")


_extend: Any = extend
_Validator = _extend(
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    },
)


@lru_cache(maxsize=500)
def _validator(schema_text: str) -> Any:
    schema = json.loads(schema_text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as wrong:
        raise BadSchema(f"not a JSON Schema: {wrong.message[:200]}") from wrong
    except RecursionError as wrong:
        raise BadSchema("nested too deeply") from wrong
    _look_through(schema)
    return _Validator(schema, registry=Registry())


def _look_through(schema: Any) -> None:
    """Refuse what the linear-time engine or this check does not support, anywhere in the schema."""
    for part in parts_of(schema):
        if isinstance(part, dict):
            if refused := _REFUSED & part.keys():
                raise BadSchema(f"{min(refused)} is not supported")
            reference = part.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise BadSchema("$ref leads outside")


_MESSAGES: dict[str, Callable[[Any], str]] = {
    "type": lambda value: f"must be of type {value if isinstance(value, str) else ' or '.join(value)}",
    "enum": lambda value: f"must be one of {_short(value)}",
    "const": lambda value: f"must be {_short(value)}",
    "minimum": lambda value: f"must be at least {value}",
    "maximum": lambda value: f"must be at most {value}",
    "exclusiveMinimum": lambda value: f"must be more than {value}",
    "exclusiveMaximum": lambda value: f"must be less than {value}",
    "minLength": lambda value: f"must have at least {value} characters",
    "maxLength": lambda value: f"must have at most {value} characters",
    "minItems": lambda value: f"must have at least {value} items",
    "maxItems": lambda value: f"must have at most {value} items",
    "pattern": lambda value: f"must match {_short(value)}",
    "minProperties": lambda value: f"must have at least {value} members",
    "maxProperties": lambda value: f"must have at most {value} members",
    "uniqueItems": lambda _: "has an item twice",
}


_CODES = {"required": "missing", "additionalProperties": "unknown_member"}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


def _message(error: ValidationError) -> str:
    keyword = str(error.validator)
    if keyword == "required":
        return f"{_lacking(error)!r} is missing"
    if keyword == "additionalProperties":
        return str(error.message)
    if keyword == "pattern" and isinstance(error.schema, dict) and isinstance(error.schema.get("description"), str):
        # A pattern means little to users.
        return f"must be {error.schema['description'][:200]}, and match {_short(error.validator_value)}"
    if keyword in _MESSAGES:
        return _MESSAGES[keyword](error.validator_value)
    if keyword in {"anyOf", "oneOf"}:
        kinds = sorted({str(e.validator_value) for e in error.context or () if e.validator == "type"})
        return f"must be of type {' or '.join(kinds)}" if kinds else "fits none of the forms it may have"
    return f"does not satisfy {keyword}"


def _lacking(error: ValidationError) -> str:
    """The missing name: jsonschema reports each one separately, in a message that starts with its repr."""
    names: Any = error.validator_value
    return next((str(name) for name in names if error.message.startswith(repr(name))), "a member")


def _names_in(error: ValidationError) -> Mapping[str, Any]:
    """The names that the part may have; empty if any name is allowed."""
    schema: Any = error.schema
    closed = isinstance(schema, Mapping) and schema.get("additionalProperties") is False
    return schema.get("properties", {}) if closed else {}


def _deepest(error: ValidationError) -> ValidationError:
    """Of a choice of forms: the fault of the one form that has the right type, else the choice itself."""
    while error.validator in {"anyOf", "oneOf"}:
        forms: dict[Any, list[ValidationError]] = {}
        for each in error.context or ():
            forms.setdefault(each.schema_path[0], []).append(each)
        fitting = [
            faults
            for faults in forms.values()
            if all(each.validator != "type" or each.relative_path for each in faults)
        ]
        if len(fitting) != 1:
            return error
        error = fitting[0][0]
    return error


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check that the schema is supported. Raises BadSchema."""
    _validator(json.dumps(schema, sort_keys=True))


def find_faults(schema: Mapping[str, Any], value: Any, root: str) -> list[Fault]:
    """The faults of ``value``, at most MAX_FAULTS, each with its path after ``root``.

    Raises BadSchema.
    """
    validator = _validator(json.dumps(schema, sort_keys=True))
    found: list[Fault] = []
    try:
        for each in validator.iter_errors(value):
            error = _deepest(each)
            if error.validator == "required" and misspelt(error.instance, _lacking(error), _names_in(error)):
                # It is there under a misspelt name, which is reported.
                continue
            code = _CODES.get(str(error.validator), "invalid")
            found.append(fault(code, _message(error), dotted(error.absolute_path, root)))
            if len(found) >= MAX_FAULTS:
                break
    except RecursionError as wrong:
        raise BadSchema("refers to itself without end") from wrong
    except Unresolvable as wrong:
        raise BadSchema("$ref leads nowhere") from wrong
    return found
